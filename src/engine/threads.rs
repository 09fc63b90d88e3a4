//! How many threads compute: one per physical core that this process may use.

use std::collections::HashSet;
use std::fs;

use crate::units::Indices;

/// Physical cores this process may run on, at least 1. Decoding is bound by memory and by vector units, which the threads of
/// one core share, so more threads than cores slow it down. Affinity and the container's quota count.
pub fn available() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, |count| count.get());
    physical_cores().map_or(logical, |cores| cores.clamp(1, logical))
}

/// Cores among the CPUs this process is allowed on, as Linux reports them.
fn physical_cores() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let cores: HashSet<String> = allowed
        .parse::<Indices>()
        .ok()?
        .iter()
        .filter_map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fs::read_to_string(path).ok()
        })
        .collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_thread_and_no_more_than_allowed() {
        let most = std::thread::available_parallelism().unwrap().get();
        assert!((1..=most).contains(&available()));
    }
}
