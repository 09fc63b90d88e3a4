//! [`Need`]: bytes that a worker takes, by where they are. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::units::Indices;

/// Bytes that a worker takes, by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Of mapped files, by path: there once, however many workers map them.
    pub mapped: BTreeMap<PathBuf, u64>,
    /// Ordinary memory of the process, once it serves.
    pub private: u64,
    /// The same, taken by computing for the first time.
    pub compute: u64,
    /// On GPUs, all of them together.
    pub device: u64,
    /// What of that is on GPUs that were chosen, by number.
    pub gpus: BTreeMap<usize, u64>,
}

impl Need {
    /// On the host, if nobody else maps its files.
    pub fn host(&self) -> u64 {
        self.mapped.values().fold(self.own(), |sum, bytes| sum.saturating_add(*bytes))
    }

    /// On the host, without mapped files.
    pub fn own(&self) -> u64 {
        self.private.saturating_add(self.compute)
    }

    /// Of so many processes.
    pub fn times(&self, count: u64) -> Self {
        let times = |bytes: u64| bytes.saturating_mul(count);
        Self {
            mapped: self.mapped.clone(),
            private: times(self.private),
            compute: times(self.compute),
            device: times(self.device),
            gpus: self.gpus.iter().map(|(gpu, bytes)| (*gpu, times(*bytes))).collect(),
        }
    }

    /// Says on which GPUs so many of its bytes are: on all of them alike.
    pub fn put(&mut self, bytes: u64, gpus: &Indices) {
        for gpu in gpus.iter() {
            let there = self.gpus.entry(gpu).or_default();
            *there = there.saturating_add(bytes / gpus.count() as u64);
        }
    }

    /// What both take together, in one process.
    pub fn with(mut self, other: Self) -> Self {
        for (file, bytes) in other.mapped {
            let mapped = self.mapped.entry(file).or_default();
            *mapped = bytes.max(*mapped);
        }
        self.private = self.private.saturating_add(other.private);
        self.compute = self.compute.saturating_add(other.compute);
        self.device = self.device.saturating_add(other.device);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_in_a_process_add_up_and_share_their_file() {
        let need = |mapped: u64, private| Need {
            mapped: BTreeMap::from([("/m".into(), mapped)]),
            private,
            ..Need::default()
        };
        assert_eq!(need(5, 1).with(need(7, 2)), need(7, 3));
        assert_eq!(need(7, 3).host(), 10);
    }
}
