//! Templates in the style of Ollama's library. The expected texts follow from Go's `text/template` and Ollama's rules.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::engine::template::Limit;

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

fn render(source: &str, data: &PromptData<'_>) -> String {
    GoTemplate::parse(source).unwrap().render_prompt(data).unwrap()
}

fn chat(source: &str, messages: &[Message]) -> String {
    render(source, &PromptData { messages, ..PromptData::default() })
}

/// Renders an expression over `.Messages` of one user message and one tool.
fn eval(expression: &str) -> String {
    let source = format!("{{{{ with .Messages }}}}{{{{ end }}}}{expression}");
    let tools = [tool()];
    render(&source, &PromptData { prompt: "Hi", tools: &tools, ..PromptData::default() })
}

fn error(source: &str) -> TemplateError {
    GoTemplate::parse(source).and_then(|template| template.render_prompt(&PromptData::default())).unwrap_err()
}

fn tool() -> Json {
    json!({"type": "function", "function": {"name": "weather", "description": "Tell <it>",
        "parameters": {"type": "object", "required": ["town", "days"], "properties": {
            "town": {"type": "string", "description": "Where"}, "days": {"type": ["integer", "null"]}}}}})
}

const CHATML: &str = "{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
";

#[test]
fn chatml_in_the_old_style_renders_turn_by_turn_and_stops_at_the_answer() {
    let messages = [system("Be brief."), user("Hi"), assistant("Hello"), user("And?"), user("Well?")];
    assert_eq!(
        chat(CHATML, &messages),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
         <|im_start|>user\nAnd?\n\nWell?<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn an_answer_begun_in_the_old_style_is_continued() {
    assert_eq!(
        chat(CHATML, &[user("Hi"), assistant("Hel")]),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHel"
    );
}

#[test]
fn a_generate_request_is_one_turn() {
    let data = PromptData { system: "Be brief.", prompt: "Hi", ..PromptData::default() };
    assert_eq!(
        render(CHATML, &data),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn llama2_wraps_system_and_prompt_and_gets_its_response_appended() {
    let source = "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST]";
    let messages = [system("S"), user("a"), assistant("b"), user("c")];
    assert_eq!(chat(source, &messages), "[INST] <<SYS>>S<</SYS>>\n\na [/INST]b[INST] c [/INST]");
}

#[test]
fn llama3_ranges_over_messages_and_merges_neighbours() {
    let source = r#"{{- if .System }}<|start_header_id|>system<|end_header_id|>

{{ .System }}<|eot_id|>
{{- end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<|start_header_id|>user<|end_header_id|>

{{ .Content }}<|eot_id|>{{ if $last }}<|start_header_id|>assistant<|end_header_id|>

{{ end }}
{{- else if eq .Role "assistant" }}<|start_header_id|>assistant<|end_header_id|>

{{ .Content }}{{ if not $last }}<|eot_id|>{{ end }}
{{- end }}
{{- end }}"#;
    let turn = |role, text| format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}");
    let messages = [system("one"), user("a"), assistant("b"), system("two"), user("c"), user("d")];
    assert_eq!(
        chat(source, &messages),
        [
            turn("system", "one\n\ntwo<|eot_id|>"),
            turn("user", "a<|eot_id|>"),
            turn("assistant", "b<|eot_id|>"),
            turn("user", "c\n\nd<|eot_id|>"),
            turn("assistant", ""),
        ]
        .concat()
    );
    assert_eq!(
        chat(source, &[user("a"), assistant("b")]),
        turn("user", "a<|eot_id|>") + &turn("assistant", "b")
    );
}

#[test]
fn tools_calls_and_results_print_as_json() {
    let source = r#"{{- if .Tools }}[AVAILABLE_TOOLS] {{ .Tools }}[/AVAILABLE_TOOLS]
{{- range .Tools }}{{ json . }}{{ .Function.Name }}:
{{- range $name, $p := .Function.Parameters.Properties }} {{ $name }}={{ $p.Type }}/{{ toTypeScriptType $p }}{{ end }}
{{- .Function.Parameters.Required }}{{ end }}{{ end }}
{{- range .Messages }}
{{- if eq .Role "assistant" }}{{ if .ToolCalls }}[TOOL_CALLS] [
{{- range $i, $call := .ToolCalls }}{{ if $i }}, {{ end }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{- end }}]{{ end }}
{{- else if eq .Role "tool" }}[{{ .ToolName }} {{ .ToolCallID }} {{ .Content }}]
{{- end }}{{ end }}"#;
    let call = |town| json!({"id": "c1", "function": {"name": "weather", "arguments": {"town": town}}});
    let result = |content: &str| Message {
        tool_name: Some("weather".into()),
        tool_call_id: Some("c1".into()),
        ..text(Role::Tool, content)
    };
    let calls = Message { tool_calls: vec![call("a"), call("<b>")], ..assistant("") };
    let tools = [tool()];
    let messages = [user("x"), calls, result("1"), result("2")];
    let prompt = render(source, &PromptData { messages: &messages, tools: &tools, ..PromptData::default() });
    let tool = tool().to_string().replace('<', "\\u003c").replace('>', "\\u003e");
    assert_eq!(
        prompt,
        format!(
            "[AVAILABLE_TOOLS] [{tool}][/AVAILABLE_TOOLS]{tool}weather: town=string/string \
             days=[integer null]/number | null[town days]\
             [TOOL_CALLS] [{{\"name\": \"weather\", \"arguments\": {{\"town\":\"a\"}}}}, \
             {{\"name\": \"weather\", \"arguments\": {{\"town\":\"\\u003cb\\u003e\"}}}}]\
             [weather c1 1][weather c1 2]"
        )
    );
}

#[test]
fn a_suffix_fills_the_middle_and_leaves_the_conversation_out() {
    let source = "{{- if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else if .Messages }}{{ range .Messages }}{{ .Content }}{{ end }}{{ end }}";
    let data = PromptData { system: "S", prompt: "fn a() {", suffix: "}", ..PromptData::default() };
    assert_eq!(render(source, &data), "<PRE>fn a() {<SUF>}<MID>");
    assert_eq!(render(source, &PromptData { prompt: "x", ..PromptData::default() }), "x");
}

#[test]
fn thinking_reaches_the_template() {
    let source = "{{ if .IsThinkSet }}{{ .Think }}{{ .ThinkLevel }}{{ else }}unset{{ end }}{{ .Response }}";
    let render = |think: Option<&Think>| render(source, &PromptData { think, ..PromptData::default() });
    assert_eq!(render(None), "unset");
    assert_eq!(render(Some(&Think::Switch(false))), "false");
    assert_eq!(render(Some(&Think::Level("high".into()))), "truehigh");
}

#[test]
fn control_structures_follow_go() {
    assert_eq!(eval("{{ range $i, $v := .Tools }}{{ $i }}{{ $v.Type }}{{ else }}none{{ end }}"), "0function");
    assert_eq!(eval("{{ range .Nothing }}x{{ else }}none{{ end }}"), "none");
    assert_eq!(
        eval(
            "{{ range $i := 5 }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ if gt $i 3 }}{{ break }}{{ end }}{{ $i }}{{ end }}"
        ),
        "023"
    );
    assert_eq!(eval("{{ with .Nothing }}a{{ else with .Tools }}{{ len . }}{{ else }}c{{ end }}"), "1");
    assert_eq!(eval("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ $x }}{{ end }}{{ $x }}"), "32");
    assert_eq!(eval("{{ if and (eq 1 1) (not false) }}a{{ else if true }}b{{ end }}"), "a");
    assert_eq!(eval("{{ or .Nothing 0 \"\" }}{{ and 1 2 }}{{ or 0 (index .Messages 0).Content }}"), "2Hi");
    assert_eq!(eval("{{ (index .Messages 0).Role | printf \"%s-%s\" \"x\" | len }}"), "6");
    assert_eq!(
        eval(
            "{{ define \"t\" }}[{{ . }}{{ $ }}]{{ end }}{{ template \"t\" 7 }}{{ block \"b\" 8 }}{{ . }}{{ end }}"
        ),
        "[77]8"
    );
    assert_eq!(
        eval("a  {{- /* note */ -}}  b {{ 1 }} {{- 2 -}} c{{ true }}{{ nil }}{{ .Nothing.More }}"),
        "ab 12ctrue"
    );
}

#[test]
fn and_does_not_evaluate_what_cannot_matter() {
    assert_eq!(eval("{{ and false (index .Messages 9) }}{{ or 1 (index .Messages 9) }}"), "false1");
}

#[test]
fn mistakes_name_their_line() {
    for source in [
        "\n{{ if .A }}",
        "\n{{ else }}",
        "\n{{ end }}",
        "\n{{ .A | 1 }}",
        "\n{{ break }}",
        "\n{{ $x, $y := 1 }}",
        "\n{{ template x }}",
        "\n{{ (1 }}",
        "\n{{ }}",
        "\n{{ .A.}}",
        "\n{{ print\"a\" }}",
        "\n{{ nothing 1 }}",
    ] {
        let error = error(source);
        assert!(matches!(error, TemplateError::Syntax { line: 2, .. }), "{source:?}: {error}");
    }
    for source in [
        "\n{{ template \"x\" }}",
        "\n{{ $x }}",
        "\n{{ .Prompt.Field }}",
        "\n{{ index .Messages 9 }}",
        "\n{{ .Prompt 1 }}",
        "\n{{ eq 1 \"1\" }}",
        "\n{{ range true }}{{ end }}",
        "\n{{ and }}",
    ] {
        let error = error(source);
        assert!(matches!(error, TemplateError::Render { line: 2, .. }), "{source:?}: {error}");
    }
}

#[test]
fn loops_recursion_and_floods_hit_their_limits() {
    assert_eq!(error("{{ range 1000000000000 }}{{ end }}"), TemplateError::Limit(Limit::Steps));
    assert_eq!(
        error("{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}"),
        TemplateError::Limit(Limit::Depth)
    );
    assert_eq!(error(&"{{ if true }}".repeat(100_000)), TemplateError::Limit(Limit::Depth));
    assert_eq!(error(&format!("{{{{ {} }}}}", "(".repeat(100_000))), TemplateError::Limit(Limit::Depth));
    let flood = "{{ range 1000000 }}{{ printf \"%1000d\" 1 }}{{ end }}";
    assert_eq!(error(flood), TemplateError::Limit(Limit::Output));
    let doubling = "{{ $x := \"aaaaaaaaaaaaaaaa\" }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}";
    assert_eq!(error(doubling), TemplateError::Limit(Limit::Steps));
    let comparing = "{{ $x := printf \"%1000d\" 1 }}{{ range 1000000 }}{{ if eq $x $x }}{{ end }}{{ end }}";
    assert_eq!(error(comparing), TemplateError::Limit(Limit::Steps));
    assert!(matches!(error(&"{{ $x := 1 }}".repeat(2000)), TemplateError::Render { .. }));
}

proptest! {
    #[test]
    fn no_source_panics(source in r#"(\{\{-? ?(if|range|with|end|else|define "a"|template "a"|block "a"|break|\$x :=)? ?|-?\}\}|\.Messages|\.Tools|\.Role|index|slice|len|printf "%5\.2v"|json|print|\$x|\$|nil|\(|\)|\||[-0-9ex.]{1,4}|"|`|'|\\| |\n|\PC){0,24}"#) {
        if let Ok(template) = GoTemplate::parse(&source) {
            let messages = [user("é"), assistant("b")];
            let tools = [tool()];
            let data = PromptData { messages: &messages, tools: &tools, ..PromptData::default() };
            let _ = template.render_prompt(&data);
        }
    }

    #[test]
    fn no_damaged_template_and_no_conversation_panics(
        removed in (any::<prop::sample::Index>(), 0..12_usize),
        inserted in (any::<prop::sample::Index>(), r#"(\{\{|\}\}|end|else|range|\$|\.Role|index|slice|len|printf "%9v"|json|print|html|\(|\)|\||[-0-9]|\PC){0,3}"#),
        turns in prop::collection::vec((0..4_usize, "(\\{\\{|\\}\\}|\n|\\PC){0,6}"), 0..6),
        system in "\\PC{0,4}",
    ) {
        const SOURCE: &str = "{{ range $i, $m := .Messages }}{{ if eq $m.Role \"user\" }}U{{ $m.Content }}{{ else }}\
            {{ $m.Role }}{{ range .ToolCalls }}{{ .Function.Name }}{{ json .Function.Arguments }}{{ end }}{{ end }}\
            {{ end }}{{ range .Tools }}{{ .Function }}{{ end }}{{ printf \"%5.2v|%q\" .System .Prompt }}{{ slice .Prompt 0 1 }}";
        let mut source: Vec<char> = format!("{SOURCE}{CHATML}").chars().collect();
        let from = removed.0.index(source.len());
        source.drain(from..(from + removed.1).min(source.len()));
        let at = inserted.0.index(source.len());
        source.splice(at..at, inserted.1.chars());
        let source: String = source.into_iter().collect();
        if let Ok(template) = GoTemplate::parse(&source) {
            let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
            let messages: Vec<_> = turns.iter().map(|(role, content)| text(roles[*role], content)).collect();
            let tools = [tool()];
            let data = PromptData { messages: &messages, tools: &tools, system: &system, ..PromptData::default() };
            if let Ok(prompt) = template.render_prompt(&data) {
                prop_assert!(prompt.len() <= crate::engine::template::MAX_OUTPUT);
            }
        }
    }
}
