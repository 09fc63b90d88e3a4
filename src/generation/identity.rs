//! [`Identity`]: what makes two requests the same.

use std::borrow::Cow;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, OnceLock};

use ahash::RandomState;
/// Why there is no identity: never for what a dialect has parsed.
pub use rmp_serde::encode::Error as NotWritten;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Embedding, Generation, Priority};

/// The canonical form of a request as bytes. Two requests with equal identities ask for the same thing, whatever dialect they came in. A
/// hash alone is never trusted: equality is that of the bytes. A clone costs nothing.
#[derive(Clone)]
pub struct Identity(Arc<Canonical>);

struct Canonical {
    /// Of the bytes, as this process hashes: it is looked for by this in memory.
    hash: u64,
    /// Worked out when it is first asked for, by what is known outside of this process: 8 KB take longer than all the rest.
    key: OnceLock<Key>,
    bytes: Box<[u8]>,
}

/// Differs from process to process, so that nobody can prepare requests whose hashes are equal.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// SHA-256 over canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// What a thread keeps of its buffer.
const SCRATCH_LIMIT: usize = 256 << 10;

thread_local! {
    /// How long the bytes will be is known when they are written: they grow here, and are copied once.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Within which requests can be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// What answers: the digest of the model's file and whatever else decides its answers, so that another file under the same name is
    /// another model.
    pub digest: &'a str,
    /// Who asks; empty where all share.
    pub tenant: &'a str,
    /// Which of several answers to one request, where they are to differ.
    pub choice: usize,
}

impl Identity {
    /// The identity of `generation`, whatever its priority. Field order is that of the structs, so equal values give equal bytes.
    pub fn of(generation: &Generation, scope: Scope<'_>) -> Result<Self, NotWritten> {
        let mut generation = Cow::Borrowed(generation);
        if !generation.priority.is_normal() {
            generation.to_mut().priority = Priority::NORMAL;
        }
        Self::of_parts(&(scope.digest, scope.tenant, scope.choice, &*generation))
    }

    /// The identity of the vector of `input`, one of those of `embedding`.
    pub fn of_input(embedding: &Embedding, input: &str, scope: Scope<'_>) -> Result<Self, NotWritten> {
        let Embedding { model, inputs: _, truncate, dimensions, num_ctx } = embedding;
        // A text where that of a generation has a number.
        let kind = "embedding";
        Self::of_parts(&(scope.digest, scope.tenant, kind, model, truncate, dimensions, num_ctx, input))
    }

    /// As MessagePack with the names of fields: texts are copied, not escaped, and each part has its length before it, so that no text in
    /// one part reads like another part.
    fn of_parts(parts: &impl Serialize) -> Result<Self, NotWritten> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            let written = rmp_serde::encode::write_named(scratch, parts);
            let identity = written.map(|()| Self::from_bytes(scratch.as_slice()));
            if scratch.capacity() > SCRATCH_LIMIT {
                *scratch = Vec::new();
            }
            identity
        })
    }

    /// That of canonical bytes that were kept.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let hash = HASHER.hash_one(bytes);
        Self(Arc::new(Canonical { hash, key: OnceLock::new(), bytes: bytes.into() }))
    }

    /// A hash that it has in this process only, and that another may have too.
    pub fn short_key(&self) -> u64 {
        self.0.hash
    }

    /// The hash that it has everywhere.
    pub fn key(&self) -> Key {
        *self.0.key.get_or_init(|| Key(Sha256::digest(&self.0.bytes).into()))
    }

    /// What was hashed.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.hash == other.0.hash && self.0.bytes == other.0.bytes
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}, {} bytes)", self.key(), self.bytes().len())
    }
}

impl Key {
    /// One that was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Key {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits")]
pub struct NoKey;

impl std::str::FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let digits = text.as_bytes();
        let mut key = [0; 32];
        if digits.len() != 2 * key.len() {
            return Err(NoKey);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
            let value = digit(0).zip(digit(1)).map(|(high, low)| 16 * high + low);
            *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or(NoKey)?;
        }
        Ok(Self(key))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(priority: i32, scope: Scope<'_>) -> Identity {
        let request =
            json!({ "model": "m", "input": { "kind": "raw", "prompt": "p" }, "priority": priority });
        Identity::of(&serde_json::from_value(request).unwrap(), scope).unwrap()
    }

    #[test]
    fn who_is_in_a_hurry_asks_for_the_same() {
        let of = |priority| identity(priority, Scope::default());
        assert!(of(-10) == of(0) && of(7) == of(0));
    }

    #[test]
    fn a_key_reads_back_as_written() {
        let key = identity(0, Scope::default()).key();
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "ab", &"g".repeat(64), &"+1".repeat(32), &"0".repeat(66)] {
            assert_eq!(text.parse::<Key>(), Err(NoKey), "{text}");
        }
    }

    #[test]
    fn kept_bytes_are_the_same_identity() {
        let identity = identity(0, Scope::default());
        let kept = Identity::from_bytes(identity.bytes());
        assert!(kept == identity && kept.key() == identity.key());
    }

    #[test]
    fn a_hash_alone_is_not_trusted() {
        let identity = identity(0, Scope::default());
        let canonical = Canonical { hash: identity.0.hash, key: OnceLock::new(), bytes: Box::default() };
        assert!(Identity(Arc::new(canonical)) != identity);
    }

    #[test]
    fn inputs_that_embed_alike_are_the_same_whatever_comes_with_them() {
        let of = |request: serde_json::Value, input| {
            Identity::of_input(&serde_json::from_value(request).unwrap(), input, Scope::default()).unwrap()
        };
        let alone = json!({ "model": "m", "inputs": ["a"], "truncate": true });
        let one_of_two = json!({ "model": "m", "inputs": ["b", "a"], "truncate": true });
        assert_eq!(of(alone.clone(), "a"), of(one_of_two, "a"));
        assert_ne!(of(alone.clone(), "a"), of(alone.clone(), "b"));
        let shorter = json!({ "model": "m", "inputs": ["a"], "truncate": true, "dimensions": 8 });
        assert_ne!(of(alone, "a"), of(shorter, "a"));
    }

    #[test]
    fn another_model_another_tenant_or_another_choice_is_another_identity() {
        let of = |digest, tenant| identity(0, Scope { digest, tenant, choice: 0 });
        let second = identity(0, Scope { choice: 1, ..Scope::default() });
        let all = [of("", ""), of("a", ""), of("", "a"), of("b", ""), of("a", "b"), second];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != one && other.key() != one.key()));
        }
    }
}
