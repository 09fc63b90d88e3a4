//! Models of pure noise, confined.

use super::*;
use crate::engine::draw::uniform;
use crate::engine::parse::outline::{self, Outline};
use crate::engine::parse::{Calls, Content, Family, Offer, Parser};
use crate::engine::sampling::{Sampler, Settings};
use crate::generation::Options;
use crate::generation::ability::{self, ThinkingMarks};

const END: Token = 260;

/// The 256 bytes, some longer pieces, and an end token.
fn words() -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    words.extend(["{\"", "\":", "true", "  "].map(|piece| piece.as_bytes().to_vec()));
    words.push(b"\xff<end>".to_vec());
    words
}

fn grammars() -> Grammars {
    Grammars::new(&words(), &[END]).unwrap()
}

/// What a model of pure noise writes under `format`.
fn noise(format: &Format, seed: u64) -> Option<String> {
    noise_under(grammars().constraint(format).unwrap().unwrap(), seed)
}

/// What a model of pure noise writes; strings and numbers are kept short by a bias.
fn noise_under(mut constraint: Constraint, seed: u64) -> Option<String> {
    let options = Options { temperature: Some(1.0), seed: Some(seed as i64), ..Options::default() };
    let settings = Settings::new(&options, 4096);
    let (words, mut sampler, mut bytes) = (words(), Sampler::default(), Vec::new());
    for position in 0..4000u64 {
        let logits: Vec<f32> = (0..words.len() as u64)
            .map(|token| {
                let bias =
                    if b"\"}],:0123456789 ".contains(&(token as u8)) && token < 256 { 4.0 } else { 0.0 };
                (uniform(seed ^ 99, position * 1000 + token) * 4.0) as f32 + bias
            })
            .collect();
        let token = sampler.sample(&settings, &logits, &[], position, |logits| {
            constraint.restrict(logits).unwrap();
        })?;
        constraint.accept(token).unwrap();
        if token != END {
            bytes.extend_from_slice(&words[token as usize]);
        }
        if token == END || constraint.is_complete() {
            return Some(String::from_utf8(bytes).unwrap());
        }
    }
    None
}

#[test]
fn json_from_noise_parses_as_an_object() {
    let mut complete = 0;
    for seed in 0..20 {
        if let Some(text) = noise(&Format::Json, seed) {
            assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
            complete += 1;
        }
    }
    assert!(complete > 10, "only {complete} of 20 came to an end");
}

#[test]
fn noise_obeys_a_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 12},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 2},
        },
        "required": ["colour", "count", "tags"],
        "additionalProperties": false,
    });
    for seed in 0..20 {
        let text = noise(&Format::Schema(schema.clone()), seed).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()));
        assert!((3..=12).contains(&value["count"].as_i64().unwrap()));
        let tags = value["tags"].as_array().unwrap();
        assert!((1..=2).contains(&tags.len()));
        assert!(tags.iter().all(|tag| tag.as_str().unwrap().chars().count() <= 3));
        assert_eq!(value.as_object().unwrap().len(), 3);
    }
}

#[test]
fn an_invalid_schema_is_refused_with_the_reason() {
    for schema in [json!({"type": "nonsense"}), json!([1]), json!({"$ref": "#/$defs/missing"})] {
        let Err(failure) = grammars().constraint(&Format::Schema(schema.clone())) else {
            panic!("{schema} was accepted");
        };
        assert_eq!(failure.code, FailureCode::InvalidRequest);
        assert!(failure.message.len() > "invalid JSON schema in format: ".len());
    }
}

#[test]
fn a_mistake_deep_in_a_schema_is_named_by_its_path() {
    let refusal = |schema: Value| grammars().mistake(&schema, "format").unwrap().message;
    let schema = json!({"type": "object", "properties": {
        "good": {"type": "string"},
        "bad name": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "nonsense"}]}},
    }});
    let message = refusal(schema);
    let place = "invalid JSON schema in format.properties[\"bad name\"].items.anyOf[1]: ";
    assert!(message.starts_with(place), "{message}");
    let schema = json!({"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/b"}}});
    let message = refusal(schema);
    assert!(message.starts_with("invalid JSON schema in format.properties.y: "), "{message}");
}

