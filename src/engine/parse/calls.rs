//! [`Calls`]: finds tool calls in an answer as it comes. Pure state.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::Family;
use super::{Content, Pieces, settled};
use crate::engine::draw::bits;

/// What may be called.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Names of the tools.
    pub names: Vec<String>,
    /// Most calls in one answer; it ends after them.
    pub most: usize,
    /// Key of the ids that calls get.
    pub seed: u64,
}

/// Watches an answer for calls. Text that may become one is held back until it is one or cannot be; then it is a call, or text. A
/// block with a call to a tool that was not offered is text: there is nobody who could run it, but somebody may read it.
#[derive(Debug)]
pub struct Calls {
    family: &'static Family,
    offer: Offer,
    /// Text not given out yet.
    held: String,
    /// Calls made so far.
    made: usize,
    /// Nothing but calls and white space so far.
    fresh: bool,
}

impl Calls {
    /// Calls to the tools of `offer`, in the syntax of `family`.
    pub fn new(family: &'static Family, offer: Offer) -> Self {
        Self { family, offer, held: String::new(), made: 0, fresh: true }
    }

    /// Whether no more may be made.
    pub(super) fn are_complete(&self) -> bool {
        self.made >= self.offer.most
    }

    pub(super) fn push(&mut self, text: &str, ended: bool, pieces: &mut Pieces) {
        self.held.push_str(text);
        while !self.are_complete() {
            let Some(at) = self.opening() else { return self.release(ended, pieces) };
            match self.read(at, ended) {
                Ok((calls, end)) => self.call(calls, at, end, pieces),
                Err(Stop::More) if !ended => {
                    let before = self.held[..at].trim_end_matches(|c| self.is_space(c)).len();
                    return self.say(before, pieces);
                }
                Err(_) => {
                    let first = self.held[at..].chars().next().map_or(0, char::len_utf8);
                    self.say(at + first, pieces);
                    self.fresh = false;
                }
            }
        }
        pieces.nothing(self.held.len());
        self.held.clear();
    }

    /// Where the first block opens.
    fn opening(&self) -> Option<usize> {
        let marked = self.family.openings.iter().filter_map(|mark| self.held.find(mark)).min();
        let start = self.held.len() - self.held.trim_start_matches(|c| self.is_space(c)).len();
        let is_bare = self.family.bare && self.fresh && self.held[start..].starts_with(['{', '[']);
        if is_bare { Some(start) } else { marked }
    }

    /// White space, and what stands between two bare calls.
    fn is_space(&self, c: char) -> bool {
        let separates = self.family.bare && self.fresh && self.made > 0;
        c.is_whitespace() || separates && matches!(c, ';' | ',')
    }

    /// The calls of the block that opens at `at`, and where it ends.
    fn read(&self, at: usize, ended: bool) -> Result<(Vec<Call>, usize), Stop> {
        let mut cursor = Cursor::new(&self.held[at..], ended);
        let calls = (self.family.read)(&mut cursor)?;
        let is_offered = |call: &Call| self.offer.names.contains(&call.name);
        if !calls.iter().all(is_offered) {
            return Err(Stop::Not);
        }
        Ok((calls, self.held.len() - cursor.rest().len()))
    }

    /// Gives out the text before a block, and its calls.
    fn call(&mut self, calls: Vec<Call>, at: usize, end: usize, pieces: &mut Pieces) {
        let before = self.held[..at].trim_end_matches(|c| self.is_space(c)).len();
        self.say(before, pieces);
        let mut source = end - before;
        for call in calls.into_iter().take(self.offer.most - self.made) {
            let call = call.canonical(|| id(self.offer.seed, self.made));
            pieces.push(Content::Call(call), std::mem::take(&mut source));
            self.made += 1;
        }
        self.held.drain(..end - before);
    }

    /// Gives out what no call can begin in.
    fn release(&mut self, ended: bool, pieces: &mut Pieces) {
        let is_space = self.held.chars().all(|c| self.is_space(c));
        match ended {
            true if is_space && self.made > 0 => {
                pieces.nothing(self.held.len());
                self.held.clear();
            }
            true => self.say(self.held.len(), pieces),
            false if is_space => {}
            false => self.say(settled(&self.held, self.family.openings), pieces),
        }
    }

    /// Gives out the first `length` bytes as text.
    fn say(&mut self, length: usize, pieces: &mut Pieces) {
        pieces.text(&self.held[..length]);
        self.held.drain(..length);
        self.fresh &= length == 0;
    }
}

/// The id of the call number `index`: nine letters and digits, which is what Mistral's templates insist on when they get it back. It
/// depends on the seed alone, so a generation that runs again gives its calls the same ids.
fn id(seed: u64, index: usize) -> String {
    const CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut left = bits(seed, index as u64);
    let character = |_| {
        let character = CHARACTERS[(left % 36) as usize];
        left /= 36;
        char::from(character)
    };
    (0..9).map(character).collect()
}
