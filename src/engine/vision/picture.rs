//! [`Picture`]: what the projector makes of an image, or of a tile of one, and the tokens that stand for it.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::projector::Chunk;
use crate::engine::sampling::Token;

/// A token with this bit is none of a vocabulary: it stands for a part of a picture. llama.cpp's tokens are 31-bit numbers.
const PART: Token = 1 << 31;

/// Whether the token stands for a part of a picture.
pub fn is_part(token: Token) -> bool {
    token & PART != 0
}

/// A run of vectors that stands in a prompt where tokens do.
pub struct Picture {
    identity: [u8; 32],
    /// One for each position that it takes.
    tokens: Vec<Token>,
    chunk: Chunk,
    /// Set once it has been encoded.
    vectors: OnceLock<Arc<[f32]>>,
}

impl Picture {
    /// What `chunk` is of is told by `identity`: a hash of the image, and which part of it.
    pub fn new(identity: [u8; 32], chunk: Chunk) -> Self {
        Self { tokens: tokens(&identity, chunk.positions()), identity, chunk, vectors: OnceLock::new() }
    }

    /// What it is a picture of.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// One for each position that it takes in a sequence.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Cells that it takes. In a plane, where many have one position, these are more.
    pub fn rows(&self) -> usize {
        self.chunk.rows()
    }

    /// What the projector encodes.
    pub fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Its vectors, one for each of [`Picture::rows`], once it has been encoded.
    pub fn vectors(&self) -> Option<&Arc<[f32]>> {
        self.vectors.get()
    }

    /// It has been encoded.
    pub fn encoded(&self, vectors: Arc<[f32]>) {
        // Equal to those that are there, if there are any.
        self.vectors.set(vectors).ok();
    }
}

/// `count` tokens that depend on nothing but `identity` and their place. Two pictures have a token in common once in two billion
/// times, and all of them never.
fn tokens(identity: &[u8; 32], count: usize) -> Vec<Token> {
    let token = |place: usize| {
        let hash = Sha256::new_with_prefix(identity).chain_update(place.to_le_bytes()).finalize();
        let first = hash.first_chunk().copied().unwrap_or_default();
        Token::from_le_bytes(first) | PART
    };
    (0..count).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_a_picture_are_its_own_and_in_no_vocabulary() {
        let [one, other] = [[1; 32], [2; 32]].map(|identity| tokens(&identity, 600));
        assert_eq!(one, tokens(&[1; 32], 600));
        assert!(one.iter().chain(&other).all(|&token| is_part(token)));
        assert!(!is_part(PART - 1) && !is_part(0));
        let mut all = [one, other].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1200);
    }
}
