//! [`Lease`]: the right to compute an answer that several instances were asked for, so that only one of them does.
//!
//! A key with the owner's mark and a short life (`SET NX PX`, <https://valkey.io/commands/set>), prolonged while the answer is computed. It saves
//! work and promises nothing: who cannot get it, or waits too long, computes.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, cmd};

use super::Shared;
use crate::generation::Key;

/// Deletes the key if it is still the owner's.
const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";
/// Prolongs its life if it is still the owner's.
const RENEW: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) end return 0";

/// The right to compute an answer. It ends by [`Lease::release`], or some seconds after [`Lease::keep`] is not polled any more.
pub struct Lease {
    shared: Arc<Shared>,
    name: String,
    mark: u64,
}

impl Lease {
    /// Takes it, if nobody has it. `None` if the server cannot be asked: then everybody computes.
    pub(super) async fn take(shared: &Arc<Shared>, key: Key) -> Option<Result<Self, Taken>> {
        let (name, mark) = (format!("arriero|lease|{key}"), rand::random());
        let mut command = cmd("SET");
        command.arg(&name).arg(mark).arg("NX").arg("PX").arg(millis(shared.lease.time));
        let answer: Option<String> = shared.ask(&command).await.ok()?;
        Some(match answer {
            Some(_) => Ok(Self { shared: Arc::clone(shared), name, mark }),
            None => Err(Taken),
        })
    }

    /// Prolongs it for as long as it is polled; never ends.
    pub async fn keep(&self) -> std::convert::Infallible {
        let script = Script::new(RENEW);
        loop {
            tokio::time::sleep(self.shared.lease.time / 3).await;
            let mut call = script.key(&self.name);
            call.arg(self.mark).arg(millis(self.shared.lease.time));
            // If it is lost, another instance may compute the same: no harm but work.
            let _: Option<i64> = self.shared.invoke(&call).await;
        }
    }

    /// Lets others have it at once.
    pub async fn release(self) {
        let script = Script::new(RELEASE);
        let mut call = script.key(&self.name);
        call.arg(self.mark);
        let _: Option<i64> = self.shared.invoke(&call).await;
    }
}

/// Another instance has it.
pub(super) struct Taken;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
