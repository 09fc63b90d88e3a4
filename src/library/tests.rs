use serde_json::json;

use super::*;
use crate::gguf::writer::Writer;

fn config(value: serde_json::Value) -> ModelConfig {
    serde_json::from_value(value).unwrap()
}

fn library(runtime: &Path, models: &[(&str, serde_json::Value)]) -> Library {
    Library::open(models.iter().map(|(name, value)| (name.to_string(), config(value.clone()))), runtime)
}

fn tiny() -> Vec<u8> {
    Writer::default().string("general.architecture", "llama").finish()
}

#[test]
fn names_and_aliases_resolve_as_in_ollama() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(
        dir.path(),
        &[
            ("Demo", json!({"path": "builtin:demo", "aliases": ["gpt-4o-mini", "other"]})),
            ("other:8b", json!({"path": "/other.gguf"})),
            ("other", json!({"path": "/other.gguf"})),
        ],
    );
    let resolve = |name: &str| library.resolve(name).map(|named| named.map(|n| n.model.name.clone()));
    let found = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(resolve("demo"), found("Demo"));
    assert_eq!(resolve("registry.ollama.ai/library/DEMO:latest"), found("Demo"));
    assert_eq!(resolve("GPT-4o-mini:latest"), found("Demo"));
    assert_eq!(resolve("other"), found("other"));
    assert_eq!(resolve("OTHER:8B:local"), found("other:8b"));
    assert_eq!(resolve("other:7b"), Ok(None));
    assert_eq!(resolve(""), Ok(None));
    assert_eq!(resolve("no such name").unwrap_err().to_string(), "invalid model name");
}

#[test]
fn what_answers_depend_on_tells_models_apart_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let (file, adapter) = (dir.path().join("m.gguf"), dir.path().join("a.gguf"));
    std::fs::write(&file, tiny()).unwrap();
    std::fs::write(&adapter, "one").unwrap();
    let answering = |more: serde_json::Value| {
        let mut section = json!({ "path": file });
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        library(dir.path(), &[("m", section)]).models()[0].answering().unwrap()
    };
    let plain = answering(json!({}));
    assert_eq!(plain, answering(json!({ "threads": 3, "aliases": ["x"], "keep_alive": "1h" })));
    let with = answering(json!({ "adapters": { "a": { "path": adapter } } }));
    let others = [
        json!({ "system": "Be brief." }),
        json!({ "options": { "temperature": 0 } }),
        json!({ "context": 9 }),
    ];
    assert!(others.map(answering).iter().chain([&with]).all(|other| *other != plain));
    std::fs::write(&adapter, "another").unwrap();
    assert_ne!(with, answering(json!({ "adapters": { "a": { "path": adapter } } })));
}

#[test]
fn all_names_of_a_model_have_one_canonical_spelling() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &[("Demo", json!({"path": "builtin:demo", "aliases": ["other"]}))]);
    for name in ["Demo", "demo:latest", "library/DEMO", "other", "Other:latest"] {
        assert_eq!(library.canonical(name), "Demo", "{name}");
    }
    assert_eq!(library.canonical("Llama3:latest"), "llama3");
    assert_eq!(library.canonical(&library.canonical("hf.co/X/y:Q4")), "hf.co/x/y:q4");
    assert_eq!(library.canonical("No Name"), "no name");
}

#[test]
fn a_model_stays_the_same_unless_its_section_changes() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = || json!({"path": "builtin:demo", "aliases": ["one"]});
    let library = library(dir.path(), &[("a", builtin()), ("b", json!({"path": "/b.gguf"}))]);
    let model = |name: &str| library.resolve(name).unwrap().map(|named| named.model);
    let renew = |models: &[(&str, serde_json::Value)]| {
        let models = models.iter().map(|(name, value)| (name.to_string(), config(value.clone())));
        library.renew(models).iter().map(|model| model.name.clone()).collect::<Vec<_>>()
    };
    let (a, b) = (model("a").unwrap(), model("b").unwrap());
    assert_eq!(renew(&[("a", builtin()), ("c", json!({"path": "/c.gguf"}))]), ["c"]);
    assert!(Arc::ptr_eq(&a, &model("one").unwrap()));
    assert!(b.is_retired() && !a.is_retired() && model("b").is_none() && model("c").is_some());
    assert_eq!(library.configured().len(), 2);
}