#[test]
fn free_text_has_no_constraint_and_a_vocabulary_without_end_cannot_be_constrained() {
    assert!(grammars().constraint(&Format::Text).unwrap().is_none());
    assert!(Grammars::new(&words(), &[]).is_err());
}

/// Reads what noise writes under the outline of a family.
fn outlined(template: &str, several: bool, seed: u64) -> Vec<Content> {
    let (family, grammars) = (Family::of(template), grammars());
    let schema = json!({
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/digit"}},
        "required": ["n"],
        "additionalProperties": false,
        "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
    });
    let tools = vec![("f", spaced(schema.clone())), ("g", spaced(schema))];
    let calls = outline::Calls { frame: &family.frame, tools, several };
    let outline = Outline { special: &[], thinking: None, calls: Some(calls), content: None };
    let text = noise_under(grammars.lark(outline.lark()).unwrap(), seed).unwrap();
    let offer = Offer { names: vec!["f".into(), "g".into()], most: usize::MAX, seed };
    let mut parser = Parser::new(None, Some(Calls::new(family, offer)));
    let pieces = parser.push(&text, true).into_iter().map(|piece| piece.content);
    pieces.filter(|content| *content != Content::Nothing).collect()
}

#[test]
fn forced_calls_of_every_family_are_read_as_calls() {
    for template in [
        "<tool_call>",
        "ipython",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][ARGS]",
        "<|tool_call|>",
        "<start_of_turn>",
        "",
    ] {
        for seed in 0..5 {
            let contents = outlined(template, seed % 2 == 0, seed);
            assert!(!contents.is_empty(), "{template}");
            for content in contents {
                let Content::Call(call) = content else { panic!("{template}: {content:?}") };
                assert!(["f", "g"].contains(&call["function"]["name"].as_str().unwrap()));
                assert!(call["function"]["arguments"]["n"].as_i64().is_some_and(|n| (0..10).contains(&n)));
            }
        }
    }
}

/// Whether an answer of these pieces obeys the outline of a forced call of Mistral's, to the end. Its marks and those of its
/// thinking are special tokens, the latter only where `special`.
fn obeys(thinking: Option<(ThinkingMarks, bool)>, special: bool, pieces: &[&str]) -> bool {
    let marks = ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"];
    let mut words = words();
    words.extend(marks.iter().map(|mark| format!("?{mark}").into_bytes()));
    let first = END + 1;
    words[first as usize..].iter_mut().for_each(|word| word[0] = TokTrie::SPECIAL_TOKEN_MARKER);
    let grammars = Grammars::new(&words, &[END]).unwrap();
    let special: Vec<_> = marks.into_iter().zip(first..).take(if special { 4 } else { 2 }).collect();
    let frame = &Family::of("[TOOL_CALLS][ARGS]").frame;
    let tools = vec![("f", json!({"const": {}}))];
    let calls = outline::Calls { frame, tools, several: false };
    let outline = Outline { special: &special, thinking, calls: Some(calls), content: None };
    let mut constraint = grammars.lark(outline.lark()).unwrap();
    let mut tokens = pieces.iter().flat_map(|piece| match special.iter().find(|(mark, _)| mark == piece) {
        Some((_, token)) => vec![*token],
        None => piece.bytes().map(Token::from).collect(),
    });
    tokens.all(|token| constraint.accept(token).is_ok()) && constraint.is_complete()
}

#[test]
fn a_model_may_think_before_a_forced_call_and_marks_may_be_special_tokens() {
    let marks = ability::thinking("[THINK][/THINK]").unwrap();
    let call = ["[TOOL_CALLS]", "f", "[ARGS]", "{}"];
    let with = |before: &[&'static str]| [before, &call[..]].concat();
    assert!(obeys(None, true, &call));
    assert!(!obeys(None, true, &with(&["x"])));
    assert!(!obeys(None, true, &call[1..]));
    for special in [true, false] {
        let (unopened, opened) = (Some((marks, false)), Some((marks, true)));
        assert!(obeys(unopened, special, &call));
        assert!(obeys(unopened, special, &with(&["[THINK]", "hm [x]\n", "[/THINK]", "\n\n"])));
        assert!(!obeys(unopened, special, &with(&["hm", "[/THINK]"])));
        assert!(obeys(opened, special, &with(&["hm", "[/THINK]"])));
        assert!(!obeys(opened, special, &call[2..]));
    }
}
