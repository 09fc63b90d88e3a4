//! [`Dry`]: "don't repeat yourself" (<https://github.com/oobabooga/text-generation-webui/pull/5677>), with llama.cpp's names,
//! defaults and rules (<https://github.com/ggml-org/llama.cpp/pull/9702>): a token that would prolong a repetition is penalised
//! the more, the longer it is. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::Token;
use crate::generation::Options;

/// What breaks a repetition where nobody says.
pub const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Bytes of a breaker that count, and tokens after its first, as in llama.cpp.
const LONGEST_BREAKER: usize = 40;
const LONGEST_TAIL: usize = 20;

/// The sampler, switched on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    multiplier: f32,
    /// At least 1.
    base: f32,
    allowed_length: usize,
    /// Tokens that are looked at.
    last_n: usize,
    /// No repetition reaches across one of these.
    pub breakers: Arc<Breakers>,
}

impl Dry {
    /// `context` is what a `dry_penalty_last_n` of -1 means. `None`: it is off.
    pub fn new(options: &Options, context: usize) -> Option<Self> {
        let dry = Self {
            multiplier: options.dry_multiplier.unwrap_or(0.0),
            base: options.dry_base.unwrap_or(1.75),
            allowed_length: usize::try_from(options.dry_allowed_length.unwrap_or(2)).unwrap_or(0),
            last_n: usize::try_from(options.dry_penalty_last_n.unwrap_or(64)).unwrap_or(context),
            breakers: Arc::default(),
        };
        (dry.multiplier != 0.0 && dry.base >= 1.0 && dry.last_n > 0).then_some(dry)
    }

    /// Lowers the logits of tokens that would prolong a repetition at the end of `history`. Linear in the window.
    pub fn penalise(&self, logits: &mut [f32], history: &[Token]) {
        let window = &history[history.len().saturating_sub(self.last_n)..];
        for (token, length) in self.prolonging(window) {
            if !self.breakers.is_one(token)
                && let Some(logit) = logits.get_mut(token as usize)
            {
                *logit -= self.penalty(length);
            }
        }
    }

    /// Finite however long the repetition is.
    fn penalty(&self, length: usize) -> f32 {
        let excess = i32::try_from(length - self.allowed_length).unwrap_or(i32::MAX);
        (self.multiplier * self.base.powi(excess)).clamp(f32::MIN, f32::MAX)
    }

    /// Tokens that would prolong a repetition of at least the allowed length, and how long the longest such is.
    fn prolonging(&self, window: &[Token]) -> HashMap<Token, usize> {
        let most = self.breakers.distance(window);
        let mut longest = HashMap::new();
        if window.len() <= self.allowed_length || most < self.allowed_length {
            return longest;
        }
        for (back, length) in repetitions(window) {
            let length = length.min(most);
            if length >= self.allowed_length {
                let known = longest.entry(window[window.len() - back]).or_insert(length);
                *known = length.max(*known);
            }
        }
        longest
    }
}

/// For every number of tokens back from the end, at least 1: how much of the end of `window` also stands there. By the Z algorithm
/// (Gusfield, "Algorithms on Strings, Trees and Sequences", 1997) on the window read backwards.
fn repetitions(window: &[Token]) -> impl Iterator<Item = (usize, usize)> {
    let at = |back: usize| window[window.len() - 1 - back];
    let mut lengths = vec![0; window.len()];
    // The repetition that reaches furthest: from `left` to before `right`, it stands at the end too.
    let (mut left, mut right) = (0, 0);
    for back in 1..window.len() {
        let mut length = if back < right { lengths[back - left].min(right - back) } else { 0 };
        while back + length < window.len() && at(length) == at(back + length) {
            length += 1;
        }
        if back + length > right {
            (left, right) = (back, back + length);
        }
        lengths[back] = length;
    }
    lengths.into_iter().enumerate().skip(1)
}

/// Token sequences that break a repetition: first tokens, and what may follow each (nothing, where it is one by itself).
#[derive(Debug, Default, PartialEq)]
pub struct Breakers(HashMap<Token, Vec<Vec<Token>>>);

impl Breakers {
    /// Every way to write one of `texts`: `words` are the bytes of all tokens by id; a text may begin inside of one.
    pub fn new(texts: &[String], words: &[Vec<u8>], tokenize: impl Fn(&[u8]) -> Vec<Token>) -> Self {
        let mut heads: HashMap<Token, Vec<Vec<Token>>> = HashMap::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let text = &text.as_bytes()[..text.len().min(LONGEST_BREAKER)];
            let mut tails: Vec<Option<Vec<Token>>> = vec![None; text.len()];
            for (token, word) in (0..).zip(words) {
                for begun in begun(word, text) {
                    let tail = tails[begun % text.len()].get_or_insert_with(|| match begun == text.len() {
                        true => Vec::new(),
                        false => tokenize(&text[begun..]).into_iter().take(LONGEST_TAIL).collect(),
                    });
                    let known = heads.entry(token).or_default();
                    if !known.contains(tail) {
                        known.push(tail.clone());
                    }
                }
            }
        }
        Self(heads)
    }

    /// Whether the token breaks by itself.
    fn is_one(&self, token: Token) -> bool {
        self.0.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Tokens at the end of `window` after the last breaker; all of it if there is none.
    fn distance(&self, window: &[Token]) -> usize {
        if self.0.is_empty() {
            return window.len();
        }
        let after = |(place, token): (usize, &Token)| {
            let rest = &window[place + 1..];
            let tails = self.0.get(token)?.iter().filter(|tail| rest.starts_with(tail));
            tails.map(Vec::len).max().map(|length| rest.len() - length)
        };
        window.iter().enumerate().rev().find_map(after).unwrap_or(window.len())
    }
}

