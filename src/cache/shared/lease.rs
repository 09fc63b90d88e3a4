//! [`Lease`]: the right to compute an answer that several instances were asked for, so that only one of them does.
//!
//! A key with the owner's mark and a short life (`SET NX PX`, <https://valkey.io/commands/set>), prolonged while the answer is computed. It saves
//! work and promises nothing: who cannot get it, or waits too long, computes.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, cmd};
use tokio::runtime::Handle;

use super::Shared;
use crate::generation::Key;

/// Deletes the key if it is still the owner's.
const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";
/// Prolongs its life if it is still the owner's.
const RENEW: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) end return 0";

/// The right to compute an answer. Dropping it lets others have it at once; where that cannot be told, it ends some seconds after
/// [`Lease::keep`] was polled last.
pub struct Lease {
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) mark: u64,
}

impl Lease {
    /// Takes it, if nobody has it. `None` if the server cannot be asked: then everybody computes.
    pub(super) async fn take(shared: &Arc<Shared>, key: Key) -> Option<Result<Self, Taken>> {
        // There before it is asked for, so that it is given back too if nobody waits for the answer to that.
        let lease =
            Self { shared: Arc::clone(shared), name: format!("arriero|lease|{key}"), mark: rand::random() };
        let mut command = cmd("SET");
        command.arg(&lease.name).arg(lease.mark).arg("NX").arg("PX").arg(millis(shared.lease.time));
        let answer: Option<String> = shared.ask(&command).await.ok()?;
        Some(match answer {
            Some(_) => Ok(lease),
            None => {
                lease.forget();
                Err(Taken)
            }
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

    /// There is nothing to be given back.
    fn forget(mut self) {
        self.name.clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (name, mark) = (std::mem::take(&mut self.name), self.mark);
        // Where no runtime is left, the process ends, and the lease with its time.
        let Ok(runtime) = Handle::try_current() else { return };
        if name.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let give_back = async move {
            let script = Script::new(RELEASE);
            let mut call = script.key(&name);
            call.arg(mark);
            let _: Option<i64> = shared.invoke(&call).await;
        };
        self.shared.releases.spawn_on(give_back, &runtime);
    }
}

/// Another instance has it.
pub(super) struct Taken;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
