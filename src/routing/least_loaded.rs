//! `least_loaded`: the node with the fewest exchanges per place it has.

use super::{Candidate, Strategy};

/// Compares `in_flight / parallel`; the first of equals wins, so that replicas fill in order and idle ones can be unloaded.
pub(super) struct LeastLoaded;

impl Strategy for LeastLoaded {
    fn choose(&self, candidates: &[Candidate]) -> Option<usize> {
        // a/b < c/d without division: a*d < c*b.
        (0..candidates.len()).min_by(|&i, &j| {
            let (a, b) = (&candidates[i], &candidates[j]);
            (a.in_flight * b.parallel.max(1)).cmp(&(b.in_flight * a.parallel.max(1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(in_flight: usize, parallel: usize) -> Candidate {
        Candidate { name: "n".into(), in_flight, parallel }
    }

    #[test]
    fn load_is_relative_to_places() {
        assert_eq!(LeastLoaded.choose(&[candidate(2, 2), candidate(3, 8)]), Some(1));
        assert_eq!(LeastLoaded.choose(&[candidate(1, 4), candidate(0, 1)]), Some(1));
    }

    #[test]
    fn the_first_of_equals_wins_and_nothing_has_no_best() {
        assert_eq!(LeastLoaded.choose(&[candidate(0, 4), candidate(0, 4)]), Some(0));
        assert_eq!(LeastLoaded.choose(&[]), None);
    }
}