/// How many bytes of `text` a word can be the beginning of: all where it holds the text, else as many as it ends with.
fn begun(word: &[u8], text: &[u8]) -> Vec<usize> {
    if word.windows(text.len()).any(|part| part == text) {
        return vec![text.len()];
    }
    let longest = word.len().min(text.len() - 1);
    (1..=longest).filter(|&length| word.ends_with(&text[..length])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dry(allowed: i32, breakers: &[(Token, &[Token])]) -> Dry {
        let options = Options {
            dry_multiplier: Some(1.0),
            dry_base: Some(2.0),
            dry_allowed_length: Some(allowed),
            dry_penalty_last_n: Some(-1),
            ..Options::default()
        };
        let mut dry = Dry::new(&options, 4096).unwrap();
        let mut heads: HashMap<Token, Vec<Vec<Token>>> = HashMap::new();
        for (head, tail) in breakers {
            heads.entry(*head).or_default().push(tail.to_vec());
        }
        dry.breakers = Arc::new(Breakers(heads));
        dry
    }

    /// The penalties of tokens 0 to 5.
    fn penalties(dry: &Dry, history: &[Token]) -> [f32; 6] {
        let mut logits = [0.0; 6];
        dry.penalise(&mut logits, history);
        logits.map(|logit| -logit)
    }

    // Histories of llama.cpp's tests/test-sampling.cpp.
    #[test]
    fn a_repetition_costs_more_the_longer_it_is() {
        assert_eq!(penalties(&dry(2, &[]), &[0, 1, 2, 0, 1]), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(penalties(&dry(2, &[]), &[0, 1, 2, 0, 1, 2]), [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(penalties(&dry(2, &[]), &[0, 1, 2, 3, 4, 0, 1]), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(penalties(&dry(4, &[]), &[0, 1, 2, 3, 4, 0, 1]), [0.0; 6]);
        assert_eq!(penalties(&dry(2, &[]), &[0, 1]), [0.0; 6]);
    }

    #[test]
    fn nothing_is_repeated_across_a_breaker_and_a_breaker_is_free() {
        assert_eq!(penalties(&dry(2, &[(3, &[])]), &[0, 1, 3, 4, 0, 1]), [0.0; 6]);
        assert_eq!(penalties(&dry(2, &[(0, &[])]), &[0, 1, 2, 0, 1]), [0.0; 6]);
        // Only the whole of a breaker of two tokens breaks.
        assert_eq!(penalties(&dry(2, &[(0, &[1])]), &[0, 1, 2, 0, 1]), [0.0; 6]);
        assert_eq!(penalties(&dry(2, &[(0, &[2])]), &[0, 1, 2, 0, 1])[2], 1.0);
    }

    #[test]
    fn it_is_off_unless_asked_for_and_never_infinite() {
        assert_eq!(Dry::new(&Options::default(), 64), None);
        let weak = Options { dry_multiplier: Some(1.0), dry_base: Some(0.5), ..Options::default() };
        assert_eq!(Dry::new(&weak, 64), None);
        let long = vec![1; 4000];
        assert_eq!(penalties(&dry(2, &[]), &long)[1], f32::MAX);
    }

    #[test]
    fn only_the_window_counts() {
        let short = Dry { last_n: 3, ..dry(2, &[]) };
        assert_eq!(penalties(&short, &[0, 1, 2, 0, 1]), [0.0; 6]);
    }

    #[test]
    fn a_breaker_is_found_however_its_text_is_cut_into_tokens() {
        let words: Vec<Vec<u8>> =
            ["a", "b", "ab", "xa", "aba", "y"].iter().map(|word| word.as_bytes().to_vec()).collect();
        let spell = |text: &[u8]| text.iter().map(|byte| Token::from(byte - b'a')).collect();
        let breakers = Breakers::new(&["ab".to_owned()], &words, spell);
        let expected: HashMap<Token, Vec<Vec<Token>>> =
            [(0, vec![vec![1]]), (2, vec![vec![]]), (3, vec![vec![1]]), (4, vec![vec![]])].into();
        assert_eq!(breakers.0, expected);
        assert_eq!(breakers.distance(&[5, 3, 1, 5, 5, 0]), 3);
        assert_eq!(Breakers::new(&[String::new()], &words, spell), Breakers::default());
    }

    proptest! {
        #[test]
        fn repetitions_are_those_a_plain_search_finds(window in proptest::collection::vec(0u32..3, 0..60)) {
            let plain = (1..window.len()).map(|back| {
                let shared = window.iter().rev().zip(window.iter().rev().skip(back));
                (back, shared.take_while(|(a, b)| a == b).count())
            });
            prop_assert!(repetitions(&window).eq(plain));
        }

        #[test]
        fn no_window_makes_it_panic(
            window in proptest::collection::vec(0u32..5, 0..40), allowed in -1i32..5, head in 0u32..5, tail in 0u32..5
        ) {
            let penalties = penalties(&dry(allowed, &[(head, &[tail]), (tail, &[])]), &window);
            prop_assert!(penalties.iter().all(|penalty| penalty.is_finite() && *penalty >= 0.0));
        }
    }
}
