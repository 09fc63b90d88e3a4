//! [`Key`]: the identity of a generation.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{Generation, Priority};

/// SHA-256 over the canonical JSON of a generation. Two requests with equal keys ask for the same thing, whatever dialect
/// they came in; a hash alone is never trusted, so whoever shares an answer compares the canonical bytes as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of `generation`, whatever its priority. Field order is that of the structs, so equal values give equal bytes.
    pub fn of(generation: &Generation) -> Result<Self, serde_json::Error> {
        let mut generation = Cow::Borrowed(generation);
        if !generation.priority.is_normal() {
            generation.to_mut().priority = Priority::NORMAL;
        }
        let mut hasher = Sha256::new();
        serde_json::to_writer(HashWriter(&mut hasher), &*generation)?;
        Ok(Self(hasher.finalize().into()))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Feeds what is written to a hasher, so that the canonical JSON never lies in memory as a whole.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_in_a_hurry_asks_for_the_same() {
        let of = |priority: i32| {
            let request =
                json!({ "model": "m", "input": { "kind": "raw", "prompt": "p" }, "priority": priority });
            Key::of(&serde_json::from_value(request).unwrap()).unwrap()
        };
        assert!(of(-10) == of(0) && of(7) == of(0));
    }
}
