//! [`FoldConfig`]: which differences between requests do not count when it is asked whether they are the same.
//!
//! What is folded is only compared: a node gets the request as the client wrote it. A fold that cannot change an answer is on by default.
//! One that can is off: there two requests share an answer that one of them might not have got alone.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{Format, Generation, Input, Message, Options, Priority};

/// The folds, each on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FoldConfig {
    /// An option that is not said, and one that says what would be so anyway. Changes no answer: the worker fills in the same.
    pub defaults: bool,
    /// Options that say nothing at temperature 0: what only cuts off unlikely tokens, and the seed, for nothing is drawn. Changes no answer,
    /// and lets dialects share that have defaults of their own for them.
    pub irrelevant: bool,
    /// The order of stop sequences. Changes no answer: it ends before the first that comes.
    pub stop_order: bool,
    /// White space around texts, and how lines end. Off: it is in the prompt, and models answer to it.
    pub whitespace: bool,
    /// Ways to write the same character (Unicode NFC). Off: they are different tokens.
    pub unicode: bool,
    /// The order of keys in tools and schemas. Off: tools are in the prompt as they were sent, and an answer has its keys in the order of
    /// the schema.
    pub key_order: bool,
}

impl Default for FoldConfig {
    fn default() -> Self {
        Self {
            defaults: true,
            irrelevant: true,
            stop_order: true,
            whitespace: false,
            unicode: false,
            key_order: false,
        }
    }
}

impl FoldConfig {
    /// What `look` sees of the request in the form in which it is compared. `defaults` is what its model's options are, where whoever answers
    /// is known to fill in those, and Ollama's after them. The request itself is as before when it returns; it is not copied unless a fold
    /// that is off by default is on.
    pub fn folded<T>(
        &self,
        generation: &mut Generation,
        defaults: Option<&Options>,
        look: impl FnOnce(&Generation) -> T,
    ) -> T {
        let options = self.options(&generation.options, defaults);
        let options = std::mem::replace(&mut generation.options, options);
        // Where only own workers answer, they mean nothing.
        let unknown = defaults.and_then(|_| generation.unknown.take());
        let priority = std::mem::replace(&mut generation.priority, Priority::NORMAL);
        let seen = match self.rewrites() {
            true => look(&self.rewritten(generation.clone())),
            false => look(generation),
        };
        (generation.options, generation.priority) = (options, priority);
        generation.unknown = generation.unknown.take().or(unknown);
        seen
    }

    fn rewrites(&self) -> bool {
        self.whitespace || self.unicode || self.key_order
    }

    fn rewritten(&self, mut generation: Generation) -> Generation {
        if self.whitespace || self.unicode {
            texts(&mut generation.input, |text| self.text(text));
        }
        if self.key_order {
            sort_keys(&mut generation);
        }
        generation
    }

    fn options(&self, own: &Options, defaults: Option<&Options>) -> Options {
        let mut options = own.clone();
        if let (true, Some(defaults)) = (self.defaults, defaults) {
            options = options.or(defaults).or(&STANDARD);
            // Negative is the same as none: one is drawn.
            options.seed = options.seed.filter(|seed| *seed >= 0);
        }
        if self.irrelevant && options.temperature.is_some_and(|temperature| temperature <= 0.0) {
            // Neither typical_p nor XTC, which servers other than Arriero's worker apply here too: they can cut the likeliest token off.
            let Options { top_k, top_p, min_p, top_n_sigma, seed, .. } = Options::default();
            options = Options { top_k, top_p, min_p, top_n_sigma, seed, ..options };
        }
        if let (true, Some(stop)) = (self.stop_order, &mut options.stop) {
            stop.retain(|stop| !stop.is_empty());
            stop.sort_unstable();
            stop.dedup();
            options.stop = options.stop.filter(|stop| !stop.is_empty());
        }
        options
    }

    fn text(&self, text: &mut String) {
        if self.unicode && !is_nfc(text) {
            *text = text.nfc().collect();
        }
        if self.whitespace {
            let lines: Vec<_> = text.trim().split('\n').map(|line| line.trim_end_matches('\r')).collect();
            *text = lines.join("\n");
        }
    }
}

/// What a worker fills in last.
static STANDARD: LazyLock<Options> = LazyLock::new(Options::standard);

/// Every text that somebody wrote. What a raw prompt or a template ends with is as it is meant to be.
fn texts(input: &mut Input, fold: impl Fn(&mut String)) {
    match input {
        Input::Chat { messages, .. } => {
            for Message { content, thinking, images, .. } in messages {
                // An image stands at a byte of its text.
                if images.is_empty() {
                    fold(content);
                }
                thinking.iter_mut().for_each(&fold);
            }
        }
        Input::Prompt { prompt, system, images, .. } => {
            if images.is_empty() {
                fold(prompt);
            }
            system.iter_mut().for_each(&fold);
        }
        Input::Raw { .. } | Input::Infill { .. } => {}
    }
}

