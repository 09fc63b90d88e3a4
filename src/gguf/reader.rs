//! [`Reader`]: takes little-endian values off a file and keeps account of what is left of it.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::Error;

/// The largest vocabularies make headers of some 20 MB; a file that claims more than this is broken.
const MAX_HEADER: u64 = 256 << 20;
/// Chat templates and licences are below 1 MiB.
const MAX_STRING: u64 = 16 << 20;

/// Bytes are claimed from what is left before they are reserved, skipped or read.
pub(super) struct Reader<R> {
    source: R,
    at: u64,
    left: u64,
    hasher: Sha256,
    /// What was read last, where it is not kept.
    scratch: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R, length: u64) -> Self {
        Self { source, at: 0, left: length, hasher: Sha256::new(), scratch: Vec::new() }
    }

    /// Where the next byte is.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Of all bytes so far.
    pub(super) fn fingerprint(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    /// Takes `count` bytes off what is left, or says that they are not there.
    fn claim(&mut self, count: u64, what: &'static str) -> Result<(), Error> {
        let at = self.at;
        self.left = self.left.checked_sub(count).ok_or(Error::Truncated { what, at })?;
        self.at += count;
        if self.at > MAX_HEADER {
            let what = format!("its header is larger than {} MiB", MAX_HEADER >> 20);
            return Err(Error::Corrupt { at, what });
        }
        Ok(())
    }

    /// Fills `buffer`, whose length has been claimed.
    fn fill(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            // It became shorter since its length was taken.
            std::io::ErrorKind::UnexpectedEof => Error::Truncated { what, at: self.at - buffer.len() as u64 },
            _ => Error::Io(error),
        })?;
        self.hasher.update(buffer);
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.claim(N as u64, what)?;
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// Refuses a count of things of at least `size` bytes that cannot fit into the rest of the file.
    pub(super) fn check_count(&self, count: u64, size: u64, what: &'static str) -> Result<(), Error> {
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.left => Ok(()),
            _ => Err(Error::Truncated { what, at: self.at }),
        }
    }

    /// The bytes of a string, valid until the next call.
    pub(super) fn blob(&mut self, what: &'static str) -> Result<&[u8], Error> {
        let at = self.at;
        let length = self.u64(what)?;
        self.check_count(length, 1, what)?;
        if length > MAX_STRING {
            return Err(Error::Corrupt { at, what: format!("a string of {length} bytes") });
        }
        self.pass(length, what)
    }

    /// Text that is not UTF-8 is shown as well as it can be: it is metadata, and the engine reads the file itself.
    pub(super) fn string(&mut self, what: &'static str) -> Result<String, Error> {
        self.blob(what).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The next `length` bytes, valid until the next call; at most [`MAX_STRING`] at once are asked for.
    pub(super) fn pass(&mut self, length: u64, what: &'static str) -> Result<&[u8], Error> {
        self.claim(length, what)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(length as usize, 0);
        self.fill(&mut scratch, what)?;
        self.scratch = scratch;
        Ok(&self.scratch)
    }

    /// Reads `length` bytes that nobody wants to see.
    pub(super) fn skip(&mut self, length: u64, what: &'static str) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let piece = left.min(64 << 10);
            self.pass(piece, what)?;
            left -= piece;
        }
        Ok(())
    }
}
