//! The sandbox: what a worker gives up before it opens a model, with Linux's Landlock. From then on it can read its model, what
//! goes with that (adapters, a draft model, a projector) and what computing needs, write no file but its model's snapshots, reach no network
//! by TCP, signal nobody outside and gain no privileges.

use crate::generation::seam::{Confinement, Sandbox, Spec};

/// Restricts this thread, and those that it starts from now on, as `spec` asks; tells what came of it.
pub fn enter(spec: &Spec) -> Sandbox {
    if !spec.sandbox {
        return Sandbox::default();
    }
    match restrict(spec) {
        Ok(sandbox) => sandbox,
        Err(reason) => Sandbox { state: Confinement::Unsupported, reason: Some(reason) },
    }
}

#[cfg(not(target_os = "linux"))]
fn restrict(_spec: &Spec) -> Result<Sandbox, String> {
    Err("only Linux has Landlock".to_owned())
}

#[cfg(target_os = "linux")]
fn restrict(spec: &Spec) -> Result<Sandbox, String> {
    linux::restrict(spec).map_err(|error| error.to_string())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
        RulesetStatus, Scope, path_beneath_rules,
    };

    use super::super::check;
    use super::*;

    /// Of Linux 6.12: files, TCP, devices, signals. On an older kernel as much of it as that knows is in force.
    const WANTED: ABI = ABI::V6;

    /// Libraries that backends load late (CUDA, Vulkan), and what these read.
    const LIBRARIES: [&str; 14] = [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local",
        "/opt",
        "/nix/store",
        "/run/opengl-driver",
        "/etc/ld.so.cache",
        "/etc/vulkan",
        "/etc/OpenCL",
        "/usr/share/vulkan",
        "/usr/share/nvidia",
        "/usr/share/libdrm",
    ];

    /// Counts of CPUs and memory, their topology; this process's own limits and size. Of other processes Landlock hides what
    /// matters.
    const SYSTEM: [&str; 2] = ["/proc", "/sys"];

    pub(super) fn restrict(spec: &Spec) -> Result<Sandbox, RulesetError> {
        let reads = AccessFs::ReadFile | AccessFs::ReadDir;
        let devices = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev;
        let binary = std::env::current_exe().ok().and_then(|binary| Some(binary.parent()?.to_owned()));
        let draft = spec.speculate.draft.iter().flat_map(|draft| check::parts(&draft.path));
        let saves = AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::RemoveFile;
        let saved = spec.snapshots.as_ref().map(|settings| settings.folder.as_path());
        let all_saved = saved.and_then(Path::parent);
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(WANTED))?
            .handle_access(AccessNet::from_all(WANTED))?
            .scope(Scope::from_all(WANTED))?
            .create()?
            .add_rules(path_beneath_rules(check::parts(&spec.path), AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(spec.adapters.iter().map(|own| &own.path), AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(draft, AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(&spec.projector, AccessFs::ReadFile))?
            // To remove its socket at the end.
            .add_rules(path_beneath_rules(spec.socket.parent(), AccessFs::RemoveFile))?
            .add_rules(path_beneath_rules(saved, saves))?
            // Others' snapshots can be counted and evicted, not read.
            .add_rules(path_beneath_rules(all_saved, AccessFs::ReadDir | AccessFs::RemoveFile))?
            .add_rules(path_beneath_rules(LIBRARIES, reads))?
            .add_rules(path_beneath_rules(library_path(), reads))?
            .add_rules(path_beneath_rules(binary, reads))?
            .add_rules(path_beneath_rules(SYSTEM, reads))?
            .add_rules(path_beneath_rules(self::devices(), devices))?
            .restrict_self()?;
        Ok(in_words(&status.ruleset))
    }

    fn in_words(status: &RulesetStatus) -> Sandbox {
        let (state, reason) = match status {
            RulesetStatus::FullyEnforced => (Confinement::Full, None),
            RulesetStatus::PartiallyEnforced => {
                (Confinement::Partial, Some("this kernel is older than Linux 6.12"))
            }
            RulesetStatus::NotEnforced => (Confinement::Unsupported, Some("this kernel has no Landlock")),
        };
        Sandbox { state, reason: reason.map(str::to_owned) }
    }

    fn library_path() -> Vec<PathBuf> {
        let folders = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        // An empty entry is the working directory, which is nobody's wish.
        std::env::split_paths(&folders).filter(|folder| folder.is_absolute()).collect()
    }

    /// The devices to compute with, and those that any program may use.
    fn devices() -> Vec<PathBuf> {
        let is_gpu = |name: &str| name.starts_with("nvidia") || ["dri", "kfd", "dxg"].contains(&name);
        let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let gpus = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_gpu));
        let common = ["null", "zero", "urandom", "random"].map(|name| Path::new("/dev").join(name));
        gpus.map(|entry| entry.path()).chain(common).collect()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn spec(folder: &Path, sandbox: bool) -> Spec {
        let (path, socket) = (folder.join("m.gguf"), folder.join("m.sock"));
        std::fs::write(&path, "GGUF").unwrap();
        serde_json::from_value(json!({
            "name": "m", "path": path, "socket": socket, "context": 0, "parallel": 1, "threads": 0, "batch": 512,
            "kv_type": "f16", "gpu_layers": 0, "mmap": true, "sandbox": sandbox,
        }))
        .unwrap()
    }

    /// Runs `test` with the sandbox entered. Landlock restricts threads: the rest of the tests stays free.
    fn within(sandbox: bool, test: impl FnOnce(&Spec, &Sandbox) + Send + 'static) {
        let inside = move || {
            let folder = tempfile::tempdir().unwrap();
            let spec = spec(folder.path(), sandbox);
            let entered = enter(&spec);
            test(&spec, &entered);
            // The restricted thread cannot remove the folder itself.
            folder.keep()
        };
        let folder = std::thread::spawn(inside).join().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn is_denied<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn inside_the_model_can_be_read_and_little_else_done() {
        within(true, |spec, entered| {
            if entered.state == Confinement::Unsupported {
                assert!(entered.reason.is_some());
                return;
            }
            assert!(File::open(&spec.path).is_ok(), "the model");
            assert!(std::fs::read("/proc/self/statm").is_ok(), "its own size");
            assert!(is_denied(File::open("/etc/passwd")), "other files");
            assert!(is_denied(OpenOptions::new().write(true).open(&spec.path)), "writing the model");
            assert!(is_denied(File::create(spec.socket.with_extension("new"))), "new files");
            assert!(is_denied(std::process::Command::new("/bin/true").status()), "programs");
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            if entered.state == Confinement::Full {
                assert!(is_denied(TcpListener::bind("127.0.0.1:0")), "listening");
                assert!(is_denied(TcpStream::connect("127.0.0.1:9")), "connecting");
            }
        });
    }

    #[test]
    fn inside_snapshots_of_the_model_can_be_written_and_those_of_others_only_removed() {
        let inside = || {
            let folder = tempfile::tempdir().unwrap();
            let (own, other) = (folder.path().join("all/own"), folder.path().join("all/other"));
            [&own, &other].into_iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
            std::fs::write(other.join("a"), "a").unwrap();
            let mut spec = spec(folder.path(), true);
            spec.snapshots = serde_json::from_value(
                json!({ "folder": own, "budget": 1, "min_tokens": 1, "patience": "1s" }),
            )
            .unwrap();
            if enter(&spec).state == Confinement::Unsupported {
                return folder.keep();
            }
            std::fs::write(own.join("a.partial"), "a").unwrap();
            std::fs::rename(own.join("a.partial"), own.join("a")).unwrap();
            assert_eq!(std::fs::read(own.join("a")).unwrap(), b"a");
            File::open(own.join("a")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            assert!(is_denied(File::open(other.join("a"))), "what others have read of prompts");
            assert!(is_denied(File::create(other.join("b"))));
            assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
            std::fs::remove_file(other.join("a")).unwrap();
            std::fs::remove_file(own.join("a")).unwrap();
            folder.keep()
        };
        let folder = std::thread::spawn(inside).join().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn switched_off_it_restricts_nothing() {
        within(false, |_, entered| {
            assert_eq!(entered.state, Confinement::Off);
            assert!(File::open("/etc/passwd").is_ok());
        });
    }
}
