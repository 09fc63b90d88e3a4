//! [`Answer`]: from sampled tokens to the events of one answer: whole characters, no part of a stop sequence, thinking and tool
//! calls apart from the text. Pure state.

use std::collections::VecDeque;

use super::parse::{Content, Parser, Piece};
use super::sampling::Token;
use super::stop::{Released, StopMatcher};
use super::utf8::Decoder;
use crate::generation::{Delta, Event, TokenLogprob};

/// One answer as it comes into being.
#[derive(Debug)]
pub struct Answer {
    decoder: Decoder,
    stops: StopMatcher,
    parser: Parser,
    /// Special tokens whose text the parser has to see.
    shown: Vec<Token>,
    /// Tokens whose text has not all been sent. Ids and log probabilities wait with it, so neither gives a stop sequence away.
    waiting: VecDeque<Waiting>,
    /// Bytes of text decoded so far.
    decoded: usize,
    /// Bytes of text sent so far, or read as marks.
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
    /// What to send; nothing while all of it is held back.
    More(Vec<Event>),
    /// A stop sequence is complete, or no call may follow: the last of it.
    Stopped(Vec<Event>),
}

impl Answer {
    /// Ends before the first of `stops`.
    pub fn new(stops: &[String]) -> Self {
        Self {
            decoder: Decoder::default(),
            stops: StopMatcher::new(stops),
            parser: Parser::default(),
            shown: Vec::new(),
            waiting: VecDeque::new(),
            decoded: 0,
            sent: 0,
        }
    }

    /// Has its text read by `parser`, which has to see the text of the special tokens `shown`.
    pub fn read_by(self, parser: Parser, shown: Vec<Token>) -> Self {
        Self { parser, shown, ..self }
    }

    /// Whether [`Answer::push`] wants the text of this special token.
    pub fn shows(&self, token: Token) -> bool {
        self.shown.contains(&token)
    }

    /// Adds a token and the bytes it stands for.
    pub fn push(&mut self, token: Token, bytes: &[u8], logprob: Option<TokenLogprob>) -> Step {
        let text = self.decoder.push(bytes);
        self.decoded += text.len();
        let end = self.decoded + usize::from(self.decoder.is_pending());
        self.waiting.push_back(Waiting { token, logprob, end });
        let (text, stops) = match self.stops.push(&text) {
            Released::Text(text) => (text, false),
            Released::Stopped(text) => (text, true),
        };
        let mut events = self.read(&text, stops);
        events.extend(self.textless());
        if stops || self.parser.is_complete() {
            // What is left belongs to the stop sequence, or follows the last call.
            self.waiting.clear();
            return Step::Stopped(events);
        }
        Step::More(events)
    }

    /// The rest, at the end of an answer that no stop sequence ended. The start of a character is dropped.
    pub fn finish(&mut self) -> Vec<Event> {
        let text = self.stops.finish();
        let mut events = self.read(&text, true);
        // Nothing can come that would complete a character, so its tokens have nothing to wait for.
        self.waiting.iter_mut().for_each(|waiting| waiting.end = 0);
        events.extend(self.textless());
        events
    }

    /// Has `text` read; with what can be told now go the tokens that it came from.
    fn read(&mut self, text: &str, ended: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for Piece { content, source } in self.parser.push(text, ended) {
            self.sent += source;
            match content {
                Content::Text(text) => events.push(Event::Delta(Delta { text, ..self.complete() })),
                Content::Thinking(thinking) => {
                    events.push(Event::Delta(Delta { thinking, ..self.complete() }));
                }
                Content::Call(call) => {
                    events.push(Event::ToolCall { call, tokens: self.complete().tokens });
                }
                Content::Nothing => {}
            }
        }
        events
    }

    /// A delta of the tokens that stand for no text, and of those of marks.
    fn textless(&mut self) -> Option<Event> {
        let delta = self.complete();
        (!delta.tokens.is_empty()).then_some(Event::Delta(delta))
    }

