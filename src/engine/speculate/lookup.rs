//! [`Lookup`]: guesses what comes next from what came after the same words before ("prompt lookup", A. Saxena, 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>). Pure state.
//!
//! Once it has found an earlier place it stays with it for as long as that tells what comes, as a reader's finger follows a line:
//! most tokens of a repetition cost one comparison and no search.

use std::collections::HashMap;

use super::super::sampling::Token;

/// Lengths of the endings that are looked up, the longest first.
const LENGTHS: [usize; 3] = [8, 4, 2];

/// A match is followed back no further than this to learn its length.
const MOST_MATCHED: usize = 32;

/// The index of one text that grows.
#[derive(Debug, Default)]
pub struct Lookup {
    /// Where the token after an ending was last seen, by the hash of the ending.
    places: HashMap<u64, usize>,
    /// Tokens of the text that are in the index.
    read: usize,
    found: Option<Match>,
}

/// An earlier place that reads like the end of the text.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Match {
    /// Of the token that followed there.
    next: usize,
    /// Tokens before it that are those at the end of the text; at most [`MOST_MATCHED`].
    length: usize,
}

impl Lookup {
    /// Takes in what was added to `text` since the last call. `judge` hears of every guess that a token confirmed or refuted: the
    /// length of its match, and which it was. What the text begins with is no test of anything.
    pub fn follow(&mut self, text: &[Token], mut judge: impl FnMut(usize, bool)) {
        let is_start = self.read == 0;
        while let Some(&token) = text.get(self.read) {
            self.index(text);
            let Some(found) = &mut self.found else {
                if !is_start {
                    self.found = self.find(text);
                }
                continue;
            };
            let right = text[found.next] == token;
            judge(found.length, right);
            if right {
                found.next += 1;
                found.length = (found.length + 1).min(MOST_MATCHED);
            } else {
                self.found = self.find(text);
            }
        }
        if is_start {
            self.found = self.find(text);
        }
    }

    /// How many tokens of context speak for the next guess; 0: there is none.
    pub fn matched(&self) -> usize {
        self.found.map_or(0, |found| found.length)
    }

    /// The next `count` tokens of `text`, or none. Where the earlier place runs into the end of the text, it goes on with what it
    /// has just said: a loop is guessed for as long as wanted.
    pub fn guess(&self, text: &[Token], count: usize) -> Vec<Token> {
        let Some(found) = self.found else { return Vec::new() };
        let period = text.len() - found.next;
        (0..count).map(|ahead| text[found.next + ahead % period]).collect()
    }

    /// Notes the token at `read` as what follows the endings before it.
    fn index(&mut self, text: &[Token]) {
        for length in LENGTHS {
            if let Some(from) = self.read.checked_sub(length) {
                self.places.insert(hash(&text[from..self.read]), self.read);
            }
        }
        self.read += 1;
    }

    /// The last place that reads like the end of what was read, for as many tokens as possible.
    fn find(&self, text: &[Token]) -> Option<Match> {
        let text = &text[..self.read];
        LENGTHS.iter().find_map(|&length| {
            let ending = &text[text.len().checked_sub(length)?..];
            let next = *self.places.get(&hash(ending))?;
            // Endings may share a hash.
            let is_alike = next >= length && text[next - length..next] == *ending;
            is_alike.then(|| Match { next, length: common_ending(&text[..next], text) })
        })
    }
}

fn common_ending(one: &[Token], other: &[Token]) -> usize {
    let pairs = one.iter().rev().zip(other.iter().rev());
    pairs.take(MOST_MATCHED).take_while(|(a, b)| a == b).count()
}

/// FNV-1a over whole tokens, mixed at the end.
fn hash(tokens: &[Token]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ tokens.len() as u64;
    let hash =
        tokens.iter().fold(start, |hash, &token| (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a search through all of `text` finds.
    fn searched(text: &[Token]) -> Option<Match> {
        LENGTHS.iter().find_map(|&length| {
            let ending = text.len().checked_sub(length).map(|from| &text[from..])?;
            let next = (length..text.len()).rev().find(|&at| text[at - length..at] == *ending)?;
            Some(Match { next, length: common_ending(&text[..next], text) })
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_finds_and_follows_it_until_it_is_wrong(
            text in prop::collection::vec(0u32..3, 1..120), start in 0usize..120, pieces in 1usize..5,
        ) {
            let start = start.min(text.len());
            let mut lookup = Lookup::default();
            lookup.follow(&text[..start], |_, _| panic!("the start is no test"));
            let mut expected = searched(&text[..start]);
            let mut at = start;
            while at < text.len() {
                prop_assert_eq!(lookup.found, expected);
                let end = (at + pieces).min(text.len());
                let mut judged = Vec::new();
                lookup.follow(&text[..end], |length, right| judged.push((length, right)));
                let mut expected_judged = Vec::new();
                // An index that has read nothing takes what comes for its start.
                let first = if at == 0 { end } else { at };
                for i in first..end {
                    expected = match expected {
                        Some(found) if text[found.next] == text[i] => {
                            expected_judged.push((found.length, true));
                            Some(Match { next: found.next + 1, length: (found.length + 1).min(MOST_MATCHED) })
                        }
                        found => {
                            expected_judged.extend(found.map(|found| (found.length, false)));
                            searched(&text[..=i])
                        }
                    };
                }
                if at == 0 {
                    expected = searched(&text[..end]);
                }
                prop_assert_eq!(judged, expected_judged);
                at = end;
            }
        }

        #[test]
        fn a_guess_is_what_the_text_would_be_if_it_went_on_repeating_itself(
            text in prop::collection::vec(0u32..3, 2..60), count in 0usize..40,
        ) {
            let mut lookup = Lookup::default();
            lookup.follow(&text, |_, _| {});
            let guess = lookup.guess(&text, count);
            match searched(&text) {
                None => prop_assert!(guess.is_empty()),
                Some(found) => {
                    let mut goes_on = text.clone();
                    for i in 0..count {
                        goes_on.push(goes_on[found.next + i]);
                    }
                    prop_assert_eq!(&guess, &goes_on[text.len()..]);
                }
            }
        }
    }

    #[test]
    fn the_longest_match_wins_and_among_equals_the_last() {
        let guess = |text: &[Token]| {
            let mut lookup = Lookup::default();
            lookup.follow(text, |_, _| {});
            (lookup.matched(), lookup.guess(text, 1))
        };
        assert_eq!(guess(&[1, 2, 3, 4, 70, 3, 4, 71, 3, 4, 72, 1, 2, 3, 4]), (4, vec![70]));
        assert_eq!(guess(&[3, 4, 71, 5, 3, 4, 72, 6, 3, 4]), (2, vec![72]));
        assert_eq!(guess(&[1, 2, 3]), (0, vec![]));
    }
}
