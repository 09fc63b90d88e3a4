//! Templates in the style of each family, under `fixtures/`. The expected texts are what Python's Jinja makes of them in the
//! environment of `transformers`.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::engine::template::STACK;
use crate::generation::Role;

const TOOL_JSON: &str = r#"{"type": "function", "function": {"name": "weather", "description": "Tell the weather in <town> & more", "parameters": {"type": "object", "properties": {"town": {"type": "string"}, "days": {"type": "integer"}}, "required": ["town"]}}}"#;

const TOOL_INDENTED: &str = r#"{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather in <town> & more",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {
                    "type": "string"
                },
                "days": {
                    "type": "integer"
                }
            },
            "required": [
                "town"
            ]
        }
    }
}"#;

fn tools() -> Vec<Json> {
    vec![serde_json::from_str(TOOL_JSON).unwrap()]
}

fn text(role: Role, content: &str) -> Message {
    Message { role, content: content.into(), ..Message::default() }
}

fn system(content: &str) -> Message {
    text(Role::System, content)
}

fn user(content: &str) -> Message {
    text(Role::User, content)
}

fn assistant(content: &str) -> Message {
    text(Role::Assistant, content)
}

fn call() -> Message {
    let call = json!({"id": "abcdef123", "function": {"name": "weather", "arguments": {"town": "Kraków", "days": 2}}});
    Message { tool_calls: vec![call], ..assistant("") }
}

fn result(content: &str) -> Message {
    Message {
        tool_name: Some("weather".into()),
        tool_call_id: Some("abcdef123".into()),
        ..text(Role::Tool, content)
    }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::jinja(source, "<s>", "</s>").unwrap()
}

fn render(source: &str, messages: &[Message]) -> String {
    template(source).render_chat(messages, &[], None, true).unwrap()
}

fn error(source: &str) -> TemplateError {
    template(source).render_chat(&[user("Hi")], &[], None, true).unwrap_err()
}

const QWEN: &str = include_str!("fixtures/qwen.jinja");

