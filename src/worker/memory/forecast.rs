//! How long it takes until a model is there: pure, from what is known of loads and of those who are in its way.

use std::time::Duration;

use super::limits::Limits;
use super::room::{Occupant, Waiting, plan};

/// A model in memory, and when it will have left at the latest if another waits for its room; `None`: nobody knows, or never.
#[derive(Clone, Debug)]
pub struct Departure<K> {
    /// The model.
    pub occupant: Occupant<K>,
    /// From now.
    pub leaves: Option<Duration>,
}

/// What is left of a load that has got so far in `elapsed`: of the time it has `usually` taken what is not over, or less if it is ahead of
/// that; of one that is slower than usual the part that is not done of the time it has taken so far.
pub fn remaining(progress: f32, elapsed: Duration, usually: Duration) -> Duration {
    let left = (1.0 - f64::from(progress)).clamp(0.0, 1.0);
    match usually.checked_sub(elapsed) {
        Some(rest) if !rest.is_zero() => rest.min(usually.mul_f64(left)),
        _ => elapsed.mul_f64(left),
    }
}

/// How long it takes until there is room for `waiting` because others have left; `None`: it cannot be said.
pub fn room_in<K: Clone + PartialEq>(
    departures: &[Departure<K>],
    waiting: &Waiting<K>,
    limits: &Limits,
) -> Option<Duration> {
    // Nobody is told to leave for one that is modest: it comes if it fits.
    let modest = [Waiting { is_modest: true, is_pressed: false, ..waiting.clone() }];
    let mut moments: Vec<_> = departures.iter().filter_map(|it| it.leaves).chain([Duration::ZERO]).collect();
    moments.sort_unstable();
    moments.into_iter().find(|moment| {
        let stays = |it: &&Departure<K>| it.leaves.is_none_or(|leaves| leaves > *moment);
        let staying: Vec<_> = departures.iter().filter(stays).map(|it| it.occupant.clone()).collect();
        !plan(&staying, &modest, limits).start.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::worker::memory::{Need, Standing};

    const SECOND: Duration = Duration::from_secs(1);

    fn need(bytes: u64) -> Need {
        Need { private: bytes, ..Need::default() }
    }

    fn departure(key: u32, bytes: u64, leaves: Option<u64>) -> Departure<u32> {
        let occupant = Occupant { key, need: need(bytes), standing: Standing::Busy, worth: 0.0 };
        Departure { occupant, leaves: leaves.map(Duration::from_secs) }
    }

    /// Until a model of so many bytes fits into ten.
    fn room(departures: &[Departure<u32>], bytes: u64) -> Option<u64> {
        let waiting = Waiting {
            key: 99,
            needs: vec![need(bytes)],
            before_eviction: 1,
            is_due: false,
            is_pressed: true,
            is_modest: false,
        };
        let limits = Limits { count: 9, budget: Some(10), room: None, device: None, gpus: BTreeMap::new() };
        room_in(departures, &waiting, &limits).map(|wait| wait.as_secs())
    }

    #[test]
    fn it_takes_until_enough_have_left_and_no_longer() {
        let there = [departure(1, 4, Some(30)), departure(2, 3, Some(5)), departure(3, 2, None)];
        assert_eq!(room(&there, 1), Some(0));
        assert_eq!(room(&there, 4), Some(5));
        assert_eq!(room(&there, 8), Some(30));
        assert_eq!(room(&there, 9), None, "one never leaves");
    }

    #[test]
    fn a_load_ends_when_it_usually_does_unless_it_is_faster_or_slower() {
        assert_eq!(remaining(0.0, SECOND, 10 * SECOND), 9 * SECOND);
        assert_eq!(remaining(0.75, SECOND, 8 * SECOND), 2 * SECOND, "it is faster than usual");
        assert_eq!(remaining(0.5, 20 * SECOND, 10 * SECOND), 10 * SECOND, "it is slower");
        assert_eq!(remaining(1.0, 20 * SECOND, 10 * SECOND), Duration::ZERO);
        assert_eq!(remaining(0.0, 3 * SECOND, Duration::ZERO), 3 * SECOND, "nothing is known");
    }

    proptest! {
        /// What is left never grows with the part that is done, whatever was measured.
        #[test]
        fn more_progress_never_leaves_more(part in 0.0..1.0_f32, more in 0.0..1.0_f32, elapsed in 0..10_000_u64, usually in 0..10_000_u64) {
            let left = |progress| remaining(progress, Duration::from_secs(elapsed), Duration::from_secs(usually));
            prop_assert!(left((part + more).min(1.0)) <= left(part));
        }

        /// At the time told it fits beside those who stay longer, and at no departure before.
        #[test]
        fn the_wait_is_enough_and_the_least(all in proptest::collection::vec((1..6_u64, proptest::option::of(0..9_u64)), 0..6), bytes in 1..=10_u64) {
            let there: Vec<_> = (0..).zip(&all).map(|(key, (bytes, leaves))| departure(key, *bytes, *leaves)).collect();
            let taken_after = |moment: u64| -> u64 {
                all.iter().filter(|(_, leaves)| leaves.is_none_or(|leaves| leaves > moment)).map(|(bytes, _)| bytes).sum()
            };
            let expected = (0..9).find(|moment| taken_after(*moment) + bytes <= 10);
            prop_assert_eq!(room(&there, bytes), expected);
        }
    }
}
