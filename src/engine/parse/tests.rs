//! Answers in the syntax of each family, cut into pieces in every way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::generation::ability;

const QWEN: &str = include_str!("../template/jinja/fixtures/qwen.jinja");
const LLAMA: &str = include_str!("../template/jinja/fixtures/llama.jinja");
const MISTRAL: &str = include_str!("../template/jinja/fixtures/mistral.jinja");
const GRANITE: &str = include_str!("../template/jinja/fixtures/granite.jinja");
const GEMMA: &str = include_str!("../template/jinja/fixtures/gemma.jinja");
const PHI: &str = include_str!("../template/jinja/fixtures/phi.jinja");
const MISTRAL_NEW: &str = "{{ tools }}[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}";

/// What a client sees of an answer.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    text: String,
    thinking: String,
    /// Name and arguments.
    calls: Vec<(String, Value)>,
}

/// Reads `pieces`; checks that they are all accounted for.
fn read<'a>(mut parser: Parser, pieces: impl IntoIterator<Item = &'a str>) -> Seen {
    let (mut seen, mut given, mut taken) = (Seen::default(), 0, 0);
    let mut take = |piece: Piece| {
        taken += piece.source;
        match piece.content {
            Content::Text(text) => seen.text += &text,
            Content::Thinking(text) => seen.thinking += &text,
            Content::Call(call) => {
                let function = &call["function"];
                assert_eq!(call["id"].as_str().map(str::len), Some(9), "{call}");
                let name = function["name"].as_str().unwrap().to_owned();
                seen.calls.push((name, function["arguments"].clone()));
            }
            Content::Nothing => {}
        }
    };
    for piece in pieces {
        given += piece.len();
        parser.push(piece, false).into_iter().for_each(&mut take);
    }
    parser.push("", true).into_iter().for_each(&mut take);
    assert_eq!(given, taken);
    seen
}

/// A parser for a model with this template that may call `f` and `g`.
fn parser(template: &str, most: usize) -> Parser {
    let offer = Offer { names: vec!["f".into(), "g".into()], most, seed: 1 };
    Parser::new(None, Some(Calls::new(Family::of(template), offer)))
}

/// Reads `answer` whole and in every two and character by character, which must give the same.
fn seen(make: impl Fn() -> Parser, answer: &str) -> Seen {
    let whole = read(make(), [answer]);
    for (at, _) in answer.char_indices() {
        let (head, tail) = answer.split_at(at);
        assert_eq!(read(make(), [head, tail]), whole, "cut at {at}");
    }
    let characters = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
    assert_eq!(read(make(), characters), whole);
    whole
}

fn answer(template: &str, text: &str) -> Seen {
    seen(|| parser(template, usize::MAX), text)
}

fn made(text: &str, calls: &[(&str, Value)]) -> Seen {
    let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), arguments.clone())).collect();
    Seen { text: text.to_owned(), thinking: String::new(), calls }
}

#[test]
fn qwen_encloses_each_call() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>}\"}}\n</tool_call>";
    let expected = || ("f", json!({"a": "</tool_call>}"}));
    assert_eq!(answer(QWEN, call), made("", &[expected()]));
    assert_eq!(
        answer(QWEN, &format!("I look.\n{call}\n{call}\n")),
        made("I look.", &[expected(), expected()])
    );
    assert_eq!(answer(QWEN, &format!("{call}\n\nDone.")), made("\n\nDone.", &[expected()]));
    let unclosed = call.strip_suffix("tool_call>").unwrap();
    assert_eq!(answer(QWEN, unclosed), made("", &[expected()]), "models forget the end");
}

#[test]
fn llama_writes_bare_calls() {
    let call = r#"{"name": "f", "parameters": {"a": 1}}"#;
    let expected = || ("f", json!({"a": 1}));
    assert_eq!(answer(LLAMA, call), made("", &[expected()]));
    assert_eq!(answer(LLAMA, &format!("\n{call}; {call}\n")), made("", &[expected(), expected()]));
    assert_eq!(answer(LLAMA, &format!("Well. <|python_tag|>{call}")), made("Well.", &[expected()]));
    let typed = r#"{"type": "function", "name": "f", "parameters": {"a": 1}}"#;
    assert_eq!(answer(LLAMA, typed), made("", &[expected()]));
    let quoted = format!("As JSON: {call}");
    assert_eq!(answer(LLAMA, &quoted), made(&quoted, &[]));
}