    /// A delta without text of the tokens whose own text has been sent.
    fn complete(&mut self) -> Delta {
        let mut delta = Delta::default();
        let complete = self.waiting.iter().take_while(|waiting| waiting.end <= self.sent).count();
        for waiting in self.waiting.drain(..complete) {
            delta.tokens.push(waiting.token);
            delta.logprobs.extend(waiting.logprob);
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse::{Calls, Family, Offer};
    use super::*;

    fn delta(text: &str, tokens: &[Token]) -> Vec<Event> {
        vec![Event::Delta(Delta { text: text.to_owned(), tokens: tokens.to_vec(), ..Delta::default() })]
    }

    #[test]
    fn tokens_of_a_character_come_with_the_character() {
        let mut answer = Answer::new(&[]);
        let llama = "🦙".as_bytes();
        assert_eq!(answer.push(1, b"a", None), Step::More(delta("a", &[1])));
        assert_eq!(answer.push(2, &llama[..2], None), Step::More(vec![]));
        assert_eq!(answer.push(3, &llama[2..], None), Step::More(delta("🦙", &[2, 3])));
    }

    #[test]
    fn tokens_of_a_stop_sequence_never_come() {
        let mut answer = Answer::new(&["STOP".to_owned()]);
        assert_eq!(answer.push(1, b"a S", None), Step::More(delta("a ", &[])));
        assert_eq!(answer.push(2, b"TO", None), Step::More(vec![]));
        assert_eq!(answer.push(3, b"P!", None), Step::Stopped(vec![]));
        assert_eq!(answer.finish(), vec![]);
    }

    #[test]
    fn a_false_start_comes_with_its_tokens() {
        let mut answer = Answer::new(&["STOP".to_owned()]);
        assert_eq!(answer.push(1, b"ST", None), Step::More(vec![]));
        assert_eq!(answer.push(2, b"AR", None), Step::More(delta("STAR", &[1, 2])));
        assert_eq!(answer.push(3, b"ST", None), Step::More(vec![]));
        assert_eq!(answer.finish(), delta("ST", &[3]));
    }

    #[test]
    fn half_a_character_at_the_end_is_dropped_but_its_token_counts() {
        let mut answer = Answer::new(&[]);
        assert_eq!(answer.push(1, b"a", None), Step::More(delta("a", &[1])));
        assert_eq!(answer.push(2, b"\xf0\x9f", None), Step::More(vec![]));
        assert_eq!(answer.finish(), delta("", &[2]));
        assert_eq!(answer.finish(), vec![]);
    }

    #[test]
    fn a_token_without_text_comes_at_once() {
        let mut answer = Answer::new(&[]);
        assert_eq!(answer.push(9, b"", None), Step::More(delta("", &[9])));
    }

    fn reader(most: usize) -> Parser {
        let offer = Offer { names: vec!["f".to_owned()], most, seed: 7 };
        Parser::new(None, Some(Calls::new(Family::of("<tool_call>"), offer)))
    }

    const CALL: &[u8] = b"<tool_call>{\"name\": \"f\"}</tool_call>";

    #[test]
    fn a_call_comes_with_the_tokens_it_was_read_from() {
        let mut answer = Answer::new(&[]).read_by(reader(usize::MAX), vec![5]);
        assert!(answer.shows(5) && !answer.shows(6));
        assert_eq!(answer.push(1, b"ok <tool", None), Step::More(delta("ok", &[])));
        assert_eq!(answer.push(2, &CALL[5..30], None), Step::More(vec![]));
        let Step::More(events) = answer.push(3, &CALL[30..], None) else { panic!("not stopped") };
        let [Event::ToolCall { call, tokens }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((call["function"]["name"].as_str(), &tokens[..]), (Some("f"), &[1, 2, 3][..]));
    }

    #[test]
    fn an_answer_ends_with_the_last_call_that_may_be_made() {
        let mut answer = Answer::new(&[]).read_by(reader(1), vec![]);
        let step = answer.push(1, &[CALL, b" more"].concat(), None);
        let Step::Stopped(events) = step else { panic!("{step:?}") };
        assert!(matches!(&events[0], Event::ToolCall { .. }), "{events:?}");
        assert_eq!(answer.finish(), vec![]);
    }

    #[test]
    fn a_stop_sequence_inside_of_a_call_gives_back_its_beginning() {
        let mut answer = Answer::new(&["STOP".to_owned()]).read_by(reader(1), vec![]);
        assert_eq!(answer.push(1, b"<tool_call>{", None), Step::More(vec![]));
        assert_eq!(answer.push(2, b"STOP", None), Step::Stopped(delta("<tool_call>{", &[1])));
    }

    proptest! {
        #[test]
        fn every_token_comes_once_and_in_order(
            pieces in proptest::collection::vec(
                prop::sample::select(vec!["<tool_call>", "{\"name\": \"f\"}", "</tool", "_call>", "a", "\n", "ß", ""]), 0..12
            ),
        ) {
            let mut answer = Answer::new(&[]).read_by(reader(usize::MAX), vec![]);
            let mut events = Vec::new();
            for (token, piece) in (0..).zip(&pieces) {
                let Step::More(more) = answer.push(token, piece.as_bytes(), None) else { panic!("no stop") };
                events.extend(more);
            }
            events.extend(answer.finish());
            let tokens: Vec<Token> = events.into_iter().flat_map(|event| match event {
                Event::Delta(delta) => delta.tokens,
                Event::ToolCall { tokens, .. } => tokens,
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(tokens, (0..pieces.len() as Token).collect::<Vec<_>>());
        }
    }
}
