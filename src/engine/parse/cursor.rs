//! [`Cursor`]: reads a block of text that may not be all there yet.

use serde_json::Value;

/// Why reading a block stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The text ends before it can be told.
    More,
    /// Whatever follows, this is not such a block.
    Not,
}

/// A place in a text. What it says depends on the text up to the place it stops at, never on how much more there is: so a block is
/// read alike however its text comes in.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a str,
    /// No more text will come.
    ended: bool,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `text`.
    pub fn new(text: &'a str, ended: bool) -> Self {
        Self { rest: text, ended }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// Passes white space.
    pub fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Passes `text`.
    pub fn literal(&mut self, text: &str) -> Result<(), Stop> {
        match self.rest.strip_prefix(text) {
            Some(rest) => self.rest = rest,
            None if text.starts_with(self.rest) => return Err(Stop::More),
            None => return Err(Stop::Not),
        }
        Ok(())
    }

    /// Passes the first of `texts` that is there.
    pub fn any(&mut self, texts: &[&'static str]) -> Result<&'static str, Stop> {
        let mut stop = Stop::Not;
        for text in texts {
            match self.literal(text) {
                Ok(()) => return Ok(text),
                Err(Stop::More) => stop = Stop::More,
                Err(Stop::Not) => {}
            }
        }
        Err(stop)
    }

    /// Passes a closing mark. Models forget it, so at the end of an answer a part of it will do.
    pub fn close(&mut self, text: &str) -> Result<(), Stop> {
        let closed = self.literal(text);
        if closed == Err(Stop::More) && self.ended {
            self.rest = "";
            return Ok(());
        }
        closed
    }

    /// Passes everything up to `text`, which is passed too.
    pub fn until(&mut self, text: &str) -> Result<&'a str, Stop> {
        let (before, rest) = self.rest.split_once(text).ok_or(Stop::More)?;
        self.rest = rest;
        Ok(before)
    }

    /// Passes characters for which `is` holds: those before the first for which it does not.
    pub fn word(&mut self, is: impl Fn(char) -> bool) -> Result<&'a str, Stop> {
        let end = self.rest.find(|c| !is(c)).ok_or(Stop::More)?;
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    /// Passes a JSON object or array.
    pub fn json(&mut self) -> Result<Value, Stop> {
        match self.rest.chars().next() {
            None => return Err(Stop::More),
            Some('{' | '[') => {}
            Some(_) => return Err(Stop::Not),
        }
        let end = json_length(self.rest).ok_or(Stop::More)?;
        let (text, rest) = self.rest.split_at(end);
        let value = serde_json::from_str(text).map_err(|_| Stop::Not)?;
        self.rest = rest;
        Ok(value)
    }
}

/// Length of the object or array that `text` begins with, once its last bracket is there. Brackets are only counted, which is
/// cheap enough to do again for every token; whether it is JSON is asked once it is whole.
fn json_length(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
