//! [`Shared`]: entries in a Valkey or Redis server, for all instances that use it. Optional in every sense: each operation has a
//! deadline, and after the first that failed the server is left alone for a while, so that one that hangs costs a request at most that
//! deadline, once.
//!
//! An entry's name is `arriero|TENANT|MODEL|KEY`, so that a purge can find it; the server forgets it by itself when it expires.

mod client;
mod lease;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation, cmd};
use tokio_util::task::TaskTracker;

use super::codec::{decode, encode};
use super::counts::Counts;
use super::{Entry, LeaseConfig, SharedConfig, Statistics, Summary, Tier, Usage, Wanted, Which};
use crate::breaker::{Breaker, BreakerConfig};
use crate::telemetry::Metrics;

pub use client::client;
pub use lease::Lease;
use lease::Taken;

/// The largest record that is sent: a larger one cannot be there within any sensible deadline.
const LARGEST: usize = 1 << 20;
/// For a connection, which is made in the background.
const CONNECT: Duration = Duration::from_secs(2);
/// The first pause while waiting for another instance; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// What a purge may take for one step, for nobody waits for it but a person, and the names it looks at in one.
const SCAN: usize = 1000;
const STEP: Duration = Duration::from_secs(2);

/// The tier that instances share.
pub struct Shared {
    server: ConnectionManager,
    deadline: Duration,
    lease: LeaseConfig,
    breaker: Arc<Breaker>,
    counts: Counts,
    /// Leases on their way back.
    releases: TaskTracker,
}

/// The server did not answer, or is not asked now.
#[derive(Debug)]
struct Unanswered;

/// What an instance does that finds no answer.
pub enum Turn {
    /// Another instance has computed it meanwhile.
    Answered(Arc<Entry>),
    /// It computes, and others wait for it.
    Ours(Lease),
    /// It computes.
    Free,
}

impl Shared {
    /// A connection is made in the background. Runs inside of a runtime.
    pub(super) fn new(config: &SharedConfig, metrics: Arc<Metrics>) -> Result<Self, String> {
        let client = client(config).map_err(|(key, fault)| format!("cache.{key}: {fault}"))?;
        let managed = ConnectionManagerConfig::new()
            // The breaker says when to try again.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(STEP));
        let breaker = BreakerConfig {
            consecutive_failures: 1,
            error_rate: 0.0,
            open: config.pause,
            open_max: config.pause,
            half_open: 1,
            slow_start: Duration::ZERO,
            ..BreakerConfig::default()
        };
        let told = |transition: &crate::breaker::Transition| {
            tracing::info!(
                from = transition.from.as_str(),
                to = transition.to.as_str(),
                reason = transition.reason,
                "the shared cache"
            );
        };
        Ok(Self {
            server: ConnectionManager::new_lazy_with_config(client, managed)
                .map_err(|error| format!("cache.responses.shared: {error}"))?,
            deadline: config.deadline,
            lease: config.lease.clone(),
            breaker: Arc::new(Breaker::new(breaker, Arc::new(told), Instant::now())),
            counts: Counts::new("shared", metrics),
            releases: TaskTracker::new(),
        })
    }

    /// Returns when all leases that were given up are given back, or cannot be.
    pub(super) async fn settle(&self) {
        self.releases.close();
        self.releases.wait().await;
    }

    /// Has the connection made, or made again, without anybody waiting for it.
    pub(super) async fn tend(&self) {
        let ping = cmd("PING");
        let _: Result<Result<String, _>, _> =
            tokio::time::timeout(CONNECT, ping.query_async(&mut self.server.clone())).await;
    }

