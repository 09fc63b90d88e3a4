//! What the worker is bound to: CPUs are taken here, GPUs were chosen by whoever started it and are only counted.

use crate::units::Indices;

/// Binds this thread, and those that it starts from now on, to these CPUs: all of them, or none and an error in words.
#[cfg(target_os = "linux")]
pub fn bind(cpus: &Indices) -> Result<(), String> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    let refused = |reason: &dyn std::fmt::Display| format!("cannot run on the CPUs {cpus}: {reason}");
    let this = Pid::from_raw(0);
    let mut wanted = CpuSet::new();
    cpus.iter().try_for_each(|cpu| wanted.set(cpu)).map_err(|error| refused(&error.desc()))?;
    sched_setaffinity(this, &wanted).map_err(|error| refused(&error.desc()))?;
    // The kernel leaves out what is offline, or not this control group's, and says nothing.
    let had = sched_getaffinity(this).map_err(|error| refused(&error.desc()))?;
    match cpus.iter().find(|cpu| had.is_set(*cpu) != Ok(true)) {
        None => Ok(()),
        Some(cpu) => Err(refused(&format_args!("CPU {cpu} is not there for this process"))),
    }
}

/// The same where the system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn bind(_: &Indices) -> Result<(), String> {
    Err("only on Linux can workers be bound to CPUs".to_owned())
}

/// What is wrong where a worker that is to have the GPUs `bound` sees `count` of them: it would compute on the CPU without a word.
pub fn check_gpus(bound: &Indices, count: usize) -> Result<(), String> {
    match count {
        count if count >= bound.count() => Ok(()),
        0 => Err(format!("it is to run on GPU {bound}, and sees no GPU")),
        count => Err(format!("it is to run on the GPUs {bound}, and sees only {count} of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_are_missing_are_no_silent_fallback_to_the_cpu() {
        let two: Indices = "0,2".parse().unwrap();
        assert_eq!((check_gpus(&two, 2), check_gpus(&two, 3)), (Ok(()), Ok(())));
        assert!(check_gpus(&two, 1).unwrap_err().contains("sees only 1"));
        assert!(check_gpus(&two, 0).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_is_bound_to_one_cpu_and_counts_that_one() {
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let first = own.parse::<Indices>().unwrap().iter().take(1).map(|cpu| cpu as u16).collect();
        std::thread::spawn(move || {
            bind(&first).unwrap();
            assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
            let error = bind(&"1023".parse().unwrap()).unwrap_err();
            assert!(error.starts_with("cannot run on the CPUs 1023: "), "{error}");
        })
        .join()
        .unwrap();
    }
}
