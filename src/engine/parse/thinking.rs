//! [`Thinking`]: the block of thinking that an answer may begin with, separated as Ollama does. Pure state.

use super::{Pieces, settled};
use crate::generation::ability::ThinkingMarks;

/// Separates thinking from what follows. Only a block at the very beginning is one; white space around it is dropped.
#[derive(Debug)]
pub struct Thinking {
    marks: ThinkingMarks,
    place: Place,
    held: String,
}

/// Where the answer is.
#[derive(Debug, PartialEq)]
enum Place {
    /// Nothing but white space so far, or the beginning of the opening mark.
    Before,
    /// Inside. `begun`: some of it was given out.
    Within { begun: bool },
    /// Only white space since the closing mark.
    After,
    /// Past it, or there is none.
    Over,
}

impl Thinking {
    /// `opened`: the prompt ends with the opening mark, so the answer begins inside the block.
    pub fn new(marks: ThinkingMarks, opened: bool) -> Self {
        let place = if opened { Place::Within { begun: false } } else { Place::Before };
        Self { marks, place, held: String::new() }
    }

    /// Adds text; returns what of it is not thinking.
    pub(super) fn push(&mut self, text: &str, ended: bool, pieces: &mut Pieces) -> String {
        self.held.push_str(text);
        if self.place == Place::Before {
            self.begin(ended, pieces);
        }
        if let Place::Within { begun } = self.place {
            self.think(begun, ended, pieces);
        }
        if self.place == Place::After {
            self.skip_space(pieces);
            if !self.held.is_empty() {
                self.place = Place::Over;
            }
        }
        if self.place == Place::Over { std::mem::take(&mut self.held) } else { String::new() }
    }

    fn begin(&mut self, ended: bool, pieces: &mut Pieces) {
        let said = self.held.trim_start();
        if said.starts_with(self.marks.open) {
            let skipped = self.held.len() - said.len() + self.marks.open.len();
            pieces.nothing(skipped);
            self.held.drain(..skipped);
            self.place = Place::Within { begun: false };
        } else if ended || !self.marks.open.starts_with(said) {
            self.place = Place::Over;
        }
    }

    fn think(&mut self, begun: bool, ended: bool, pieces: &mut Pieces) {
        if !begun {
            self.skip_space(pieces);
        }
        let close = self.held.find(self.marks.close);
        let said = match close {
            Some(at) => self.held[..at].trim_end().len(),
            None if ended => self.held.trim_end().len(),
            None => settled(&self.held, &[self.marks.close]),
        };
        pieces.thinking(&self.held[..said]);
        self.place = Place::Within { begun: begun || said > 0 };
        let passed = match close {
            Some(at) => at + self.marks.close.len(),
            None if ended => self.held.len(),
            None => said,
        };
        pieces.nothing(passed - said);
        self.held.drain(..passed);
        if close.is_some() {
            self.place = Place::After;
        }
    }

    fn skip_space(&mut self, pieces: &mut Pieces) {
        let space = self.held.len() - self.held.trim_start().len();
        pieces.nothing(space);
        self.held.drain(..space);
    }
}