#[test]
fn an_edition_lasts_while_workers_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &[("m", json!({"path": "/m.gguf"}))]);
    let model = || library.resolve("m").unwrap().unwrap().model;
    let first = model();
    let renew = |section: serde_json::Value| library.renew([("m".to_owned(), config(section))]);
    renew(json!({"path": "/m.gguf", "aliases": ["x"], "keep_alive": "1s", "pin": true, "preload": true}));
    assert_eq!((model().edition(), model().config.pin), (first.edition(), true));
    assert!(!first.is_retired(), "its workers are those of the one in its place");
    renew(json!({"path": "/m.gguf", "parallel": 2}));
    assert_ne!(model().edition(), first.edition());
    assert!(first.is_retired() && !model().is_retired());
}

#[test]
fn a_card_is_kept_until_the_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, tiny()).unwrap();
    let library = library(dir.path(), &[("m", json!({"path": path}))]);
    let model = library.resolve("m").unwrap().unwrap().model;
    let now = Instant::now();
    let first = model.card_at(now).unwrap();
    assert!(Arc::ptr_eq(&first, &model.card_at(now + LOOK_AGAIN).unwrap()));
    std::fs::write(&path, [tiny(), vec![0]].concat()).unwrap();
    assert_ne!(model.card_at(now + 2 * LOOK_AGAIN).unwrap().digest, first.digest);
}

#[test]
fn a_file_is_looked_at_once_a_second_and_a_missing_one_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let library = library(dir.path(), &[("m", json!({"path": path}))]);
    let model = library.resolve("m").unwrap().unwrap().model;
    let now = Instant::now();
    assert!(model.card_at(now).is_err());
    std::fs::write(&path, tiny()).unwrap();
    library.warm();
    assert!(model.card_at(now).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(model.card_at(now).is_ok());
    assert!(model.card_at(now + 2 * LOOK_AGAIN).is_err());
}

#[test]
fn a_full_card_has_the_tensors_and_whole_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tokens = ["a", "b", "c", "d", "e", "f"];
    let file = Writer::default().strings("tokenizer.ggml.tokens", &tokens);
    std::fs::write(&path, file.tensor("output.weight", 0, &[2]).finish()).unwrap();
    let library = library(dir.path(), &[("m", json!({"path": path}))]);
    let model = library.resolve("m").unwrap().unwrap().model;
    let (brief, full) = (model.card().unwrap(), model.full_card().unwrap());
    assert_eq!(brief.model_info["tokenizer.ggml.tokens"], serde_json::Value::Null);
    assert_eq!(full.model_info["tokenizer.ggml.tokens"], json!(tokens));
    assert_eq!((brief.tensors.len(), full.tensors.len()), (0, 1));
    assert_eq!(brief.digest, full.digest);
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.gguf");
    std::fs::write(&broken, b"hello world").unwrap();
    let library = library(
        dir.path(),
        &[
            ("missing", json!({"path": dir.path().join("none.gguf")})),
            ("folder", json!({"path": dir.path()})),
            ("broken", json!({"path": broken})),
            ("builtin", json!({"path": "builtin:nothing"})),
        ],
    );
    for (name, expected) in [
        ("missing", "No such file or directory"),
        ("folder", "not a file"),
        ("broken", "not a GGUF file"),
        ("builtin", "there is 'builtin:demo'"),
    ] {
        let error = library.resolve(name).unwrap().unwrap().model.card().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(library.models().len(), 4);
}

#[test]
fn models_are_listed_most_recently_changed_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, seconds: u64| {
        let path = dir.path().join(name);
        std::fs::write(&path, tiny()).unwrap();
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        json!({"path": path})
    };
    let models = [("old", file("a", 10)), ("gone", json!({"path": "/none"})), ("new", file("b", 20))];
    let library = library(dir.path(), &models);
    let names: Vec<_> = library.models().iter().map(|model| model.name.clone()).collect();
    assert_eq!(names, ["new", "old", "gone"]);
}

#[test]
fn the_built_in_model_becomes_a_private_file_that_is_written_once() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &[("demo", json!({"path": "builtin:demo"}))]);
    let model = library.resolve("demo").unwrap().unwrap().model;
    let path = model.file().unwrap();
    let facts = path.metadata().unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    assert_eq!(model.file().unwrap(), path);
    assert_eq!(path.metadata().unwrap().ino(), facts.ino());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
