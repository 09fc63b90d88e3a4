//! [`Host`]: how much memory this machine has and has left, for this process: what the kernel says, or the limit of the control
//! group it runs in, whichever is less. Read from `/proc` and `/sys/fs/cgroup`; nothing else.

use std::path::{Path, PathBuf};

/// Bytes of ordinary memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// All there is.
    pub total: u64,
    /// What could be taken now without swapping: what is free, and what only caches files (mapped models too).
    pub available: u64,
}

impl Host {
    /// As of now; `None` where the system does not say.
    pub fn read() -> Option<Self> {
        Self::read_in(Path::new("/"))
    }

    /// The same with another root of the file system.
    fn read_in(root: &Path) -> Option<Self> {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let machine = meminfo(&text("proc/meminfo")?)?;
        let groups = text("proc/self/cgroup").unwrap_or_default();
        let limits = groups.lines().flat_map(|line| limits(root, line));
        Some(limits.fold(machine, |least, limit| Self {
            total: least.total.min(limit.total),
            available: least.available.min(limit.available),
        }))
    }
}

/// `MemTotal` and `MemAvailable` are in KiB.
fn meminfo(text: &str) -> Option<Host> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Host { total: value("MemTotal:")?, available: value("MemAvailable:")? })
}

/// The limits that a line of `/proc/self/cgroup` leads to: those of the group and of all around it.
fn limits(root: &Path, line: &str) -> Vec<Host> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mount, files) = match controllers {
        "" => {
            ("sys/fs/cgroup", Files { limit: "memory.max", used: "memory.current", cache: "inactive_file " })
        }
        list if list.split(',').any(|name| name == "memory") => (
            "sys/fs/cgroup/memory",
            Files {
                limit: "memory.limit_in_bytes",
                used: "memory.usage_in_bytes",
                cache: "total_inactive_file ",
            },
        ),
        _ => return Vec::new(),
    };
    let mount = root.join(mount);
    // Inside a container the path may be that outside of it; then there is the mount itself.
    let group = mount.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|folder| folder.starts_with(&mount));
    groups.filter_map(|folder| files.read(folder)).collect()
}

/// How a version of control groups calls what is of interest.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`.
    cache: &'static str,
}

impl Files {
    /// `None`: no limit there.
    fn read(&self, folder: &Path) -> Option<Host> {
        let text = |name: &str| std::fs::read_to_string(PathBuf::from(folder).join(name)).ok();
        let number = |name| text(name)?.trim().parse::<u64>().ok();
        let (total, used) = (number(self.limit)?, number(self.used)?);
        let stat = text("memory.stat").unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse().ok());
        let available = total.saturating_sub(used.saturating_sub(cache.unwrap_or(0)));
        Some(Host { total, available })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    /// A file system of these files.
    fn host(files: &[(&str, &str)]) -> Option<Host> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Host::read_in(root.path())
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    800 kB\n");

    #[test]
    fn without_a_limit_it_is_the_machine_that_counts() {
        let machine = Some(Host { total: 1000 * KIB, available: 800 * KIB });
        assert_eq!(host(&[MEMINFO]), machine);
        let unlimited = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user\n"),
            ("sys/fs/cgroup/user/memory.max", "max\n"),
            ("sys/fs/cgroup/user/memory.current", "7\n"),
        ];
        assert_eq!(host(&unlimited), machine);
        assert_eq!(host(&[]), None);
    }

    #[test]
    fn the_limit_of_any_group_around_it_counts_and_its_cache_does_not() {
        let limited = [
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "512000\n"),
            ("sys/fs/cgroup/outer/memory.current", "300000\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 100000\ninactive_file 200000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
        ];
        assert_eq!(host(&limited), Some(Host { total: 512_000, available: 412_000 }));
    }

    #[test]
    fn the_first_version_of_groups_has_other_names() {
        let limited = [
            MEMINFO,
            ("proc/self/cgroup", "12:cpu:/x\n3:memory,other:/docker/abc\n0::/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "400000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 50000\n"),
        ];
        assert_eq!(host(&limited), Some(Host { total: 400_000, available: 350_000 }));
    }

    #[test]
    fn this_machine_has_memory() {
        let host = Host::read().unwrap();
        assert!(host.available > 0 && host.available <= host.total);
    }
}