#[test]
fn qwen_speaks_chatml_with_a_system_text_of_its_own() {
    assert_eq!(
        render(QWEN, &[user("Hi")]),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn qwen_lists_tools_groups_their_results_and_skips_thinking() {
    let messages =
        [system("Be brief."), user("Weather?"), call(), result("sunny"), result("cold"), user("Thanks")];
    let prompt = template(QWEN).render_chat(&messages, &tools(), Some(&Think::Switch(false)), true).unwrap();
    let expected = format!(
        "<|im_start|>system\nBe brief.\n\n# Tools\n\n<tools>\n{TOOL_JSON}\n</tools><|im_end|>\n\
         <|im_start|>user\nWeather?<|im_end|>\n\
         <|im_start|>assistant\n<tool_call>\n\
         {{\"name\": \"weather\", \"arguments\": {{\"town\": \"Kraków\", \"days\": 2}}}}\n</tool_call><|im_end|>\n\
         <|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\ncold\n</tool_response><|im_end|>\n\
         <|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
    assert_eq!(prompt, expected);
}

const LLAMA: &str = include_str!("fixtures/llama.jinja");

#[test]
fn llama_puts_indented_tools_into_the_first_user_message() {
    let messages = [system("  Be brief. "), user(" Weather? "), call(), result("sunny")];
    let prompt = template(LLAMA).render_chat(&messages, &tools(), None, true).unwrap();
    let expected = format!(
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\n{TOOL_INDENTED}\n\nWeather?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n\
         {{\"name\": \"weather\", \"parameters\": {{\"town\": \"Kraków\", \"days\": 2}}}}<|eot_id|>\
         <|start_header_id|>ipython<|end_header_id|>\n\nsunny<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(prompt, expected);
}

#[test]
fn llama_without_tools_is_a_plain_conversation() {
    assert_eq!(
        render(LLAMA, &[user("Hi"), assistant(" Hello "), user("Bye")]),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

const MISTRAL: &str = include_str!("fixtures/mistral.jinja");

#[test]
fn mistral_shows_tools_and_system_text_with_the_last_user_message() {
    let messages = [
        system("Be brief."),
        user("Weather?"),
        call(),
        result("sunny"),
        assistant(" Sunny. "),
        user("And now?"),
    ];
    let prompt = template(MISTRAL).render_chat(&messages, &tools(), None, true).unwrap();
    let expected = format!(
        "<s>[INST] Weather?[/INST][TOOL_CALLS] [\
         {{\"name\": \"weather\", \"arguments\": {{\"town\": \"Kraków\", \"days\": 2}}, \"id\": \"abcdef123\"}}]</s>\
         [TOOL_RESULTS] {{\"content\": sunny, \"call_id\": \"abcdef123\"}}[/TOOL_RESULTS] Sunny.</s>\
         [AVAILABLE_TOOLS] [{TOOL_JSON}][/AVAILABLE_TOOLS][INST] Be brief.\n\nAnd now?[/INST]"
    );
    assert_eq!(prompt, expected);
}

#[test]
fn a_conversation_that_mistral_refuses_is_refused_in_its_words() {
    let refusal = template(MISTRAL).render_chat(&[user("a"), user("b")], &[], None, true).unwrap_err();
    assert_eq!(
        refusal,
        TemplateError::Refused(
            "After the optional system message, conversation roles must alternate user/assistant/user/assistant/..."
                .into()
        )
    );
}

#[test]
fn gemma_calls_the_assistant_model_and_has_no_system_turn() {
    assert_eq!(
        render(
            include_str!("fixtures/gemma.jinja"),
            &[system("Be brief."), user(" Hi "), assistant("Hello"), user("Bye")]
        ),
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n\
         <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn granite_adapts_its_system_text_to_tools_and_thinking() {
    let granite = template(include_str!("fixtures/granite.jinja"));
    let tools_shown = TOOL_INDENTED.replace('\n', "\n    ");
    assert_eq!(
        granite.render_chat(&[user("Hi")], &tools(), None, true).unwrap(),
        format!(
            "<|start_of_role|>system<|end_of_role|>You are Granite. Use tools.<|end_of_text|>\n\
             <|start_of_role|>tools<|end_of_role|>[\n    {tools_shown}\n]<|end_of_text|>\n\
             <|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
        )
    );
    assert_eq!(
        granite.render_chat(&[user("Hi")], &[], Some(&Think::Switch(true)), true).unwrap(),
        "<|start_of_role|>system<|end_of_role|>You are Granite. Think first.<|end_of_text|>\n\
         <|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    );
}

#[test]
fn phi_marks_what_the_assistant_generated() {
    let phi = template(include_str!("fixtures/phi.jinja"));
    let messages = [system("Be brief."), user("Hi"), assistant("Hello"), user("Bye")];
    assert_eq!(
        phi.render_chat(&messages, &[], None, true).unwrap(),
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"
    );
    assert_eq!(
        phi.render_chat(&messages[1..3], &[], None, false).unwrap(),
        "<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n</s>"
    );
}

#[test]
fn python_methods_slices_macros_and_json_work_as_in_python() {
    let messages = [user("Hi"), assistant("<think>\nhm\n</think>\n\nYes!\n")];
    assert_eq!(
        render(include_str!("fixtures/python.jinja"), &messages),
        "split=Yes!\n;strip=<thin;starts=True;ends=True;default=-;reversed=assistant;join=a, b;\
         upper=A1NoneTrue;items=2;get=nobody;\
         json={\"b\": 1.0, \"a\": [1e+16, 1e-05, null, \"é\\\"\\n<\"]};sorted={\"a\":{},\"b\":[]};\
         ascii=\"\\u00e9\\ud83d\\ude00\";indent={\n  \"b\": [],\n  \"a\": [\n    1\n  ]\n};\
         dict={'a': ['x', True, None]};ac<user,assistant>False\n    kept\nlast"
    );
}

#[test]
fn thinking_and_reasoning_effort_reach_the_template() {
    let source = "{{ enable_thinking is defined }} {{ enable_thinking }} {{ reasoning_effort|default('-') }}\
                  {% for m in messages if m.thinking %} {{ m.reasoning_content }}{% endfor %}";
    let thought = Message { thinking: Some("hm".into()), ..assistant("x") };
    let rendered = |think: Option<&Think>| {
        template(source).render_chat(std::slice::from_ref(&thought), &[], think, true)
    };
    assert_eq!(rendered(None).unwrap(), "False  - hm");
    assert_eq!(rendered(Some(&Think::Switch(false))).unwrap(), "True False - hm");
    assert_eq!(rendered(Some(&Think::Level("high".into()))).unwrap(), "True True high hm");
}

#[test]
fn arguments_become_text_for_a_template_that_appends_them() {
    let source = "{% for c in messages[0].tool_calls %}{{ c.type + ':' + c.function.arguments }}{% endfor %}";
    assert_eq!(render(source, &[call()]), r#"function:{"town":"Kraków","days":2}"#);
}

#[test]
fn a_template_that_expects_parts_gets_the_text_as_a_part() {
    let source = "{% for m in messages %}{{ m.role }}:{% for part in m.content %}\
                  {% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}";
    assert_eq!(render(source, &[user("Hi"), assistant("Hello")]), "user:Hi;assistant:Hello;");
}

#[test]
fn the_date_is_todays_in_the_format_asked_for() {
    let today = OffsetDateTime::now_utc().date();
    let rendered = render("{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%-d %B %Y') }}", &[]);
    let tomorrow = OffsetDateTime::now_utc().date();
    let expected = |date: time::Date| format!("{date}|{} {} {}", date.day(), date.month(), date.year());
    assert!(rendered == expected(today) || rendered == expected(tomorrow), "{rendered}");
}

#[test]
fn generation_tags_keep_their_whitespace_control() {
    assert_eq!(
        without_generation_tags("a {%- generation -%}\n{% endgeneration %} {% generations %} {%"),
        "a {%- with -%}\n{% endwith %} {% generations %} {%"
    );
}

#[test]
fn mistakes_name_their_line() {
    let syntax = ChatTemplate::jinja("a\n{% if %}", "", "").unwrap_err();
    assert!(matches!(syntax, TemplateError::Syntax { line: 2, .. }), "{syntax}");
    let unknown = error("a\nb\n{{ messages|nothing }}");
    assert!(matches!(
        &unknown,
        TemplateError::Render { line: 3, .. } | TemplateError::Syntax { line: 3, .. }
    ));
    let failing = error("a\n{{ 1 + 'a' }}");
    assert!(matches!(failing, TemplateError::Render { line: 2, .. }), "{failing}");
}

#[test]
fn loops_recursion_and_floods_hit_their_limits() {
    let endless =
        "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    assert_eq!(error(endless), TemplateError::Limit(Limit::Steps));
    let flood = "{% set s = 'a' * 1000000 %}{% for a in range(1000) %}{{ s }}{% endfor %}";
    assert_eq!(error(flood), TemplateError::Limit(Limit::Output));
    let recursion = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(error(recursion), TemplateError::Render { .. } | TemplateError::Limit(Limit::Depth)));
    let deep = "{% set ns = namespace(x=1) %}{% for a in range(2000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}";
    assert!(matches!(error(deep), TemplateError::Render { .. }));
}

#[test]
fn large_ranges_and_repetitions_are_refused() {
    for source in [
        "{% for a in range(10 ** 9) %}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ [1] * 10 ** 9 }}",
        "{% set x = 'a' %}{{ x * 10 ** 9 }}",
        "{{ 10 ** 10 ** 10 }}",
    ] {
        let refused = ChatTemplate::jinja(source, "", "")
            .and_then(|template| template.render_chat(&[user("Hi")], &[], None, true));
        assert!(refused.is_err(), "{source}: {refused:?}");
    }
}

/// What of the longest source and the stack of the worker's threads the next test takes: the time grows with the square of it.
const PART: usize = 4;

/// As much of `link` as that allows, between `start` and `end`.
fn chain(start: &str, link: &str, end: &str) -> String {
    format!("{start}{}{end}", link.repeat(MAX_SOURCE / PART / link.len()))
}

/// Some chains are valid, and take stack for each of their links.
#[test]
fn no_nesting_that_fits_a_source_overflows_the_stack() {
    let parse_all = || {
        for (start, link, end) in [
            ("{{ ", "(", " }}"),
            ("{{ ", "[", " }}"),
            ("{{ ", "{1:", " }}"),
            ("{{ ", "not ", "1 }}"),
            ("{{ ", "-", "1 }}"),
            ("{{ a", ".b", " }}"),
            ("{{ a", "[0]", " }}"),
            ("{{ a", "|e", " }}"),
            ("{{ a", "()", " }}"),
            ("{{ 1", "+1", " }}"),
            ("{{ a", "~a", " }}"),
            ("{{ a", " is b", " }}"),
            ("{{ a", " and a", " }}"),
            ("{{ a", " if a else a", " }}"),
            ("{{ a", " in a", " }}"),
            ("", "{% if a %}", ""),
            ("{% if a %}", "{% elif a %}", "{% endif %}"),
            ("", "{% for a in b %}", ""),
            ("", "{% macro a() %}", ""),
            ("", "{% generation %}", ""),
            ("", "{{", ""),
            ("", "{%", ""),
            ("", "{#", ""),
        ] {
            if let Ok(template) = ChatTemplate::jinja(&chain(start, link, end), "", "") {
                let _ = template.render_chat(&[user("Hi")], &[], None, true);
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK / PART).spawn(parse_all).unwrap().join().unwrap();
    let long = " ".repeat(MAX_SOURCE + 1);
    assert_eq!(ChatTemplate::jinja(&long, "", "").unwrap_err(), TemplateError::Limit(Limit::Source));
}

/// Every fixture, for the fuzzer to damage.
const SOURCES: [&str; 5] =
    [QWEN, LLAMA, MISTRAL, include_str!("fixtures/granite.jinja"), include_str!("fixtures/python.jinja")];

fn conversation() -> impl Strategy<Value = Vec<Message>> {
    let message = prop_oneof![
        "\\PC{0,8}".prop_map(|content| user(&content)),
        "(<think>|</think>|\\{\\{|\n|\\PC){0,6}".prop_map(|content| assistant(&content)),
        "\\PC{0,8}".prop_map(|content| system(&content)),
        "\\PC{0,8}".prop_map(|content| result(&content)),
        Just(call()),
    ];
    prop::collection::vec(message, 0..6)
}

proptest! {
    #[test]
    fn no_source_panics(source in r#"(\{%-? ?(if|for m in|endfor|endif|set x =|macro f\(a\)|endmacro|else|generation) ?|messages|-?%\}|\{\{|\}\}|\[1:\]|\||tojson|\(|\)|\.|'| |\n|\PC){0,24}"#) {
        if let Ok(template) = ChatTemplate::jinja(&source, "", "") {
            let _ = template.render_chat(&[user("Hi"), call()], &tools(), None, true);
        }
    }

    #[test]
    fn no_damaged_template_and_no_conversation_panics(
        source in prop::sample::select(SOURCES.to_vec()),
        removed in (any::<prop::sample::Index>(), 0..12_usize),
        inserted in (any::<prop::sample::Index>(), r#"(\{%|%\}|\{\{|\}\}|endfor|endif|else|\[-1\]|\|length|\|tojson|\|join| ~ | \* |\(|\)|messages|loop\.index|[0-9]|\PC){0,3}"#),
        messages in conversation(),
        has_tools in any::<bool>(),
        prompts in any::<bool>(),
    ) {
        let mut source: Vec<char> = source.chars().collect();
        let from = removed.0.index(source.len());
        source.drain(from..(from + removed.1).min(source.len()));
        let at = inserted.0.index(source.len());
        source.splice(at..at, inserted.1.chars());
        let source: String = source.into_iter().collect();
        if let Ok(template) = ChatTemplate::jinja(&source, "<s>", "</s>") {
            let tools = if has_tools { tools() } else { Vec::new() };
            if let Ok(prompt) = template.render_chat(&messages, &tools, None, prompts) {
                prop_assert!(prompt.len() <= MAX_OUTPUT);
            }
        }
    }
}