fn sort_keys(generation: &mut Generation) {
    if let Input::Chat { tools, messages } = &mut generation.input {
        let calls = messages.iter_mut().flat_map(|message| &mut message.tool_calls);
        tools.iter_mut().chain(calls).for_each(Value::sort_all_objects);
    }
    if let Format::Schema(schema) = &mut generation.format {
        schema.sort_all_objects();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(text: &str, options: Value) -> Generation {
        let input = json!({ "kind": "chat", "messages": [{ "role": "user", "content": text }],
            "tools": [{ "type": "function", "function": { "name": "f" } }] });
        serde_json::from_value(json!({ "model": "m", "input": input, "options": options })).unwrap()
    }

    const NONE: FoldConfig = FoldConfig {
        defaults: false,
        irrelevant: false,
        stop_order: false,
        whitespace: false,
        unicode: false,
        key_order: false,
    };

    fn folded(fold: &FoldConfig, generation: &Generation, defaults: Option<&Options>) -> Generation {
        fold.folded(&mut generation.clone(), defaults, Generation::clone)
    }

    /// Whether the two are the same with the folds, and that they are not without.
    fn are_same(fold: &FoldConfig, a: &Generation, b: &Generation) -> bool {
        let of = |fold, generation| folded(fold, generation, Some(&Options::default()));
        assert_ne!(of(&NONE, a), of(&NONE, b));
        of(fold, a) == of(fold, b)
    }

    #[test]
    fn what_changes_no_answer_is_folded_by_default() {
        let fold = FoldConfig::default();
        let same = [
            (json!({}), json!({ "temperature": 0.8, "top_k": 40 })),
            (json!({}), json!({ "seed": -1 })),
            (json!({ "temperature": 0.0, "top_p": 1.0 }), json!({ "temperature": 0.0, "seed": 3 })),
            (json!({ "stop": ["b", "a", "a"] }), json!({ "stop": ["a", "b", ""] })),
            (json!({ "stop": [] }), json!({})),
        ];
        for (a, b) in same {
            assert!(are_same(&fold, &chat("x", a.clone()), &chat("x", b.clone())), "{a} {b}");
        }
        let different = [
            (json!({ "temperature": 0.5 }), json!({ "temperature": 0.6 })),
            (json!({ "temperature": 0.0, "repeat_penalty": 1.2 }), json!({ "temperature": 0.0 })),
            (json!({ "temperature": 0.0, "typical_p": 0.5 }), json!({ "temperature": 0.0 })),
            (json!({ "temperature": 0.5, "seed": 3 }), json!({ "temperature": 0.5, "seed": 4 })),
            (json!({ "num_predict": 3 }), json!({ "num_predict": 4 })),
        ];
        for (a, b) in different {
            assert!(!are_same(&fold, &chat("x", a.clone()), &chat("x", b.clone())), "{a} {b}");
        }
    }

    #[test]
    fn the_models_own_options_are_what_is_meant_by_silence() {
        let defaults = Options { temperature: Some(0.0), ..Options::default() };
        let (silent, told) = (chat("x", json!({})), chat("x", json!({ "temperature": 0.0, "seed": 1 })));
        let fold = FoldConfig::default();
        assert_eq!(folded(&fold, &silent, Some(&defaults)), folded(&fold, &told, Some(&defaults)));
        // Of other servers it is not known what they fill in.
        assert_ne!(folded(&fold, &silent, None), folded(&fold, &told, None));
    }

    #[test]
    fn what_could_change_an_answer_is_folded_only_if_told_to() {
        let pairs = [
            ("  hi\r\nthere\n", "hi\nthere", FoldConfig { whitespace: true, ..NONE }),
            ("e\u{301}t\u{e9}", "\u{e9}te\u{301}", FoldConfig { unicode: true, ..NONE }),
        ];
        for (a, b, told) in pairs {
            let (a, b) = (chat(a, json!({})), chat(b, json!({})));
            assert!(are_same(&told, &a, &b) && !are_same(&FoldConfig::default(), &a, &b));
        }
        let a = chat("x", json!({}));
        let mut b = a.clone();
        if let Input::Chat { tools, .. } = &mut b.input {
            tools[0] = json!({ "function": { "name": "f" }, "type": "function" });
        }
        let key_order =
            |generation, fold: &FoldConfig| serde_json::to_string(&folded(fold, generation, None)).unwrap();
        let told = FoldConfig { key_order: true, ..NONE };
        assert_eq!(key_order(&a, &told), key_order(&b, &told));
        assert_ne!(key_order(&a, &NONE), key_order(&b, &NONE));
    }

    #[test]
    fn the_request_itself_stays_as_it_is() {
        let mut generation = chat(" x ", json!({ "temperature": 0.0, "seed": 1, "stop": ["b", "a"] }));
        generation.unknown = Some(Box::default());
        let before = generation.clone();
        let all = FoldConfig { whitespace: true, unicode: true, key_order: true, ..FoldConfig::default() };
        for fold in [all, FoldConfig::default(), NONE] {
            for defaults in [Some(&Options::default()), None] {
                let is_other = fold.folded(&mut generation, defaults, |folded| *folded != before);
                assert_eq!(is_other, fold != NONE || defaults.is_some());
                assert_eq!(generation, before);
            }
        }
    }
}
