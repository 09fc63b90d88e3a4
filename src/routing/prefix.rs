//! [`Prefix`]: the beginnings of a prompt as hashes, so that prompts that begin alike can be found without keeping them.

use std::hash::{DefaultHasher, Hasher};
use std::io;

/// Bytes of the first blocks, about 64 tokens.
const BLOCK: u64 = 256;
/// So many blocks have the same length, the next ones twice that: what a longer prompt shares has to be known less exactly.
const EQUAL_BLOCKS: usize = 32;
/// Blocks of a prompt that are hashed; they cover 120 KiB, about 30,000 tokens.
const MOST_BLOCKS: usize = 128;

/// A prompt's beginnings: one hash per block, of everything up to its end. Equal hashes mean equal beginnings; that two beginnings have
/// the same hash by chance costs a request a better node, no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    hashes: Vec<u64>,
    bytes: u64,
}

impl Prefix {
    /// Of `bytes`, for a model: the same text is something else to another one.
    pub fn of(model: &str, bytes: &[u8]) -> Self {
        let mut writer = PrefixWriter::new(model);
        writer.feed(bytes);
        writer.finish()
    }

    /// Shortest first.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Length of the prompt.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part of the prompt, 0 to 1, that its first `blocks` blocks are.
    pub fn share(&self, blocks: usize) -> f32 {
        if self.bytes == 0 { 0.0 } else { end_of(blocks) as f32 / self.bytes as f32 }
    }
}

/// Bytes of the block with this number.
fn length_of(block: usize) -> u64 {
    BLOCK << (block / EQUAL_BLOCKS)
}

/// Bytes of the first `blocks` blocks.
fn end_of(blocks: usize) -> u64 {
    let (doublings, rest) = (blocks / EQUAL_BLOCKS, blocks % EQUAL_BLOCKS);
    let whole = EQUAL_BLOCKS as u64 * BLOCK * ((1 << doublings) - 1);
    whole + rest as u64 * length_of(blocks)
}

/// Makes a [`Prefix`] of a prompt that comes in pieces.
pub struct PrefixWriter {
    hasher: DefaultHasher,
    prefix: Prefix,
    /// Bytes that the current block lacks.
    lacks: u64,
}

impl PrefixWriter {
    /// For a prompt to `model`.
    pub fn new(model: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(model.as_bytes());
        hasher.write_u8(0xff);
        Self { hasher, prefix: Prefix::default(), lacks: length_of(0) }
    }

    /// The next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.prefix.bytes += bytes.len() as u64;
        while !bytes.is_empty() && self.prefix.hashes.len() < MOST_BLOCKS {
            let here = usize::try_from(self.lacks).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(here);
            self.hasher.write(piece);
            self.lacks -= here as u64;
            bytes = rest;
            if self.lacks == 0 {
                // The hasher goes on, so each hash is of everything before it.
                self.prefix.hashes.push(self.hasher.finish());
                self.lacks = length_of(self.prefix.hashes.len());
            }
        }
    }

    /// What has been fed; what does not fill a block is no part of it.
    pub fn finish(self) -> Prefix {
        self.prefix
    }
}

impl io::Write for PrefixWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_grow_and_end_where_the_next_one_begins() {
        let mut end = 0;
        for block in 0..=MOST_BLOCKS {
            assert_eq!(end_of(block), end);
            end += length_of(block);
        }
        assert_eq!(end_of(MOST_BLOCKS), 120 << 10);
        assert_eq!(Prefix::of("m", &vec![b'a'; 1 << 20]).hashes().len(), MOST_BLOCKS);
    }

    #[test]
    fn another_model_has_other_hashes() {
        let text = [7; 600];
        assert_ne!(Prefix::of("a", &text).hashes(), Prefix::of("b", &text).hashes());
        assert_eq!(Prefix::of("a", &text).share(2), 512.0 / 600.0);
        assert_eq!(Prefix::default().share(0), 0.0);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in prop::collection::vec(any::<u8>(), 0..20_000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut writer = PrefixWriter::new("m");
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                writer.feed(&text[from..cut]);
                from = cut;
            }
            prop_assert_eq!(writer.finish(), Prefix::of("m", &text));
        }

        #[test]
        fn as_many_hashes_agree_as_whole_blocks_do(text in prop::collection::vec(any::<u8>(), 1..20_000), place: prop::sample::Index) {
            let place = place.index(text.len());
            let mut other = text.clone();
            other[place] ^= 1;
            let (a, b) = (Prefix::of("m", &text), Prefix::of("m", &other));
            let equal = a.hashes().iter().zip(b.hashes()).take_while(|(a, b)| a == b).count();
            let whole = (0..a.hashes().len()).take_while(|block| end_of(block + 1) <= place as u64).count();
            prop_assert_eq!(equal, whole);
        }
    }
}
