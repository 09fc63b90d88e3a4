//! What is shipped besides the code: the Dockerfile refers to what is there, and lock files name no registry.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Dockerfile's instructions: keyword and the rest, continuation lines joined.
fn instructions() -> Vec<(String, String)> {
    let lines = read("Dockerfile");
    let lines = lines.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let whole = joined.lines().filter(|line| !line.trim().is_empty());
    whole
        .map(|line| line.split_once(' ').expect("keyword and arguments"))
        .map(|(keyword, rest)| (keyword.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_dockerfile_copies_only_what_exists_from_stages_that_exist() {
    let known = [
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "RUN",
        "USER",
        "WORKDIR",
    ];
    let mut stages = Vec::new();
    for (keyword, rest) in instructions() {
        assert!(known.contains(&keyword.as_str()), "{keyword} is no instruction");
        match keyword.as_str() {
            "FROM" => stages.extend(rest.split_once(" AS ").map(|(_, name)| name.to_owned())),
            "COPY" => match rest.strip_prefix("--from=") {
                Some(from) => {
                    assert!(stages.iter().any(|stage| from.starts_with(&format!("{stage} "))), "{rest}")
                }
                None => {
                    let (sources, _) = rest.rsplit_once(' ').expect("sources and a target");
                    for source in sources.split(' ') {
                        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(), "{source}");
                    }
                }
            },
            "CMD" | "ENTRYPOINT" => {
                assert!(serde_json::from_str::<Vec<String>>(&rest).is_ok(), "{rest} is not the exec form");
            }
            "HEALTHCHECK" => {
                let (_, command) = rest.split_once("CMD ").expect("a command");
                assert!(
                    serde_json::from_str::<Vec<String>>(command).is_ok(),
                    "{command} is not the exec form"
                );
            }
            _ => {}
        }
    }
    for backend in ["cpu", "cuda"] {
        for stage in ["build", "runtime"] {
            assert!(stages.contains(&format!("{stage}-{backend}")), "no stage {stage}-{backend}");
        }
    }
}

#[test]
fn what_the_build_reads_is_sent_to_the_daemon() {
    let ignored = read(".dockerignore");
    let sent: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let manifest = read("Cargo.toml");
    let paths =
        manifest.lines().filter_map(|line| line.strip_prefix("path = ")).map(|path| path.trim_matches('"'));
    for path in paths.chain(["Cargo.lock", ".cargo/config.toml", ".ci/stage-image"]) {
        let top = path.split('/').next().expect("a name");
        assert!(sent.contains(&top), "{path} is left out by .dockerignore");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
    }
}

#[test]
fn the_image_runs_as_a_numbered_user_and_exposes_both_ports() {
    let instructions = instructions();
    let last = |keyword: &str| {
        let found = instructions.iter().rfind(|(name, _)| name == keyword);
        found.map(|(_, rest)| rest.as_str()).unwrap_or_default()
    };
    assert!(last("USER").parse::<u32>().is_ok_and(|id| id > 0), "USER {}", last("USER"));
    assert_eq!(last("EXPOSE"), "11434 11435");
    assert_eq!(last("ENTRYPOINT"), "[\"arriero\"]");
}

#[test]
fn the_clients_of_the_tests_are_pinned_without_naming_a_registry() {
    let lock = read("tests/clients/node/package-lock.json");
    assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\"") && !lock.contains("://"));
    let requirements = read("tests/clients/python/requirements.txt");
    let entries = requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for entry in entries {
        assert!(entry.contains("=="), "{entry} is not pinned");
    }
}
