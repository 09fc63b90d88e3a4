//! The command line: what is printed, where, and the exit code.

use std::process::Output;

use crate::executable::arriero;

fn run(arguments: &[&str], config: Option<&str>) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = arriero();
    command.args(arguments);
    if let Some(config) = config {
        let path = directory.path().join("arriero.yaml");
        std::fs::write(&path, config).expect("the configuration can be written");
        command.arg("--config").arg(path);
    }
    command.output().expect("arriero runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// An unknown key, a value of a wrong type, and a value that cannot be: each of the three kinds of mistakes.
const THREE_MISTAKES: &str = "\
listen: 127.0.0.1:11434
models:
  demo:
    path: builtin:demo
    replicas: many
queue:
  depht: 512
  wait: 60 parsecs
";

#[test]
fn check_prints_all_three_mistakes_with_their_places_and_exits_2() {
    let output = run(&["check"], Some(THREE_MISTAKES));
    let text = text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for (line, key) in [(5, "models.demo.replicas"), (7, "depht"), (8, "queue.wait")] {
        let told = text.lines().any(|told| told.contains(&format!(":{line}")) && told.contains(key));
        assert!(told, "nothing about line {line}, {key}, in:\n{text}");
    }
}

#[test]
fn check_says_which_file_it_cannot_read() {
    let output = run(&["check", "--config", "/nowhere/arriero.yaml"], None);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("/nowhere/arriero.yaml"), "{}", text(&output));
}

#[test]
fn serve_with_a_bad_configuration_says_what_is_wrong_and_exits_2() {
    let output = run(&["serve"], Some(THREE_MISTAKES));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("depht"), "{}", text(&output));
}

#[test]
fn version_tells_the_version_and_how_it_computes() {
    let output = run(&["--version"], None);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    if cfg!(feature = "engine") {
        assert!(text.contains("CPU"), "no backend in {text:?}");
    }
}

/// Without AVX-512 or AVX2 reading a prompt runs at half speed or worse, and nothing else would tell.
#[test]
#[cfg(all(feature = "engine", target_arch = "x86_64"))]
fn the_engine_uses_the_vector_instructions_that_this_machine_has() {
    use crate::{fixture::Fixture, harness::Server};

    let version = text(&run(&["--version"], None));
    let server = Server::with_fixture(Fixture::TinyLlama, "preload: true");
    let (_, health) = server.ready_worker("tiny").health().expect("health");
    let in_use = health.backend.cpu_features;
    assert!(version.contains(&format!("cpu features: {}\n", in_use.join(", "))), "{in_use:?} in {version}");
    assert!(version.contains(&format!("devices: {}\n", health.backend.devices.join(", "))), "{version}");
    for (name, is_here) in [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX512", std::arch::is_x86_feature_detected!("avx512f")),
        ("AVX512_VNNI", std::arch::is_x86_feature_detected!("avx512vnni")),
    ] {
        assert_eq!(in_use.iter().any(|feature| feature == name), is_here, "{name} in {in_use:?}");
    }
}

#[test]
fn an_unknown_subcommand_is_refused() {
    let output = run(&["gallop"], None);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("gallop"));
}
