//! [`Usage`]: what memory is used for, and what is known of each model in it, for metrics and people.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Residency;
use crate::generation::Loading;
use crate::generation::seam::Cut;
use crate::library::Model;
use crate::worker::memory::{Need, Policy, Standing};

/// Bytes in use and allowed.
pub(in crate::worker) struct Usage {
    /// By device and kind.
    pub parts: [(&'static str, &'static str, u64); 4],
    /// By device; what has no limit is not there.
    pub budgets: Vec<(&'static str, u64)>,
}

/// A model in memory, on its way there, or waiting for room.
pub struct Footprint {
    /// Which.
    pub model: Arc<Model>,
    /// What its workers take together, by what was measured, else by estimate.
    pub need: Option<Need>,
    /// What its workers do without.
    pub cut: Cut,
    /// `resident`, `hushed`, `loading`, `waiting` or `leaving`.
    pub state: &'static str,
    /// How far it is, where it is on its way.
    pub loading: Option<Loading>,
    /// What loading it takes.
    pub load: Duration,
    /// Uses, lately.
    pub uses: f64,
    /// What the policy makes of it; the least leaves first.
    pub worth: f64,
    /// Why it stays, where it does.
    pub stays: Option<&'static str>,
    /// It was likely to be asked for, and nobody has yet.
    pub is_foreseen: bool,
}

impl Residency {
    /// What memory is used for.
    pub(in crate::worker) fn usage(&self) -> Usage {
        let live = self.residents.values().filter(|resident| resident.is_live());
        let needs: Vec<_> = live.filter_map(|resident| resident.need()).collect();
        let mut files: BTreeMap<&Path, u64> = BTreeMap::new();
        for (file, bytes) in needs.iter().flat_map(|need| &need.mapped) {
            let known = files.entry(file).or_default();
            *known = (*known).max(*bytes);
        }
        let sum = |part: fn(&Need) -> u64| needs.iter().map(part).sum();
        let limits = self.limits();
        let budgets = [("host", limits.budget), ("gpu", limits.device)];
        Usage {
            parts: [
                ("host", "mapped", files.values().sum()),
                ("host", "private", sum(|need| need.private)),
                ("host", "reserved", sum(|need| need.compute)),
                ("gpu", "all", sum(|need| need.device)),
            ],
            budgets: budgets.into_iter().filter_map(|(device, limit)| Some((device, limit?))).collect(),
        }
    }

    /// Who chooses who leaves.
    pub(in crate::worker) fn policy(&self) -> Policy {
        self.memory.config.policy
    }

    /// Models that were in memory at the last shutdown, the most used first.
    pub(in crate::worker) fn hot(&self) -> &[String] {
        self.memory.ledger.hot()
    }

    /// Everything that is known of models in memory and of those that wait, who would leave first first.
    pub(in crate::worker) fn footprints(&self, now: Instant) -> Vec<Footprint> {
        let occupants = self.occupants(now);
        let mut footprints: Vec<_> = self
            .residents
            .iter()
            .filter_map(|(key, resident)| {
                let occupant = occupants.iter().find(|occupant| occupant.key == *key);
                let progress = resident.progress();
                let standing = occupant.map(|occupant| occupant.standing);
                let state = match standing {
                    None if resident.wanted.is_none() => return None,
                    None => "waiting",
                    Some(Standing::Leaving) => "leaving",
                    Some(Standing::Hushed) => "hushed",
                    Some(_) if progress.is_some() => "loading",
                    Some(_) => "resident",
                };
                Some(Footprint {
                    model: Arc::clone(&resident.model),
                    need: resident.need(),
                    cut: resident.stake.cut(),
                    state,
                    loading: self.arrival(*key, resident, now),
                    load: resident.stake.load(),
                    uses: resident.stake.uses(now),
                    worth: occupant.map_or(0.0, |occupant| occupant.worth),
                    is_foreseen: resident.stake.is_foreseen,
                    stays: match standing {
                        Some(Standing::Pinned) => Some("pinned"),
                        Some(Standing::Fixed) if progress.is_some() => Some("loading"),
                        Some(Standing::Fixed) => Some("it has just come"),
                        Some(Standing::Busy) => Some("in use"),
                        _ => None,
                    },
                })
            })
            .collect();
        footprints.sort_by(|a, b| a.worth.total_cmp(&b.worth));
        footprints
    }
}