#[test]
fn mistral_lists_calls_or_names_each() {
    let (f, g) = (("f", json!({"a": 1})), ("g", json!({})));
    let list = r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}, "id": "123456789"}]"#;
    let named = r#"Yes.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}"#;
    for template in [MISTRAL, MISTRAL_NEW] {
        assert_eq!(answer(template, list), made("", &[f.clone(), g.clone()]));
        assert_eq!(answer(template, named), made("Yes.", &[f.clone(), g.clone()]));
    }
    assert_eq!(answer(MISTRAL, r#"[TOOL_CALLS]f{"a": 1}"#), made("", &[f]));
}

#[test]
fn granite_lists_calls_behind_its_mark() {
    let list = r#"[{"name": "f", "arguments": {"a": [1, "]"]}}]"#;
    let expected = [("f", json!({"a": [1, "]"]}))];
    for mark in ["<|tool_call|>", "<tool_call>", "<|tool_call|> "] {
        assert_eq!(answer(GRANITE, &format!("{mark}{list}")), made("", &expected));
    }
}

#[test]
fn gemma_writes_calls_as_json_or_python_in_a_fence() {
    let expected = [("f", json!({"a": "x", "b": [true, null]}))];
    for code in [
        "```tool_code\nf(a='x', b=[True, None])\n```",
        "```tool_code\n{\"name\": \"f\", \"arguments\": {\"a\": \"x\", \"b\": [true, null]}}\n```",
        "```json\n[{\"name\": \"f\", \"parameters\": {\"a\": \"x\", \"b\": [true, null]}}]\n```",
    ] {
        assert_eq!(answer(GEMMA, code), made("", &expected), "{code}");
    }
    let code = "```tool_code\nprint(1)\n```";
    assert_eq!(answer(GEMMA, code), made(code, &[]));
}

#[test]
fn any_other_model_may_answer_with_a_bare_call() {
    let list = r#"[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]"#;
    assert_eq!(answer(PHI, list), made("", &[("f", json!({})), ("g", json!({}))]));
}

#[test]
fn what_is_no_call_is_text_to_the_last_character() {
    for (template, texts) in [
        (
            QWEN,
            &[
                "<tool_call> is a mark",
                "<tool_call>{\"name\": \"f\", \"arguments\": {}",
                "<tool_call>{\"name\": \"f\"} and</tool_call>",
                "<tool_call>{\"name\": f}</tool_call>",
                "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
                " a <b ",
                "\n",
            ][..],
        ),
        (LLAMA, &["{\"answer\": 3}", "{\"name\": \"unknown\", \"parameters\": {}}", "{", "[1]", "{{a}} ok"]),
        (MISTRAL, &["[TOOL_CALLS]", "[TOOL_CALLS]f and g", "[TOOL_CALLS][]", "[TOOL_CALLS]f[ARGS]1", "[T"]),
        (GRANITE, &["<|tool_call|>{}", "<|tool_call|>f", "<|tool"]),
        (GEMMA, &["```python\nf()\n```", "```tool_code\nf(", "``"]),
    ] {
        for text in texts {
            assert_eq!(answer(template, text), made(text, &[]));
        }
    }
}

#[test]
fn text_streams_until_a_call_may_begin() {
    let mut parser = parser(QWEN, usize::MAX);
    let mut texts = |piece| {
        let texts = parser.push(piece, false).into_iter().map(|piece| match piece.content {
            Content::Text(text) => text,
            other => panic!("{other:?}"),
        });
        texts.collect::<String>()
    };
    assert_eq!(texts("Hello, "), "Hello,");
    assert_eq!(texts("world <to"), " world");
    assert_eq!(texts("ast>"), " <toast>");
    let mut parser = super::tests::parser(LLAMA, usize::MAX);
    assert_eq!(parser.push(r#"{"answer"#, false).len(), 1, "soon told from a call");
}

#[test]
fn no_more_calls_are_made_than_may_be() {
    let list = r#"[TOOL_CALLS][{"name": "f"}, {"name": "g"}] and so on"#;
    assert_eq!(seen(|| parser(MISTRAL, 1), list), made("", &[("f", json!({}))]));
}

/// A parser of thinking and of Qwen's calls.
fn thinker(opened: bool) -> Parser {
    let marks = ability::thinking("<think></think>").unwrap();
    let offer = Offer { names: vec!["f".into()], most: usize::MAX, seed: 1 };
    Parser::new(Some(Thinking::new(marks, opened)), Some(Calls::new(Family::of(QWEN), offer)))
}

fn thought(opened: bool, answer: &str) -> (String, String, usize) {
    let Seen { text, thinking, calls } = seen(|| thinker(opened), answer);
    (thinking, text, calls.len())
}

#[test]
fn thinking_is_separated_from_what_follows() {
    let expect = |thinking: &str, text: &str, calls| (thinking.to_owned(), text.to_owned(), calls);
    assert_eq!(thought(false, "<think>\nhm, a < b\n</think>\n\nYes."), expect("hm, a < b", "Yes.", 0));
    assert_eq!(thought(false, " <think>hm</think> a </think> b"), expect("hm", "a </think> b", 0));
    assert_eq!(thought(true, "\nhm\n\nso\n</think>\nYes."), expect("hm\n\nso", "Yes.", 0));
    assert_eq!(thought(false, "<think>\n\n</think>\n\nYes."), expect("", "Yes.", 0));
    assert_eq!(thought(true, "cut sho"), expect("cut sho", "", 0));
    assert_eq!(thought(false, "No <think>x</think>"), expect("", "No <think>x</think>", 0));
    assert_eq!(thought(false, "\n <thin"), expect("", "\n <thin", 0));
    let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
    assert_eq!(thought(true, &format!("hm</think>\n{call}")), expect("hm", "", 1));
}

#[test]
fn ids_are_the_same_when_a_generation_runs_again_and_differ_between_calls() {
    let ids = |seed| {
        let offer = Offer { names: vec!["f".into()], most: usize::MAX, seed };
        let mut parser = Parser::new(None, Some(Calls::new(Family::of(""), offer)));
        let pieces = parser.push(r#"[{"name": "f"}, {"name": "f"}]"#, true).into_iter();
        let ids = pieces.map(|piece| match piece.content {
            Content::Call(call) => call["id"].clone(),
            other => panic!("{other:?}"),
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1)[0], ids(1)[1]);
    assert_ne!(ids(1), ids(2));
}

/// Fragments of all syntaxes, in any order.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<|tool_call|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "```tool_code\n",
        "```",
        "{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"h\"}",
        "{\"name\": \"g\"",
        "}",
        "{",
        "[",
        "]",
        "f",
        "f(a=1)",
        "<think>",
        "</think>",
        "<",
        " ",
        "\n",
        ";",
        "ß",
        "text",
    ]);
    proptest::collection::vec(fragment, 0..10).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn any_split_of_any_answer_gives_the_same(
        text in fragments(),
        template in prop::sample::select(vec![QWEN, LLAMA, MISTRAL, MISTRAL_NEW, GRANITE, GEMMA, PHI]),
        sizes in proptest::collection::vec(1usize..6, 1..8),
        opened in proptest::option::of(any::<bool>()),
    ) {
        let make = || {
            let marks = ability::thinking("<think></think>").unwrap();
            let offer = Offer { names: vec!["f".into(), "g".into()], most: usize::MAX, seed: 1 };
            let thinking = opened.map(|opened| Thinking::new(marks, opened));
            Parser::new(thinking, Some(Calls::new(Family::of(template), offer)))
        };
        let mut pieces = Vec::new();
        let (mut rest, mut sizes) = (text.as_str(), sizes.iter().cycle());
        while !rest.is_empty() {
            let size = *sizes.next().unwrap();
            let at = rest.char_indices().nth(size).map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(at);
            pieces.push(piece);
            rest = after;
        }
        let whole = read(make(), [text.as_str()]);
        if whole.calls.is_empty() && opened.is_none() {
            prop_assert_eq!(&whole.text, &text);
        }
        prop_assert_eq!(read(make(), pieces), whole);
    }
}
