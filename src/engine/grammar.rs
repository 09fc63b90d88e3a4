//! [`Grammars`] and [`Constraint`]: decoding that can only produce what `format` asks for, by llguidance.

mod gbnf;
mod mistake;

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::sampling::Token;
use crate::generation::{Failure, FailureCode, Format};

/// White space between two JSON tokens: none, a space, or a line break with its indentation. Bounded, because a small model
/// that finds itself in white space stays there.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,32}";

/// Compiles constraints for one vocabulary. Building it walks the whole vocabulary, so there is one per model.
pub struct Grammars(ParserFactory);

impl Grammars {
    /// `words` are the tokens' bytes by id, those of special tokens behind [`TokTrie::SPECIAL_TOKEN_MARKER`]; `ends` are the
    /// tokens that end a generation. A vocabulary without any cannot be constrained, for nothing could end the output.
    pub fn new(words: &[Vec<u8>], ends: &[Token]) -> Result<Self, String> {
        let first = ends.first().ok_or("the model has no token that ends a text")?;
        let size = u32::try_from(words.len()).map_err(|_| "the vocabulary is too large")?;
        let trie = TokTrie::from(&TokRxInfo::new(size, *first), words).with_eos_tokens(ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| error.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self(factory))
    }

    /// The constraint for a request; `None` for free text.
    pub fn constraint(&self, format: &Format) -> Result<Option<Constraint>, Failure> {
        let constraint = match format {
            Format::Text => return Ok(None),
            Format::Json => self.obeying(&json!({"type": "object"})),
            Format::Schema(schema) => self.obeying(schema).map_err(|reason| {
                match mistake::pointer(schema, &reason, |part| self.obeying(part).err()) {
                    Some(pointer) => format!("invalid JSON schema in format at {pointer}: {reason}"),
                    None => format!("invalid JSON schema in format: {reason}"),
                }
            }),
            Format::Grammar(grammar) => gbnf::lark(grammar)
                .and_then(|lark| self.compiled(TopLevelGrammar::from_lark(lark)))
                .map_err(|reason| format!("invalid grammar: {reason}")),
        };
        constraint.map(Some).map_err(|message| Failure { code: FailureCode::InvalidRequest, message })
    }

    /// JSON that obeys a schema.
    fn obeying(&self, schema: &Value) -> Result<Constraint, String> {
        let Value::Object(mut schema) = schema.clone() else {
            return Err("a JSON schema must be an object".to_owned());
        };
        schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITESPACE}));
        self.compiled(TopLevelGrammar::from_json_schema(Value::Object(schema)))
    }

    fn compiled(&self, grammar: TopLevelGrammar) -> Result<Constraint, String> {
        let matcher = Matcher::new(self.0.create_parser(grammar));
        match matcher.get_error() {
            Some(reason) => Err(reason.trim().to_owned()),
            None => Ok(Constraint(matcher)),
        }
    }
}

/// Where one generation is in its grammar.
pub struct Constraint(Matcher);

impl Constraint {
    /// Sets the logits of tokens that cannot come next to negative infinity.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let allowed = self.0.compute_mask_or_eos().map_err(|error| error.to_string())?;
        for (token, logit) in (0..).zip(logits) {
            if !allowed.is_allowed(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Moves on by a sampled token.
    pub fn accept(&mut self, token: Token) -> Result<(), String> {
        if self.0.is_stopped() {
            return Ok(());
        }
        self.0.consume_token(token).map_err(|error| error.to_string())
    }

    /// Whether the output is complete: nothing but an end token could follow.
    pub fn is_complete(&self) -> bool {
        self.0.is_stopped() && !self.0.is_error()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::draw::uniform;
    use super::super::sampling::{Sampler, Settings};
    use super::*;
    use crate::generation::Options;

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

    /// What a model of pure noise writes under `format`; strings and numbers are kept short by a bias.
    fn noise(format: &Format, seed: u64) -> Option<String> {
        let mut constraint = grammars().constraint(format).unwrap().unwrap();
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
                Self::Text(expected) => text[start..]
                    .starts_with(expected)
                    .then_some(start + expected.len())
                    .into_iter()
                    .collect(),
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
            let from = std::time::Instant::now();
            if let Ok(Some(mut constraint)) = grammars().constraint(&Format::Grammar(bomb.to_owned())) {
                let mut logits = vec![0.0; END as usize + 1];
                for _ in 0..50 {
                    if constraint.restrict(&mut logits).is_err() || constraint.accept(b'x'.into()).is_err() {
                        break;
                    }
                }
            }
            assert!(from.elapsed() < std::time::Duration::from_secs(20));
        }
    }

    #[test]
    fn free_text_has_no_constraint_and_a_vocabulary_without_end_cannot_be_constrained() {
        assert!(grammars().constraint(&Format::Text).unwrap().is_none());
        assert!(Grammars::new(&words(), &[]).is_err());
    }
}
