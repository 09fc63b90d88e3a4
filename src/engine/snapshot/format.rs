//! The file of a snapshot: written in one piece, and believed only as a whole.
//!
//! | bytes | what, numbers in little endian |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`] |
//! | 32 | the key: what the state is good for |
//! | 4 | number of tokens, n |
//! | 8 | bytes of the state |
//! | 8 | bytes of the packed state, p |
//! | 4 n | the tokens |
//! | p | the state, packed |
//! | 32 | SHA-256 of all that comes before |
//!
//! Packed is one zstd frame of the state's even bytes followed by its odd ones. The state is nearly all 16-bit floats; apart
//! from the noise of the low halves, the high ones compress. Measured on 13 MB of the cells of a 0.5B model: 0.82 of the size at
//! 1.7 GB/s there and 4.1 GB/s back, in file order 0.90 at 1.3 and 1.6. Level 3 gains half a percent at a quarter of the speed, and
//! LZ4, at 0.98, nothing.
//!
//! The sum is over what is stored, so that nothing is unpacked which was not written here. It tells damage, not malice: whoever
//! can write to the folder can write sums.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::super::sampling::Token;

/// How a snapshot begins.
const MAGIC: [u8; 8] = *b"\x89ARRIERO";
/// Of this layout.
const VERSION: u32 = 1;
/// Bytes before the tokens.
const HEAD: usize = 64;
/// Bytes of the sum.
const SUM: usize = 32;
/// Of zstd: what is left to gain after it is noise.
const LEVEL: i32 = 1;

/// What a state is good for: equal keys, exchangeable states.
pub type Key = [u8; 32];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk failed, or the file is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// It is of something else.
    #[error("foreign: {0}")]
    Foreign(&'static str),
}

/// A snapshot in the form of its file.
pub fn encode(key: &Key, tokens: &[Token], state: &[u8]) -> io::Result<Vec<u8>> {
    let count = u32::try_from(tokens.len()).map_err(io::Error::other)?;
    let packed = zstd::bulk::compress(&split(state), LEVEL)?;
    let mut file = Vec::with_capacity(HEAD + 4 * tokens.len() + packed.len() + SUM);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(key);
    file.extend_from_slice(&count.to_le_bytes());
    file.extend_from_slice(&(state.len() as u64).to_le_bytes());
    file.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    tokens.iter().for_each(|token| file.extend_from_slice(&token.to_le_bytes()));
    file.extend_from_slice(&packed);
    let sum = Sha256::digest(&file);
    file.extend_from_slice(&sum);
    Ok(file)
}

/// The tokens of the snapshot that a file of `length` bytes begins with. They are not to be relied upon before [`decode`] has seen
/// the rest.
pub fn tokens(file: impl Read, length: u64, key: &Key) -> Result<Vec<Token>, Fault> {
    let mut head = Vec::with_capacity(HEAD);
    let mut file = file.take(HEAD as u64);
    file.read_to_end(&mut head)?;
    let Head { tokens, .. } = Head::read(&head, length, key)?;
    let mut file = file.into_inner().take(4 * u64::from(tokens));
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // It was long enough a moment ago.
    if bytes.len() as u64 != 4 * u64::from(tokens) {
        return Err(Fault::Damaged("it was cut off while it was read"));
    }
    Ok(numbers(&bytes))
}

/// The tokens and the state of a whole file.
pub fn decode(file: &[u8], key: &Key) -> Result<(Vec<Token>, Vec<u8>), Fault> {
    let head = Head::read(file, file.len() as u64, key)?;
    let (content, sum) = file.split_at(file.len() - SUM);
    if Sha256::digest(content).as_slice() != sum {
        return Err(Fault::Damaged("its content does not match its sum"));
    }
    let (tokens, packed) = content[HEAD..].split_at(4 * head.tokens as usize);
    let size = usize::try_from(head.state).map_err(|_| Fault::Damaged("its state is too large"))?;
    let halves = zstd::bulk::decompress(packed, size)?;
    if halves.len() != size {
        return Err(Fault::Damaged("its state has another size"));
    }
    Ok((numbers(tokens), join(&halves)))
}

/// The numbers that a file begins with, which fit its length and each other.
struct Head {
    tokens: u32,
    state: u64,
}

