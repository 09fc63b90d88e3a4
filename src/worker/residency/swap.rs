//! Swaps: loads that another model has left for, counted because each costs what two models are in memory for.
//!
//! A swap is a load of a model that began after one or more others were evicted, for bytes or for `max_loaded`, to make room for it. Each such
//! load counts once, however many left; a load into free room is none, nor is what leaves because its time is over.

use super::Residency;
use crate::worker::memory::{Limits, Occupant, Waiting, plan};

impl Residency {
    /// Takes note of those for whom others are told to leave now. They are served in their order, so whoever adds to what those ahead of it
    /// have leave is one.
    pub(super) fn note_swaps(
        &mut self,
        occupants: &[Occupant<u64>],
        waiting: &[Waiting<u64>],
        limits: &Limits,
    ) {
        let mut before = 0;
        for (place, it) in waiting.iter().enumerate() {
            let leave = plan(occupants, &waiting[..=place], limits).evict.len();
            if let Some(resident) = self.residents.get_mut(&it.key).filter(|_| leave > before) {
                resident.stake.has_displaced = true;
            }
            before = leave;
        }
    }
}
