//! Models of pure noise, confined.

use std::collections::BTreeSet;

use proptest::prelude::*;

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
        let mut restrict = |logits: &mut [f32]| constraint.restrict(logits).unwrap();
        let token = sampler.sample(&settings, &logits, &[], position, Some(&mut restrict))?;
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
fn a_mistake_in_a_schema_is_found_where_it_is() {
    let wrong = json!({"type": "nonsense"});
    for (schema, pointer) in [
        (wrong.clone(), "/type"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b/c": wrong}}),
            "/properties/b~1c/type",
        ),
        (json!({"type": "array", "items": {"anyOf": [{"type": "null"}, wrong]}}), "/items/anyOf/1/type"),
        (
            json!({"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"y": {"$ref": "#/$defs/no"}}}}}),
            "/$defs/x/properties/y/$ref",
        ),
        (json!({"properties": {"n": {"type": "string", "pattern": "("}}}), "/properties/n/pattern"),
    ] {
        let Err(failure) = grammars().constraint(&Format::Schema(schema.clone())) else {
            panic!("{schema} was accepted");
        };
        assert!(failure.message.contains(&format!(" at {pointer}: ")), "{schema}: {}", failure.message);
    }
}

/// Whether a grammar takes all of `text` and could end there.
fn takes(gbnf: &str, text: &str) -> bool {
    let format = Format::Grammar(gbnf.to_owned());
    let mut constraint =
        grammars().constraint(&format).unwrap_or_else(|failure| panic!("{failure:?}")).unwrap();
    let taken = text.bytes().all(|byte| {
        let mut logits = vec![0.0; END as usize + 1];
        !constraint.is_complete()
            && constraint.restrict(&mut logits).is_ok()
            && logits[usize::from(byte)] == 0.0
            && constraint.accept(byte.into()).is_ok()
    });
    let mut logits = vec![0.0; END as usize + 1];
    taken
        && (constraint.is_complete()
            || (constraint.restrict(&mut logits).is_ok() && logits[END as usize] == 0.0))
}

#[test]
fn a_grammar_takes_what_it_says_and_nothing_else() {
    for (gbnf, taken, refused) in [
        ("root ::= \"yes\" | \"no\"", vec!["yes", "no"], vec!["", "ye", "yesno", "maybe"]),
        // A lexer that takes the longest match would lose these.
        ("root ::= [a-z]+ \"end\"", vec!["xend", "endend", "enend"], vec!["end", "xen"]),
        ("root ::= \"a\"* \"ab\"?", vec!["", "a", "aab", "ab"], vec!["b", "abb"]),
        (
            "root ::= (a \",\" \" \"?){2,3} a\na ::= [0-9]{1,2}",
            vec!["1, 22,3", "1,2,3,4"],
            vec!["1,2", "1,2,3,4,5", "100,1,1"],
        ),
        ("root ::= [^a\\n\\u00e9]{2}", vec!["bc", "ñ🦙"], vec!["ab", "b\n", "bé", "b"]),
        ("root ::= . \"\\x2f\"", vec!["é/", "\n/", "//"], vec!["/", "e"]),
    ] {
        taken.iter().for_each(|text| assert!(takes(gbnf, text), "{gbnf} takes {text:?}"));
        refused.iter().for_each(|text| assert!(!takes(gbnf, text), "{gbnf} refuses {text:?}"));
    }
}

/// A grammar as a tree, to be written and to be followed.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Class(bool, char, char),
    All(Vec<Node>),
    Any(Vec<Node>),
    Times(Box<Node>, usize, Option<usize>),
}

impl Node {
    fn gbnf(&self) -> String {
        let each = |nodes: &[Self]| nodes.iter().map(Self::gbnf).collect::<Vec<_>>();
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::Class(negated, from, to) => format!("[{}{from}-{to}]", if *negated { "^" } else { "" }),
            Self::All(nodes) => format!("({})", each(nodes).join(" ")),
            Self::Any(nodes) => format!("({})", each(nodes).join(" | ")),
            Self::Times(node, 0, Some(1)) => format!("{}?", node.gbnf()),
            Self::Times(node, 0, None) => format!("{}*", node.gbnf()),
            Self::Times(node, 1, None) => format!("{} +", node.gbnf()),
            Self::Times(node, least, None) => format!("{}{{{least},}}", node.gbnf()),
            Self::Times(node, least, Some(most)) => format!("{}{{{least},{most}}}", node.gbnf()),
        }
    }

    /// Where it can end that begins at `start`.
    fn ends(&self, text: &str, start: usize) -> BTreeSet<usize> {
        match self {
            Self::Text(expected) => {
                text[start..].starts_with(expected).then_some(start + expected.len()).into_iter().collect()
            }
            Self::Class(negated, from, to) => {
                let next =
                    text[start..].chars().next().filter(|next| (from..=to).contains(&next) != *negated);
                next.map(|_| start + 1).into_iter().collect()
            }
            Self::All(nodes) => nodes.iter().fold(BTreeSet::from([start]), |starts, node| {
                starts.into_iter().flat_map(|start| node.ends(text, start)).collect()
            }),
            Self::Any(nodes) => nodes.iter().flat_map(|node| node.ends(text, start)).collect(),
            Self::Times(node, least, most) => {
                let (mut reached, mut found) = (BTreeSet::from([start]), BTreeSet::new());
                // A text this short is at its end before anything could be repeated more often.
                for times in 0..=most.unwrap_or(least + text.len() + 1) {
                    if times >= *least {
                        found.extend(&reached);
                    }
                    reached = reached.into_iter().flat_map(|start| node.ends(text, start)).collect();
                }
                found
            }
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        "[abc]{1,2}".prop_map(Node::Text),
        (any::<bool>(), proptest::char::range('a', 'b'), proptest::char::range('b', 'c'))
            .prop_map(|(negated, from, to)| Node::Class(negated, from, to)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Node::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Node::Any),
            (inner, 0usize..3, proptest::option::of(1usize..3)).prop_map(|(node, least, more)| {
                Node::Times(Box::new(node), least, more.map(|more| least + more))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_grammar_takes_what_a_plain_search_takes(
        node in node(), texts in proptest::collection::vec("[abc]{0,5}", 12)
    ) {
        let gbnf = format!("root ::= first\nfirst ::= {}", node.gbnf());
        for text in &texts {
            let expected = node.ends(text, 0).contains(&text.len());
            prop_assert_eq!(takes(&gbnf, text), expected, "{} {:?}", gbnf, text);
        }
    }
}

#[test]
fn an_invalid_grammar_is_refused_with_the_reason() {
    let refused = |gbnf: &str| grammars().constraint(&Format::Grammar(gbnf.to_owned())).err().unwrap();
    assert_eq!(refused("root ::= x").message, "invalid grammar: there is no rule x");
}

#[test]
fn a_grammar_that_explodes_is_stopped_by_a_limit() {
    let doubling: String = (0..50).map(|rule| format!("r{rule} ::= r{0} r{0}\n", rule + 1)).collect();
    let doubling = format!("root ::= r0\n{doubling}r50 ::= [a-z]+ \"x\"");
    let bomb = "root ::= a{2000}\na ::= b{2000}\nb ::= c{2000}\nc ::= ([a-z] | \"xy\"){2000} [a-c]";
    for bomb in [bomb, doubling.as_str()] {
        // Refused, stopped, or followed as far as it is asked for; never wrong, and never worked out as a whole.
        let Ok(Some(mut constraint)) = grammars().constraint(&Format::Grammar(bomb.to_owned())) else {
            continue;
        };
        for _ in 0..50 {
            let mut logits = vec![0.0; END as usize + 1];
            if constraint.restrict(&mut logits).is_err() {
                break;
            }
            assert_eq!((logits[usize::from(b'x')], logits[END as usize]), (0.0, f32::NEG_INFINITY), "{bomb}");
            constraint.accept(b'x'.into()).unwrap();
        }
    }
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
    let tools = vec![("f", prepared(schema.clone())), ("g", prepared(schema))];
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

#[test]
fn dates_and_times_under_a_schema_exist() {
    let allows = |schema: &Value, text: &str| {
        let format = Format::Schema(schema.clone());
        let mut constraint = grammars().constraint(&format).unwrap().unwrap();
        let all = text.bytes().map(Token::from).chain([END]).all(|token| constraint.accept(token).is_ok());
        all && !constraint.0.is_error()
    };
    for (format, text, exists) in [
        ("date", "2024-02-29", true),
        ("date", "2000-02-29", true),
        ("date", "0000-02-29", true),
        ("date", "2023-02-29", false),
        ("date", "1900-02-29", false),
        ("date", "2023-02-28", true),
        ("date", "2023-12-31", true),
        ("date", "2023-11-31", false),
        ("time", "23:59:59Z", true),
        ("time", "12:30:60Z", false),
        ("date-time", "2024-02-29T00:00:00.5+01:00", true),
        ("date-time", "2023-02-29T00:00:00Z", false),
        ("date-time", "2023-02-28T00:00:60Z", false),
    ] {
        let schema = json!({ "type": "string", "format": format });
        assert_eq!(allows(&schema, &format!("\"{text}\"")), exists, "{format} {text}");
    }
    let february = json!({ "type": "string", "format": "date", "pattern": "-02-29$" });
    assert!(allows(&february, "\"2024-02-29\"") && !allows(&february, "\"2023-02-29\""));
    assert!(!allows(&february, "\"2024-01-29\""), "its own pattern counts too");
    let inside = json!({ "type": "array", "items": { "anyOf": [{ "format": "date" }] } });
    assert!(allows(&inside, "[1,\"2024-02-29\"]") && !allows(&inside, "[\"2023-02-29\"]"));
    let data = json!({ "const": { "format": "date" } });
    assert!(allows(&data, "{\"format\":\"date\"}"), "what is no schema stays as it is");
}
