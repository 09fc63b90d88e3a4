//! [`Answer`]: from sampled tokens to the deltas of one answer: whole characters, no part of a stop sequence. Pure state.

use std::collections::VecDeque;

use super::sampling::Token;
use super::stop::{Released, StopMatcher};
use super::utf8::Decoder;
use crate::generation::{Delta, TokenLogprob};

/// The text of one answer as it comes into being.
#[derive(Debug)]
pub struct Answer {
    decoder: Decoder,
    stops: StopMatcher,
    /// Tokens whose text has not all been sent. Ids and log probabilities wait with it, so neither gives a stop sequence away.
    waiting: VecDeque<Waiting>,
    /// Bytes of text decoded so far.
    decoded: usize,
    /// Bytes of text sent so far.
    sent: usize,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    logprob: Option<TokenLogprob>,
    /// Bytes of text sent once the token's own text has been; a character it only begins counts as one.
    end: usize,
}

/// What a token led to.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Text to send; `None` while all of it is held back.
    More(Option<Delta>),
    /// A stop sequence is complete: the last of the text.
    Stopped(Option<Delta>),
}

impl Answer {
    /// Ends before the first of `stops`.
    pub fn new(stops: &[String]) -> Self {
        Self {
            decoder: Decoder::default(),
            stops: StopMatcher::new(stops),
            waiting: VecDeque::new(),
            decoded: 0,
            sent: 0,
        }
    }

    /// Adds a token and the bytes it stands for.
    pub fn push(&mut self, token: Token, bytes: &[u8], logprob: Option<TokenLogprob>) -> Step {
        let text = self.decoder.push(bytes);
        self.decoded += text.len();
        let end = self.decoded + usize::from(self.decoder.is_pending());
        self.waiting.push_back(Waiting { token, logprob, end });
        match self.stops.push(&text) {
            Released::Text(text) => Step::More(self.delta(text)),
            Released::Stopped(text) => {
                let last = self.delta(text);
                // What is left belongs to the stop sequence.
                self.waiting.clear();
                Step::Stopped(last)
            }
        }
    }

    /// The rest, at the end of an answer that no stop sequence ended. The start of a character is dropped.
    pub fn finish(&mut self) -> Option<Delta> {
        let text = self.stops.finish();
        // Nothing can come that would complete a character, so its tokens have nothing to wait for.
        self.waiting.iter_mut().for_each(|waiting| waiting.end = 0);
        self.delta(text)
    }

    fn delta(&mut self, text: String) -> Option<Delta> {
        self.sent += text.len();
        let mut delta = Delta { text, ..Delta::default() };
        let complete = self.waiting.iter().take_while(|waiting| waiting.end <= self.sent).count();
        for waiting in self.waiting.drain(..complete) {
            delta.tokens.push(waiting.token);
            delta.logprobs.extend(waiting.logprob);
        }
        (!delta.text.is_empty() || !delta.tokens.is_empty()).then_some(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(text: &str, tokens: &[Token]) -> Option<Delta> {
        Some(Delta { text: text.to_owned(), tokens: tokens.to_vec(), ..Delta::default() })
    }

    #[test]
    fn tokens_of_a_character_come_with_the_character() {
        let mut answer = Answer::new(&[]);
        let llama = "🦙".as_bytes();
        assert_eq!(answer.push(1, b"a", None), Step::More(delta("a", &[1])));
        assert_eq!(answer.push(2, &llama[..2], None), Step::More(None));
        assert_eq!(answer.push(3, &llama[2..], None), Step::More(delta("🦙", &[2, 3])));
    }

    #[test]
    fn tokens_of_a_stop_sequence_never_come() {
        let mut answer = Answer::new(&["STOP".to_owned()]);
        assert_eq!(answer.push(1, b"a S", None), Step::More(delta("a ", &[])));
        assert_eq!(answer.push(2, b"TO", None), Step::More(None));
        assert_eq!(answer.push(3, b"P!", None), Step::Stopped(None));
        assert_eq!(answer.finish(), None);
    }

    #[test]
    fn a_false_start_comes_with_its_tokens() {
        let mut answer = Answer::new(&["STOP".to_owned()]);
        assert_eq!(answer.push(1, b"ST", None), Step::More(None));
        assert_eq!(answer.push(2, b"AR", None), Step::More(delta("STAR", &[1, 2])));
        assert_eq!(answer.push(3, b"ST", None), Step::More(None));
        assert_eq!(answer.finish(), delta("ST", &[3]));
    }

    #[test]
    fn half_a_character_at_the_end_is_dropped_but_its_token_counts() {
        let mut answer = Answer::new(&[]);
        assert_eq!(answer.push(1, b"a", None), Step::More(delta("a", &[1])));
        assert_eq!(answer.push(2, b"\xf0\x9f", None), Step::More(None));
        assert_eq!(answer.finish(), delta("", &[2]));
        assert_eq!(answer.finish(), None);
    }

    #[test]
    fn a_token_without_text_comes_at_once() {
        let mut answer = Answer::new(&[]);
        assert_eq!(answer.push(9, b"", None), Step::More(delta("", &[9])));
    }
}
