//! [`Framing`]: where the body of an HTTP/1.1 answer ends (RFC 9112, section 6). Pure: bytes in, body out.
//!
//! Works byte by byte on what arrived and keeps none of it, so that an answer that pauses holds no buffer.

use bytes::BytesMut;

/// Most that may come with a chunk's size, or behind the last chunk.
const LINE_LIMIT: usize = 8 << 10;

/// How much of a body is still to come.
#[derive(Debug, PartialEq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Until the connection closes.
    Close,
}

/// Where in a chunk the next byte belongs.
#[derive(Debug, PartialEq)]
pub(super) enum Chunk {
    /// To its size, of which these digits are read.
    Size { size: u64, digits: usize },
    /// Behind the size, to what nobody needs; this much of it was read.
    Extension { size: u64, length: usize },
    /// To its data, of which so much is to come.
    Data(u64),
    /// To the line end behind the data.
    End,
    /// Behind the last chunk, of which this much was read; an empty line ends it.
    Trailer { length: usize, is_empty_line: bool },
    /// Nowhere: the body is complete.
    Done,
}

/// The node broke the protocol.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a malformed chunk")]
pub(super) struct Malformed;

impl Framing {
    /// Chunks, before the first.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::Size { size: 0, digits: 0 });

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// Appends to `body` what `wire` holds of it. Returns how much of `wire` belongs to this answer.
    pub(super) fn decode(&mut self, wire: &[u8], body: &mut BytesMut) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < wire.len() && !self.is_done() {
            let rest = &wire[used..];
            used += match self {
                Self::Close => copy(rest, u64::MAX, body),
                Self::Length(left) => {
                    let count = copy(rest, *left, body);
                    *left -= count as u64;
                    count
                }
                Self::Chunked(chunk) => chunk.decode(rest, body)?,
            };
        }
        Ok(used)
    }
}

impl Chunk {
    /// Takes at least one byte of `wire`, which is not empty.
    fn decode(&mut self, wire: &[u8], body: &mut BytesMut) -> Result<usize, Malformed> {
        if let Self::Data(left) = self {
            let count = copy(wire, *left, body);
            *left -= count as u64;
            if *left == 0 {
                *self = Self::End;
            }
            return Ok(count);
        }
        *self = self.after(wire[0])?;
        Ok(1)
    }

    /// Where the byte behind this one belongs.
    fn after(&self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (&Self::Size { size, digits: 1.. } | &Self::Extension { size, .. }, b'\n') => match size {
                0 => Self::Trailer { length: 0, is_empty_line: true },
                size => Self::Data(size),
            },
            (&Self::Size { size, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => {
                Self::Extension { size, length: 0 }
            }
            (&Self::Size { size, digits }, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                let size = size.checked_mul(16).ok_or(Malformed)? + u64::from(digit);
                Self::Size { size, digits: digits + 1 }
            }
            (&Self::Extension { size, length: length @ ..LINE_LIMIT }, _) => {
                Self::Extension { size, length: length + 1 }
            }
            (Self::End, b'\r') => Self::End,
            (Self::End, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailer { is_empty_line: true, .. }, b'\n') => Self::Done,
            (&Self::Trailer { length: length @ ..LINE_LIMIT, is_empty_line }, _) => Self::Trailer {
                length: length + 1,
                is_empty_line: byte == b'\n' || (is_empty_line && byte == b'\r'),
            },
            _ => return Err(Malformed),
        })
    }
}

fn copy(from: &[u8], limit: u64, to: &mut BytesMut) -> usize {
    let count = usize::try_from(limit).unwrap_or(usize::MAX).min(from.len());
    to.extend_from_slice(&from[..count]);
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body in `wire`, given in pieces of the sizes in `cuts`, and how much of `wire` was used.
    fn decoded(
        mut framing: Framing,
        wire: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut body, mut used, mut cuts) = (BytesMut::new(), 0, cuts.iter().cycle());
        while used < wire.len() && !framing.is_done() {
            let end = (used + cuts.next().unwrap()).min(wire.len());
            used += framing.decode(&wire[used..end], &mut body)?;
        }
        Ok((body.to_vec(), used, framing.is_done()))
    }

    proptest! {
        #[test]
        fn a_chunked_body_is_the_same_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            extension in "(;[a-z=]{0,9})?",
            trailers in "([A-Z][a-z]{0,5}: [a-z\r]{0,8}\r\n){0,3}",
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
            let length = wire.len();
            wire.extend_from_slice(b"HTTP/1.1 200 OK");
            let (body, used, is_done) = decoded(Framing::CHUNKED, &wire, &cuts).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(is_done);
            prop_assert_eq!(used, length, "what follows belongs to the next answer");
        }

        #[test]
        fn anything_at_all_is_read_without_a_panic_and_to_an_end(
            wire in "[0-9a-fA-F\r\n; x]{0,60}",
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            if let Ok((body, used, _)) = decoded(Framing::CHUNKED, wire.as_bytes(), &cuts) {
                prop_assert!(body.len() <= used && used <= wire.len());
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_length_or_the_connection_does() {
        assert_eq!(decoded(Framing::Length(3), b"abcdef", &[2]).unwrap(), (b"abc".to_vec(), 3, true));
        assert_eq!(decoded(Framing::Length(9), b"abc", &[2]).unwrap(), (b"abc".to_vec(), 3, false));
        assert_eq!(decoded(Framing::Close, b"abc", &[2]).unwrap(), (b"abc".to_vec(), 3, false));
        assert!(Framing::Length(0).is_done());
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let endless = format!("5;{}", "x".repeat(LINE_LIMIT + 1));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(LINE_LIMIT));
        for wire in
            ["\r\n", "x\r\n", "-1\r\n", "5\r\nhelloworld", "fffffffffffffffff\r\n", &endless, &trailers]
        {
            assert_eq!(decoded(Framing::CHUNKED, wire.as_bytes(), &[7]), Err(Malformed), "{wire:.20?}");
        }
    }
}
