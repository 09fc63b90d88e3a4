//! [`Tier`]: one place where entries are kept.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;

use super::codec::millis;
use super::{Entry, Statistics, Wanted};
use crate::generation::Key;

/// One place where entries are kept. Nothing here fails: what cannot be done is counted, and reads like a miss.
#[async_trait]
pub trait Tier: Send + Sync {
    /// As metrics and the admin port call it.
    fn name(&self) -> &'static str;
    /// The entry that `wanted` takes.
    async fn get(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>>;
    /// Keeps an entry, if there is room for it.
    async fn put(&self, entry: &Arc<Entry>);
    /// Throws away, and says how many.
    async fn purge(&self, which: &Which) -> u64;
    /// What it holds, where that is known.
    fn usage(&self) -> Option<Usage>;
    /// Up to `most` of its entries, in no order; none where it cannot tell.
    fn list(&self, which: &Which, most: usize) -> Vec<Summary>;
    /// What came of requests to it.
    fn statistics(&self) -> Statistics;
}

/// What a tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Entries.
    pub entries: u64,
    /// Their bytes, as the tier counts them.
    pub bytes: u64,
    /// The most it may be.
    pub budget: u64,
}

/// Which entries are meant: those that have all that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// The model's configured name.
    pub model: Option<String>,
    /// Whose answers.
    pub tenant: Option<String>,
    /// One entry.
    pub key: Option<Key>,
}

impl Which {
    /// Whether an entry of these is meant.
    pub fn is(&self, key: impl FnOnce() -> Key, model: &str, tenant: &str) -> bool {
        self.model.as_deref().is_none_or(|wanted| wanted == model)
            && self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
            && self.key.is_none_or(|wanted| wanted == key())
    }

    /// Whether `entry` is meant.
    pub fn means(&self, entry: &Entry) -> bool {
        self.is(|| entry.identity.key(), &entry.model, &entry.tenant)
    }
}

/// What the admin port shows of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// 64 hexadecimal digits.
    pub key: String,
    /// The model's configured name.
    pub model: Arc<str>,
    /// Whose answer it is; empty where all share.
    pub tenant: Arc<str>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// The same.
    pub expires: u64,
    /// As the tier counts them.
    pub bytes: u64,
}

impl Summary {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            key: entry.identity.key().to_string(),
            model: Arc::clone(&entry.model),
            tenant: Arc::clone(&entry.tenant),
            created: millis(entry.created),
            expires: millis(entry.expires),
            bytes: entry.size() as u64,
        }
    }
}

/// Whether an entry that expires at `expires`, in milliseconds since 1970, has.
pub(super) fn is_over(expires: u64, now: SystemTime) -> bool {
    expires <= millis(now)
}
