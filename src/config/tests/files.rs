//! The files in `conf/` are what they say they are.

use std::path::Path;

use super::*;

fn conf(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file)
}

#[test]
fn the_reference_file_is_the_defaults() {
    let sources = Sources { file: Some(conf("arriero.yaml")), ..Sources::default() };
    assert_eq!(load(&sources).unwrap().config, Config::default());
}

#[test]
fn the_reference_file_has_every_key() {
    let text = std::fs::read_to_string(conf("arriero.yaml")).unwrap();
    let mut config =
        Config { passthrough: Some(PassthroughConfig { url: "http://a".to_owned() }), ..Config::default() };
    config.cache.responses.shared = serde_json::from_value(serde_json::json!({ "url": "unix:/a" })).unwrap();
    config.nodes = vec![
        serde_json::from_value(serde_json::json!({ "name": "a", "url": "unix:/a", "models": [] })).unwrap(),
    ];
    let mut keys = Vec::new();
    collect_keys(&serde_json::to_value(&config).unwrap(), &mut keys);
    assert!(keys.contains(&"runtime_dir".to_owned()) && keys.contains(&"max_in_flight".to_owned()));
    for key in keys {
        let is_there = text.lines().any(|line| {
            line.trim_start_matches([' ', '#', '-'])
                .strip_prefix(&key)
                .is_some_and(|rest| rest.starts_with(':'))
        });
        assert!(is_there, "conf/arriero.yaml says nothing of {key}");
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                keys.push(key.clone());
                collect_keys(value, keys);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

/// The commented examples are settings too: without their comment signs they have to be right.
#[test]
fn the_comments_of_the_reference_file_are_examples_that_work() {
    let text = std::fs::read_to_string(conf("arriero.yaml")).unwrap();
    // These stand beside an example with the same key.
    let beside = [
        "nodes: []",
        "    options: {}",
        "    adapters: {}",
        "  pools: {}",
        "    models: {}",
        "  models: {}",
        "    networks: []",
        "    weights: {}",
        "  fallbacks: {}",
    ];
    let text = beside.iter().fold(text, |text, line| text.replace(&format!("{line}\n"), ""));
    let mut examples = 0;
    let lines = text.lines().map(|line| match line.split_once("# ") {
        Some((indent, example)) if indent.trim().is_empty() && is_setting(example) => {
            examples += 1;
            format!("{indent}{example}\n")
        }
        _ => format!("{line}\n"),
    });
    let config = config(&lines.collect::<String>(), &[]);
    assert_eq!(examples, 48);
    assert_eq!(config.nodes[0].name, "box");
    assert_eq!(config.models["demo"].options.top_k, Some(40));
    assert_eq!(config.models["demo"].adapters["pirate"].path, "pirate.gguf");
    assert_eq!(config.models["demo"].projector.as_deref(), Some(Path::new("/models/mmproj.gguf")));
    assert_eq!(config.cache.responses.models["small"].tool_calls, Some(true));
    assert!(config.cache.responses.shared.is_some_and(
        |shared| shared == serde_json::from_str(r#"{"url": "redis://127.0.0.1:6379/0"}"#).unwrap()
    ));
    assert!(config.models["demo"].template.is_some() && config.passthrough.is_some());
}

/// `key: value` rather than prose.
fn is_setting(comment: &str) -> bool {
    let key = comment.trim_start_matches([' ', '-']).split_once(':').map(|(key, _)| key);
    key.is_some_and(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[test]
fn every_example_file_is_sound() {
    let mut count = 0;
    for entry in std::fs::read_dir(conf("")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let loaded = load(&Sources { file: Some(file.clone()), ..Sources::default() });
            assert!(loaded.is_ok(), "{}: {:?}", file.display(), loaded.err());
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}