impl Head {
    fn read(bytes: &[u8], length: u64, key: &Key) -> Result<Self, Fault> {
        let mut rest = bytes;
        if take::<8>(&mut rest)? != MAGIC {
            return Err(Fault::Foreign("it is not a snapshot"));
        }
        if u32::from_le_bytes(take(&mut rest)?) != VERSION {
            return Err(Fault::Foreign("it has the format of another version"));
        }
        if take::<32>(&mut rest)? != *key {
            return Err(Fault::Foreign("it is of another model, other settings or another llama.cpp"));
        }
        let tokens = u32::from_le_bytes(take(&mut rest)?);
        let state = u64::from_le_bytes(take(&mut rest)?);
        let packed = u64::from_le_bytes(take(&mut rest)?);
        let around = (HEAD + SUM) as u64 + 4 * u64::from(tokens);
        if tokens == 0 || around.checked_add(packed) != Some(length) {
            return Err(Fault::Damaged("its length is not what it says"));
        }
        Ok(Self { tokens, state })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Fault> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Fault::Damaged("it ends inside its head"))?;
    *bytes = rest;
    Ok(*first)
}

fn numbers(bytes: &[u8]) -> Vec<Token> {
    bytes.as_chunks().0.iter().map(|bytes| Token::from_le_bytes(*bytes)).collect()
}

/// The even bytes, then the odd ones.
fn split(bytes: &[u8]) -> Vec<u8> {
    let mut halves = vec![0; bytes.len()];
    let (even, odd) = halves.split_at_mut(bytes.len().div_ceil(2));
    for ((pair, even), odd) in bytes.chunks_exact(2).zip(&mut *even).zip(odd) {
        (*even, *odd) = (pair[0], pair[1]);
    }
    if let ([last], Some(place)) = (bytes.chunks_exact(2).remainder(), even.last_mut()) {
        *place = *last;
    }
    halves
}

/// Undoes [`split`].
fn join(halves: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; halves.len()];
    let (even, odd) = halves.split_at(halves.len().div_ceil(2));
    for ((pair, even), odd) in bytes.chunks_exact_mut(2).zip(even).zip(odd) {
        (pair[0], pair[1]) = (*even, *odd);
    }
    if let ([place], Some(last)) = (bytes.chunks_exact_mut(2).into_remainder(), even.last()) {
        *place = *last;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];

    fn sample() -> Vec<u8> {
        encode(&KEY, &[3, 1, 4], b"not quite a state").unwrap()
    }

    #[test]
    fn the_key_decides_who_may_read_it() {
        let file = sample();
        let foreign = |result| matches!(result, Err(Fault::Foreign(_)));
        assert!(foreign(decode(&file, &[8; 32]).map(drop)));
        assert!(foreign(tokens(&file[..], file.len() as u64, &[8; 32]).map(drop)));
        let mut newer = file.clone();
        newer[8] += 1;
        assert!(foreign(decode(&newer, &KEY).map(drop)));
        assert!(foreign(decode(b"GGUF and more that is not a snapshot", &KEY).map(drop)));
    }

    #[test]
    fn a_state_that_unpacks_to_another_size_is_refused_although_the_sum_is_right() {
        let mut file = sample();
        file[48] ^= 1;
        let end = file.len() - SUM;
        let sum = Sha256::digest(&file[..end]);
        file[end..].copy_from_slice(&sum);
        assert!(decode(&file, &KEY).is_err());
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(list in prop::collection::vec(any::<u32>(), 1..50), state in bytes(200)) {
            let file = encode(&KEY, &list, &state).unwrap();
            prop_assert_eq!(tokens(&file[..], file.len() as u64, &KEY).unwrap(), list.clone());
            prop_assert_eq!(decode(&file, &KEY).unwrap(), (list, state));
        }

        #[test]
        fn a_changed_byte_anywhere_is_noticed(at in any::<prop::sample::Index>(), change in 1..=255_u8) {
            let mut file = sample();
            let at = at.index(file.len());
            file[at] ^= change;
            prop_assert!(decode(&file, &KEY).is_err());
        }

        #[test]
        fn a_file_that_was_cut_or_grew_is_noticed(length in 0..200_usize) {
            let whole = sample();
            prop_assume!(length != whole.len());
            let mut file = whole;
            file.resize(length, 0);
            prop_assert!(decode(&file, &KEY).is_err());
            prop_assert!(tokens(&file[..], file.len() as u64, &KEY).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_reserve_what_is_not_there(tail in bytes(300)) {
            let mut file = sample()[..44].to_vec();
            file.extend(tail);
            prop_assert!(decode(&file, &KEY).is_err());
            // Its tokens may be anything, for all that is known so far.
            if let Ok(tokens) = tokens(&file[..], file.len() as u64, &KEY) {
                prop_assert!(4 * tokens.len() <= file.len());
            }
        }
    }
}
