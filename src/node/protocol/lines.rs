//! [`Lines`]: the lines of an answer that comes in pieces, which may be cut anywhere.

use bytes::{Buf, Bytes, BytesMut};

/// What has come of an answer and was not read yet.
#[derive(Default)]
pub struct Lines {
    /// Append what comes here.
    pub buffer: BytesMut,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
}

impl Lines {
    /// The next line once all of it is there, without its end (`\n` or `\r\n`). A long line that comes in many pieces is looked at
    /// once.
    pub fn pop(&mut self) -> Option<Bytes> {
        match self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let length = std::mem::take(&mut self.scanned) + at;
                let mut line = self.buffer.split_to(length).freeze();
                self.buffer.advance(1);
                if line.last() == Some(&b'\r') {
                    line.truncate(length - 1);
                }
                Some(line)
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }

    /// What is left behind the last line, which nothing may follow.
    pub fn rest(&mut self) -> Bytes {
        self.scanned = 0;
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_arrive(
            lines in prop::collection::vec("[a-z]{0,12}", 0..20),
            end in prop::sample::select(vec!["\n", "\r\n"]),
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            let wire: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            let (mut split, mut found) = (Lines::default(), Vec::new());
            let mut rest = wire.as_bytes();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                split.buffer.extend_from_slice(piece);
                rest = tail;
                while let Some(line) = split.pop() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(found, lines);
            prop_assert!(split.rest().is_empty());
        }
    }
}
