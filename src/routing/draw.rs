//! Chance: a source of numbers for strategies, and the race that draws among candidates by weight.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Candidate;

/// The odd number nearest to 2^64 over the golden ratio: its multiples are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A name as a number: the same in every process, and nearly certainly no other name's. FNV-1a, mixed so that names that differ in one letter
/// differ in every bit.
pub(super) fn number_of(name: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014): every bit of the result depends on every bit of `x`.
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// SplitMix64, drawn from by any thread; the same numbers for the same seed.
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(mix(seed)))
    }

    pub(super) fn roll(&self) -> u64 {
        mix(self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN))
    }

    /// From 0 up to, but not including, 1.
    pub(super) fn fraction(&self) -> f32 {
        fraction(self.roll())
    }
}

/// The upper bits of `x` as a fraction; a `f32` has 24.
fn fraction(x: u64) -> f32 {
    (x >> 40) as f32 / (1_u32 << 24) as f32
}

/// When `candidate` arrives in the race that `key` starts. Whoever is first has been drawn with a probability in proportion to its
/// weight (exponential clocks; Efraimidis and Spirakis 2006). The same key has the same race whoever else runs, so the winner
/// changes only for keys whose winner leaves or that a newcomer wins: weighted rendezvous hashing (Thaler and Ravishankar 1998).
pub(super) fn race(key: u64, candidate: &Candidate) -> f32 {
    // Never 0, whose logarithm is infinite.
    let chance = 1.0 - fraction(mix(key ^ candidate.id.0));
    -chance.ln() / (candidate.weight * candidate.slow_start).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_they_fill_the_range() {
        let (a, b) = (Dice::new(7), Dice::new(7));
        let drawn: Vec<f32> = (0..1000).map(|_| a.fraction()).collect();
        assert!(drawn.iter().all(|x| *x == b.fraction() && (0.0..1.0).contains(x)));
        let mean = drawn.iter().sum::<f32>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn who_leaves_takes_only_its_own_keys_along(keys in prop::collection::vec(any::<u64>(), 200), gone in 0..10_usize) {
            let nodes: Vec<_> = (0..10).map(|i| Candidate::new(format!("n{i}"), 1)).collect();
            let winner = |key: u64, without: Option<usize>| {
                let running = (0..10).filter(|i| Some(*i) != without);
                running.min_by(|a, b| race(key, &nodes[*a]).total_cmp(&race(key, &nodes[*b]))).unwrap()
            };
            for key in keys {
                let before = winner(key, None);
                prop_assert!(before == gone || winner(key, Some(gone)) == before);
            }
        }
    }

    #[test]
    fn who_weighs_three_times_as_much_wins_three_times_as_often() {
        let nodes = [Candidate::new("light", 1), Candidate { weight: 3.0, ..Candidate::new("heavy", 1) }];
        let won = (0..10_000).filter(|key| race(mix(*key), &nodes[1]) < race(mix(*key), &nodes[0])).count();
        assert!((7_300..7_700).contains(&won), "{won}");
    }
}
