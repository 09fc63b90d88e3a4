//! [`Loading`]: how far a model is on its way into memory, for those who could not wait for it.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// Nobody is told to come back later than this: until then everything may be otherwise.
const LATEST: Duration = Duration::from_secs(5 * 60);

/// How far a model is on its way; as JSON `{state, progress, eta_seconds}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Loading {
    /// What it is waiting for.
    pub state: LoadingState,
    /// How much of it is in memory, 0 to 1.
    pub progress: f32,
    /// How long it will take until it can be used; `None`: nobody knows.
    #[serde(rename = "eta_seconds", serialize_with = "tenths")]
    pub eta: Option<Duration>,
}

/// What a model on its way is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadingState {
    /// It is being loaded.
    Loading,
    /// It waits for room.
    Waiting,
    /// It was refused for lack of room.
    NoRoom,
}

impl Loading {
    /// When to come back, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.eta.map(retry_after)
    }
}

/// When to come back for what will take so long: in whole seconds, at least one.
pub fn retry_after(eta: Duration) -> Duration {
    let seconds = eta.min(LATEST).as_secs_f64().ceil();
    Duration::from_secs_f64(seconds.max(1.0))
}

fn tenths<S: Serializer>(eta: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    eta.map(|eta| (eta.as_secs_f64() * 10.0).round() / 10.0).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_three_members_of_which_the_time_may_be_unknown() {
        let eta = Some(Duration::from_millis(12_340));
        let loading = Loading { state: LoadingState::Loading, progress: 0.25, eta };
        let json = |loading: &Loading| serde_json::to_string(loading).unwrap();
        assert_eq!(json(&loading), r#"{"state":"loading","progress":0.25,"eta_seconds":12.3}"#);
        let unknown = Loading { state: LoadingState::NoRoom, eta: None, ..loading };
        assert_eq!(json(&unknown), r#"{"state":"no_room","progress":0.25,"eta_seconds":null}"#);
    }

    #[test]
    fn nobody_is_told_to_come_back_at_once_or_in_an_hour() {
        let told = |millis| retry_after(Duration::from_millis(millis)).as_secs();
        assert_eq!([0, 900, 1000, 1100, 3_600_000].map(told), [1, 1, 1, 2, 300]);
        assert_eq!(retry_after(Duration::MAX), LATEST);
    }
}
