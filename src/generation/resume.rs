//! [`Resume`]: the part of an answer that a lost node has sent.

use serde::{Deserialize, Serialize};

use super::{Delta, Event};

/// What the caller has of an answer already. The same request with it goes on exactly there: sampling depends on seed and position
/// alone, and grammar, penalties, stop sequences and characters are rebuilt from the tokens.
///
/// Text can be ahead of the tokens, since a token is reported once all of its text was sent; so each has a count of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// Ids of the tokens that were reported.
    pub tokens: Vec<u32>,
    /// Bytes of text that were sent.
    pub text: usize,
    /// Bytes of thinking that were sent.
    #[serde(default)]
    pub thinking: usize,
    /// Tool calls that were sent.
    #[serde(default)]
    pub tool_calls: usize,
}

impl Resume {
    /// Counts an event that was sent.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Delta(delta) => {
                self.tokens.extend_from_slice(&delta.tokens);
                self.text += delta.text.len();
                self.thinking += delta.thinking.len();
            }
            Event::ToolCall { tokens, .. } => {
                self.tokens.extend_from_slice(tokens);
                self.tool_calls += 1;
            }
            Event::Done(_) | Event::Error(_) => {}
        }
    }

    /// Takes what was sent before off an event of the same answer, and off the counts. `None`: all of it was.
    pub fn rest(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Delta(delta) => self.rest_of(delta).map(Event::Delta),
            Event::ToolCall { tokens, .. } if self.tool_calls > 0 => {
                self.tokens.drain(..tokens.len().min(self.tokens.len()));
                self.tool_calls -= 1;
                None
            }
            other => Some(other),
        }
    }

    fn rest_of(&mut self, mut delta: Delta) -> Option<Delta> {
        let known = delta.tokens.len().min(self.tokens.len());
        self.tokens.drain(..known);
        delta.tokens.drain(..known);
        delta.logprobs.drain(..known.min(delta.logprobs.len()));
        cut(&mut delta.text, &mut self.text);
        cut(&mut delta.thinking, &mut self.thinking);
        (delta != Delta::default()).then_some(delta)
    }
}

/// Takes `sent` bytes off the front, as far as they go. Whole characters were sent.
fn cut(text: &mut String, sent: &mut usize) {
    let mut known = (*sent).min(text.len());
    while !text.is_char_boundary(known) {
        known -= 1;
    }
    text.drain(..known);
    *sent -= known;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta() -> impl Strategy<Value = Event> {
        let logprob = |token: &u32| crate::generation::TokenLogprob {
            token: token.to_string(),
            logprob: -1.0,
            bytes: Vec::new(),
            top: Vec::new(),
        };
        ("[a-c🦙]{0,4}", "[d-f🦙]{0,2}", prop::collection::vec(0u32..9, 0..4), any::<bool>()).prop_map(
            move |(text, thinking, tokens, has_logprobs)| {
                let logprobs = tokens.iter().filter(|_| has_logprobs).map(logprob).collect();
                Event::Delta(Delta { text, thinking, tokens, logprobs })
            },
        )
    }

    fn event() -> impl Strategy<Value = Event> {
        let call = prop::collection::vec(0u32..9, 0..4)
            .prop_map(|tokens| Event::ToolCall { call: serde_json::Value::Null, tokens });
        prop_oneof![4 => delta(), 1 => call]
    }

    /// Everything said, whatever the pieces.
    fn whole(events: &[Event]) -> (String, String, Vec<u32>, usize, usize) {
        let mut all = (String::new(), String::new(), Vec::new(), 0, 0);
        for event in events {
            match event {
                Event::Delta(delta) => {
                    all.0 += &delta.text;
                    all.1 += &delta.thinking;
                    all.2.extend(&delta.tokens);
                    all.3 += delta.logprobs.len();
                }
                Event::ToolCall { tokens, .. } => {
                    all.2.extend(tokens);
                    all.4 += 1;
                }
                _ => {}
            }
        }
        all
    }

    proptest! {
        #[test]
        fn what_was_sent_and_the_rest_of_a_replay_are_the_whole(
            events in prop::collection::vec(event(), 0..20), cut in 0usize..21,
        ) {
            let (sent, _) = events.split_at(cut.min(events.len()));
            let mut resume = Resume::default();
            sent.iter().for_each(|event| resume.count(event));
            let mut all = sent.to_vec();
            all.extend(events.iter().filter_map(|event| resume.rest(event.clone())));
            prop_assert_eq!(whole(&all), whole(&events));
            prop_assert_eq!(resume, Resume::default());
        }
    }
}
