//! [`Limits`]: how much there may be in memory, and what keeps a model out of it. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::need::Need;
use crate::units::size;

/// How much there may be in memory; `None`: anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Models.
    pub count: usize,
    /// Bytes on the host, by the config.
    pub budget: Option<u64>,
    /// Bytes on the host that other processes leave.
    pub room: Option<u64>,
    /// Bytes on GPUs, all of them together.
    pub device: Option<u64>,
    /// Bytes on each GPU, by number; one that is not there has no limit of its own, nor does it count into that of all.
    pub gpus: BTreeMap<usize, u64>,
}

/// What several models take together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    count: usize,
    pub(super) host: u64,
    device: u64,
    gpus: BTreeMap<usize, u64>,
}

impl Total {
    /// Files that several map count once.
    pub(super) fn of<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Self {
        let mut total = Self::default();
        let mut mapped: BTreeMap<&Path, u64> = BTreeMap::new();
        for need in needs {
            total.count += 1;
            total.host = total.host.saturating_add(need.own());
            total.device = total.device.saturating_add(need.device);
            for (gpu, bytes) in &need.gpus {
                let there = total.gpus.entry(*gpu).or_default();
                *there = there.saturating_add(*bytes);
            }
            for (file, bytes) in &need.mapped {
                let known = mapped.entry(file).or_default();
                *known = (*known).max(*bytes);
            }
        }
        total.host = mapped.values().fold(total.host, |sum, bytes| sum.saturating_add(*bytes));
        total
    }

    fn on(&self, gpu: usize) -> u64 {
        self.gpus.get(&gpu).copied().unwrap_or(0)
    }
}

impl Limits {
    /// Whether so much can be there, whatever other processes do.
    pub(super) fn allows(&self, total: &Total) -> bool {
        let within = |bytes, limit: Option<u64>| limit.is_none_or(|limit| bytes <= limit);
        total.count <= self.count
            && within(total.host, self.budget)
            && within(self.known(total), self.device)
            && self.gpus.iter().all(|(gpu, limit)| total.on(*gpu) <= *limit)
    }

    /// Whether so much can be there now.
    pub(super) fn has_room(&self, total: &Total) -> bool {
        self.allows(total) && self.room.is_none_or(|room| total.host <= room)
    }

    /// Bytes on GPUs, without those that nobody has told anything about.
    fn known(&self, total: &Total) -> u64 {
        let unknown = total.gpus.iter().filter(|(gpu, _)| !self.gpus.contains_key(gpu));
        unknown.fold(total.device, |device, (_, bytes)| device.saturating_sub(*bytes))
    }

    /// Why `need` does not fit beside pinned models.
    pub(super) fn objection(&self, need: &Need, pinned: &Total) -> String {
        let single = Total::of([need]);
        let of_all = [
            ("memory".to_owned(), single.host, self.budget, pinned.host),
            ("GPU memory".to_owned(), self.known(&single), self.device, self.known(pinned)),
        ];
        let of_each = self.gpus.iter().map(|(gpu, limit)| {
            (format!("memory of GPU {gpu}"), single.on(*gpu), Some(*limit), pinned.on(*gpu))
        });
        let mut kinds = of_all.into_iter().chain(of_each);
        let exceeded = kinds.find_map(|(kind, needed, limit, taken)| {
            let limit = limit.filter(|limit| needed.saturating_add(taken) > *limit)?;
            Some((kind, needed, limit, taken))
        });
        let Some((kind, needed, limit, taken)) = exceeded else {
            return "every place is taken by a pinned model".to_owned();
        };
        let [needed, limit] = [needed, limit].map(size::rounded);
        let beside = match taken {
            0 => String::new(),
            taken => format!(", of which pinned models take {}", size::rounded(taken)),
        };
        format!("it needs {needed} of {kind}, and the budget is {limit}{beside}")
    }
}
