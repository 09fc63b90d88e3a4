//! LoRA adapters, over the wire: who asks for one gets what it makes of the model, whoever else is served at the same time.

use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::executable::arriero;
use crate::fixture::Fixture;
use crate::harness::{Server, model};

fn adapter(settings: &str) -> String {
    let path = Fixture::TinyAdapter.file_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    format!("{{ path: \"{}\", {settings} }}", path.expect("the fixture can be written").display())
}

/// The fixture with the adapter as `pirate`, turned round as `parrot`, and for nothing as `mute`.
fn server(settings: &str) -> Server {
    let adapters = format!(
        "adapters: {{ pirate: {}, parrot: {}, mute: {} }}",
        adapter(""),
        adapter("scale: -1.0"),
        adapter("scale: 0")
    );
    Server::with_fixture(Fixture::TinyLlama, &format!("{adapters}, {settings}"))
}

/// The text of a completion, which must succeed, and how many tokens of its prompt were cached.
fn complete(server: &Server, model: &str, prompt: &str, extra: Value) -> (String, u64) {
    let mut body = json!({ "model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0 });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    let answer = server.post("/v1/completions", &body).json().expect("JSON");
    let text = answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    (text.to_owned(), cached.as_u64().expect("a number"))
}

#[test]
fn an_adapter_is_asked_for_as_a_model_or_by_the_field_lora() {
    let server = server("");
    let say = |model: &str, extra: Value| complete(&server, model, "Hello", extra).0;
    let [plain, pirate, parrot] = ["tiny", "pirate", "parrot"].map(|model| say(model, json!({})));
    assert!(plain != pirate && plain != parrot && pirate != parrot, "{plain:?} {pirate:?} {parrot:?}");
    assert_eq!(say("mute", json!({})), plain, "with the scale 0 it changes nothing");
    assert_eq!(say("PIRATE:latest", json!({})), pirate);
    assert_eq!(say("tiny", json!({ "lora": [{ "id": "pirate" }] })), pirate);
    assert_eq!(say("tiny", json!({ "lora": [{ "name": "pirate", "scale": -1.0 }] })), parrot);
    assert_eq!(say("pirate", json!({ "lora": [{ "id": "pirate", "scale": 0 }] })), plain);
    assert_eq!(say("pirate", json!({ "lora": [] })), plain);
    let ask =
        json!({ "model": "pirate", "prompt": "Hello", "options": { "num_predict": 16, "temperature": 0 } });
    assert_eq!(server.generate(&ask), pirate, "Ollama's API knows it too");
}

#[test]
fn an_adapter_is_listed_and_shown_as_a_model_made_of_another() {
    let server = server("");
    let models = server.get("/v1/models").json().expect("JSON")["data"].clone();
    let ids: Vec<_> = models.as_array().expect("models").iter().map(|model| &model["id"]).collect();
    assert_eq!(json!(ids), json!(["tiny:latest", "mute:latest", "parrot:latest", "pirate:latest"]));
    assert_eq!((&models[0]["parent"], &models[1]["parent"]), (&Value::Null, &json!("tiny")));
    let tags = server.get("/api/tags").json().expect("JSON")["models"].clone();
    assert_eq!(tags[3]["details"]["parent_model"], "tiny");
    assert!(tags[3]["size"].as_u64() > tags[0]["size"].as_u64());
    assert_ne!(tags[2]["digest"], tags[3]["digest"]);
    let shown = server.post("/api/show", &json!({ "model": "pirate" })).json().expect("JSON");
    let modelfile = shown["modelfile"].as_str().expect("a text");
    assert!(modelfile.contains("\nFROM ") && modelfile.contains("\nADAPTER "), "{modelfile}");
}

#[test]
fn a_default_adapter_changes_the_model_under_its_own_name() {
    let settings = format!("adapters: {{ pirate: {} }}", adapter("default: true"));
    let server = Server::with_fixture(Fixture::TinyLlama, &settings);
    let say = |model: &str, extra: Value| complete(&server, model, "Hello", extra).0;
    assert_eq!(say("tiny", json!({})), say("pirate", json!({})));
    assert_ne!(say("tiny", json!({})), say("tiny", json!({ "lora": [] })));
}

#[test]
fn requests_with_and_without_adapters_at_once_get_what_they_get_alone() {
    let asks: Vec<(&str, String, u32)> = (0..12)
        .map(|ask| (["tiny", "pirate", "parrot"][ask % 3], format!("Load {}?", ask / 3), ask as u32))
        .collect();
    let answer = |server: &Server, (model, prompt, seed): &(&str, String, u32)| {
        let sampled = json!({ "temperature": 0.7, "seed": seed, "max_tokens": 24 });
        complete(server, model, prompt, if seed % 2 == 0 { sampled } else { json!({}) }).0
    };
    let alone = server("parallel: 1");
    let apart: Vec<String> = asks.iter().map(|ask| answer(&alone, ask)).collect();
    let server = server("parallel: 12, preload: true");
    server.ready_worker("tiny");
    let together: Vec<String> = thread::scope(|scope| {
        let callers: Vec<_> = asks.iter().map(|ask| scope.spawn(|| answer(&server, ask))).collect();
        callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
    });
    assert_eq!(together, apart);
}

#[test]
fn cells_computed_with_one_adapter_are_never_used_with_another() {
    let prompt = "You carry salt over the pass. ".repeat(12);
    let fresh = server("parallel: 1, context: 1024");
    let expected = complete(&fresh, "pirate", &prompt, json!({})).0;
    for parallel in [1, 3] {
        let server = server(&format!("parallel: {parallel}, context: 1024"));
        let ask = |model: &str| complete(&server, model, &prompt, json!({}));
        let (plain, cached) = ask("tiny");
        assert_eq!(cached, 0);
        assert_eq!(ask("pirate"), (expected.clone(), 0));
        assert!(ask("pirate").1 > 100, "its own cells are there still");
        let again = ask("tiny");
        assert_eq!(again.0, plain);
        assert_eq!(again.1 > 0, parallel > 1, "one slot holds the cells of one adapter");
    }
}

#[test]
fn an_unknown_adapter_is_refused_in_the_callers_dialect() {
    let server = server("");
    let ask = json!({ "model": "tiny", "prompt": "Hello", "lora": [{ "id": "captain" }] });
    let response = server.post("/v1/completions", &ask);
    assert_eq!(response.status, 400);
    let error = response.json().expect("JSON")["error"].clone();
    assert_eq!(error["message"], "the model has no adapter \"captain\"; it has mute, parrot, pirate");
    assert_eq!(error["type"], "invalid_request_error");
    let response = server.post("/api/generate", &json!({ "model": "captain", "prompt": "Hello" }));
    assert_eq!(response.status, 404);
    assert_eq!(response.json().expect("JSON"), json!({ "error": "model 'captain' not found" }));
}

#[test]
fn what_is_wrong_with_an_adapter_is_told_and_the_others_are_served() {
    let sound = Fixture::TinyAdapter.file_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let sound = std::fs::read(sound.expect("the fixture can be written")).expect("the fixture");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let cut = folder.path().join("cut.gguf");
    std::fs::write(&cut, &sound[..sound.len() / 2]).expect("a file");
    let whole = Fixture::TinyLlama.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the fixture");
    let with = |name: &str, path: &Path| {
        let settings = format!("adapters: {{ {name}-a: {{ path: \"{}\" }} }}", path.display());
        format!("{name}: {}", model(Fixture::TinyLlama, &settings))
    };
    let embedder = model(Fixture::TinyEmbedder, &format!("adapters: {{ e-a: {} }}", adapter("")));
    let server = Server::start(&format!(
        "models: {{ {}, {}, {}, embedder: {embedder}, demo: {{ path: \"builtin:demo\" }} }}",
        with("cut", &cut),
        with("model", &whole),
        with("gone", &folder.path().join("gone.gguf")),
    ));
    for (name, words) in [
        ("cut", "cut.gguf: truncated: the data of tensor"),
        ("model", ": not a LoRA adapter"),
        ("gone", "gone.gguf: No such file"),
        ("embedder", "adapters are for models that generate"),
    ] {
        let path = if name == "embedder" { "/api/embed" } else { "/api/generate" };
        let ask =
            json!({ "model": name, "prompt": "Hello", "input": "Hello", "options": { "num_predict": 1 } });
        let response = server.post(path, &ask);
        assert_eq!(response.status, 500, "{name}");
        let error: Value = response.json().expect("JSON");
        assert!(error["error"].as_str().is_some_and(|error| error.contains(words)), "{name}: {error}");
    }
    let ask = json!({ "model": "demo", "prompt": "Hello", "options": { "num_predict": 4 } });
    assert!(!server.generate(&ask).is_empty(), "the others are served");
}

#[test]
fn check_tells_a_missing_adapter_with_its_place_and_two_defaults() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let check = |adapters: &str| {
        let file = folder.path().join("a.yaml");
        let text = format!("models:\n  tiny: {{ path: 'builtin:demo', adapters: {{ {adapters} }} }}\n");
        std::fs::write(&file, text).expect("a file");
        let output = arriero().arg("check").arg("--config").arg(&file).output().expect("arriero runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, words) = check("pirate: { path: /no/such.gguf }");
    assert_eq!(status, Some(2));
    assert!(words.contains("models.tiny.adapters.pirate.path: /no/such.gguf cannot be read"), "{words}");
    let (_, words) = check(&format!("a: {}, b: {}", adapter("default: true"), adapter("default: true")));
    assert!(words.contains("models.tiny.adapters: only one of them can be the default"), "{words}");
    let (_, words) = check(&format!("Tiny: {}", adapter("")));
    assert!(words.contains("the name \"Tiny\" is taken by models.tiny"), "{words}");
    assert_eq!(check(&format!("pirate: {}", adapter(""))), (Some(0), String::new()));
}
