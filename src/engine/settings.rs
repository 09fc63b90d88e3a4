//! What can be changed while the worker runs, and within which bounds. Pure.

use crate::generation::seam::{Change, Settings};
use crate::generation::{Failure, FailureCode};

/// More threads than any machine has cores.
const MOST_THREADS: u32 = 1024;

/// The settings that `change` makes of those in force. `allocated` is what the context was made for; its numbers of threads mean
/// nothing.
pub fn changed(now: &Settings, change: Change, allocated: &Settings) -> Result<Settings, Failure> {
    let next = Settings {
        threads: change.threads.unwrap_or(now.threads),
        prefill_threads: change.prefill_threads.unwrap_or(now.prefill_threads),
        batch: change.batch.unwrap_or(now.batch),
        parallel: change.parallel.unwrap_or(now.parallel),
        pace: change.pace.unwrap_or_else(|| now.pace.clone()),
    };
    for (name, value) in [("threads", next.threads), ("prefill_threads", next.prefill_threads)] {
        if !(1..=MOST_THREADS).contains(&value) {
            return Err(invalid(format!("{name} must be from 1 to {MOST_THREADS}")));
        }
    }
    if next.batch < allocated.parallel {
        let least = allocated.parallel;
        return Err(invalid(format!("batch must be at least {least}: each sequence needs a token of it")));
    }
    if next.parallel == 0 {
        return Err(invalid("parallel must be at least 1".to_owned()));
    }
    let limits = [("batch", next.batch, allocated.batch), ("parallel", next.parallel, allocated.parallel)];
    for (name, value, most) in limits {
        if value > most {
            let message = format!(
                "{name} cannot be more than {most} while the model is loaded: memory was taken for so many; a change \
                 of the config needs a restart"
            );
            return Err(Failure { code: FailureCode::Unsupported, message });
        }
    }
    match next.pace.fault() {
        Some(fault) => Err(invalid(format!("pace: {fault}"))),
        None => Ok(next),
    }
}

fn invalid(message: String) -> Failure {
    Failure { code: FailureCode::InvalidRequest, message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn allocated() -> Settings {
        Settings { threads: 2, prefill_threads: 2, batch: 512, parallel: 4, ..Settings::default() }
    }

    fn change(change: Value) -> Result<Settings, Failure> {
        changed(&allocated(), serde_json::from_value(change).unwrap(), &allocated())
    }

    #[test]
    fn what_is_not_named_stays() {
        assert_eq!(change(json!({})).unwrap(), allocated());
        let next =
            change(json!({"threads": 1, "batch": 64, "parallel": 2, "pace": {"target": "1s"}})).unwrap();
        assert_eq!((next.threads, next.prefill_threads, next.batch, next.parallel), (1, 2, 64, 2));
        assert_eq!((next.pace.target.as_secs(), next.pace.least), (1, 16));
    }

    #[test]
    fn what_was_not_allocated_cannot_be_had_and_nonsense_is_refused() {
        for (asked, code, words) in [
            (json!({"parallel": 5}), FailureCode::Unsupported, "parallel cannot be more than 4"),
            (json!({"batch": 513}), FailureCode::Unsupported, "batch cannot be more than 512"),
            (json!({"batch": 3}), FailureCode::InvalidRequest, "batch must be at least 4"),
            (json!({"parallel": 0}), FailureCode::InvalidRequest, "parallel must be at least 1"),
            (json!({"threads": 0}), FailureCode::InvalidRequest, "threads must be from 1"),
            (json!({"pace": {"least": 0}}), FailureCode::InvalidRequest, "pace: least must"),
        ] {
            let failure = change(asked).unwrap_err();
            assert_eq!(failure.code, code, "{failure:?}");
            assert!(failure.message.starts_with(words), "{failure:?}");
        }
    }
}
