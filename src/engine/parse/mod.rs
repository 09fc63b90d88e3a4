//! Reading an answer: from its text to thinking, text and tool calls, as the text comes. Pure state.
//!
//! ```text
//! answer ── text ──► thinking ── what is not ──► calls ── blocks ──► family ──► cursor
//! ```
//!
//! Whatever the pieces the text comes in, the result is the same, and each [`Piece`] says how much of the text it stands for, so
//! that tokens can be given out with what they became. A call that cannot be read is text: nothing is lost but marks and the white
//! space around thinking and calls.

mod call;
mod calls;
mod cursor;
mod family;
mod gemma;
mod generic;
mod granite;
mod hermes;
mod llama;
mod mistral;
pub mod outline;
mod python;
#[cfg(test)]
mod tests;
mod thinking;

use serde_json::Value;

pub use calls::{Calls, Offer};
pub use family::Family;
pub use thinking::Thinking;

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Parser {
    /// None: what looks like thinking is text.
    thinking: Option<Thinking>,
    /// None: what looks like a call is text.
    calls: Option<Calls>,
}

/// A part of an answer.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// What it says.
    pub content: Content,
    /// Bytes of the answer's text that it stands for.
    pub source: usize,
}

/// What a part of an answer says.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// Text for the client.
    Text(String),
    /// Thinking, without its marks.
    Thinking(String),
    /// A call in canonical form.
    Call(Value),
    /// Nothing: marks, and white space around them.
    Nothing,
}

impl Parser {
    /// Separates thinking and finds calls, where asked for.
    pub fn new(thinking: Option<Thinking>, calls: Option<Calls>) -> Self {
        Self { thinking, calls }
    }

    /// Adds text; what can be told of it now. `ended`: no more will come, so nothing is held back.
    pub fn push(&mut self, text: &str, ended: bool) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        let said = match &mut self.thinking {
            Some(thinking) => &thinking.push(text, ended, &mut pieces),
            None => text,
        };
        match &mut self.calls {
            Some(calls) => calls.push(said, ended, &mut pieces),
            None => pieces.text(said),
        }
        pieces.0
    }

    /// Whether as many calls were made as may be: the answer is over.
    pub fn is_complete(&self) -> bool {
        self.calls.as_ref().is_some_and(Calls::are_complete)
    }
}

/// The pieces of one step. Text that follows text is one piece.
#[derive(Debug, Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece { content: Content::Text(before), source }) => {
                before.push_str(text);
                *source += text.len();
            }
            _ if text.is_empty() => {}
            _ => self.push(Content::Text(text.to_owned()), text.len()),
        }
    }

    fn thinking(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Content::Thinking(text.to_owned()), text.len());
        }
    }

    fn nothing(&mut self, source: usize) {
        if source > 0 {
            self.push(Content::Nothing, source);
        }
    }

    fn push(&mut self, content: Content, source: usize) {
        self.0.push(Piece { content, source });
    }
}

/// How much of `text` can be given out when one of `marks` may be about to begin at its end: all but the beginning of a mark and the
/// white space before it.
fn settled(text: &str, marks: &[&str]) -> usize {
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    let begins = (from..text.len())
        .filter(|&at| text.is_char_boundary(at))
        .find(|&at| marks.iter().any(|mark| mark.starts_with(&text[at..])));
    text[..begins.unwrap_or(text.len())].trim_end().len()
}