    /// Asks the server within the deadline, if it is worth it.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unanswered> {
        let mut server = self.server.clone();
        self.within(self.deadline, command.query_async(&mut server)).await
    }

    async fn invoke<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        let mut server = self.server.clone();
        // A script that the server does not know is sent, which makes three ways.
        self.within(3 * self.deadline, call.invoke_async(&mut server)).await.ok()
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Unanswered> {
        let permit = self.breaker.admit(Instant::now()).map_err(|_| Unanswered)?;
        let what = match tokio::time::timeout(deadline, asked).await {
            Ok(Ok(answer)) => {
                permit.succeed(Instant::now());
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        permit.fail(&what, Instant::now());
        self.counts.failed.inc();
        Err(Unanswered)
    }

    async fn find(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<Entry>>, Unanswered> {
        let name = name(wanted.tenant, wanted.model, &wanted.identity.key().to_string());
        let record: Option<Vec<u8>> = self.ask(cmd("GET").arg(name)).await?;
        let Some(record) = record else { return Ok(None) };
        match decode(&record) {
            Ok(entry) => Ok(Some(Arc::new(entry)).filter(|entry| wanted.takes(entry))),
            Err(damaged) => {
                tracing::debug!(key = %wanted.identity.key(), %damaged, "an answer of the shared cache is left out");
                self.counts.damaged.inc();
                Ok(None)
            }
        }
    }

    /// Whose turn it is to compute what nobody has. While another instance does it waits, but not for longer than configured.
    pub(super) async fn turn(self: &Arc<Self>, wanted: &Wanted<'_>) -> Turn {
        if self.lease.wait.is_zero() {
            return Turn::Free;
        }
        let (from, mut pause) = (tokio::time::Instant::now(), FIRST_PAUSE);
        loop {
            match Lease::take(self, wanted.identity.key()).await {
                None => return Turn::Free,
                Some(Ok(lease)) => {
                    // Between the look-up and the lease it may have been stored.
                    return match self.find(wanted).await {
                        Ok(Some(entry)) => Turn::Answered(entry),
                        _ => Turn::Ours(lease),
                    };
                }
                Some(Err(Taken)) => {}
            }
            if from.elapsed() + pause > self.lease.wait {
                return Turn::Free;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            match self.find(wanted).await {
                Ok(Some(entry)) => return Turn::Answered(entry),
                Ok(None) => {}
                Err(Unanswered) => return Turn::Free,
            }
        }
    }

    /// Deletes what a pattern fits.
    async fn delete(&self, pattern: &str) -> Result<u64, RedisError> {
        let mut server = self.server.clone();
        let (mut cursor, mut gone) = (0_u64, 0);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN);
            let (next, names): (u64, Vec<String>) = scan.query_async(&mut server).await?;
            if !names.is_empty() {
                gone += cmd("UNLINK").arg(names).query_async::<u64>(&mut server).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(gone);
            }
        }
    }
}

#[async_trait]
impl Tier for Shared {
    fn name(&self) -> &'static str {
        "shared"
    }

    async fn get(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        // What failed is counted where it did.
        let found = self.find(wanted).await.ok()?;
        if found.is_some() {
            self.counts.hit.inc()
        } else {
            self.counts.miss.inc()
        };
        found
    }

    async fn put(&self, entry: &Arc<Entry>) {
        let left = entry.remaining(std::time::SystemTime::now()).as_secs();
        if left == 0 || self.breaker.shut(Instant::now()).is_some() {
            return;
        }
        let Some(record) = encode(entry).ok().filter(|record| record.len() <= LARGEST) else {
            self.counts.not_stored("large");
            return;
        };
        let name = name(&entry.tenant, &entry.model, &entry.identity.key().to_string());
        let stored: Result<(), _> = self.ask(cmd("SET").arg(name).arg(record).arg("EX").arg(left)).await;
        if stored.is_err() {
            self.counts.not_stored("failed");
        }
    }

    async fn purge(&self, which: &Which) -> u64 {
        let key = which.key.map(|key| key.to_string());
        let part = |part: Option<&str>| part.map_or_else(|| "*".to_owned(), escaped);
        let pattern =
            name(&part(which.tenant.as_deref()), &part(which.model.as_deref()), &part(key.as_deref()));
        match self.delete(&pattern).await {
            Ok(gone) => {
                self.counts.evicted("purged", gone);
                gone
            }
            Err(error) => {
                tracing::warn!(%error, "the shared cache could not be purged");
                self.counts.failed.inc();
                0
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        None
    }

    fn list(&self, _: &Which, _: usize) -> Vec<Summary> {
        Vec::new()
    }

    fn statistics(&self) -> Statistics {
        self.counts.statistics()
    }
}

/// Neither tenants nor models nor keys have a bar in their names.
fn name(tenant: &str, model: &str, key: &str) -> String {
    format!("arriero|{tenant}|{model}|{key}")
}

/// As a part of a pattern that means only itself.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| ["*?[]\\^".contains(c).then_some('\\'), Some(c)]).flatten().collect()
}

#[cfg(test)]
mod tests;
