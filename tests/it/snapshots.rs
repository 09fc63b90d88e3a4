//! Prompts that were read by a process that is gone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::Request;

/// A server whose snapshots are in `folder`.
fn server(folder: &Path, settings: &str) -> Server {
    Server::start(&config(folder, settings))
}

fn config(folder: &Path, settings: &str) -> String {
    let tiny = model(Fixture::TinyLlama, &format!("context: 1024, {settings}"));
    let snapshots = format!("{{ dir: {}, min_tokens: 32 }}", folder.display());
    format!("models: {{ tiny: {tiny} }}\nworkers: {{ snapshots: {snapshots} }}")
}

/// What was said, how many tokens the prompt has, and how many of them did not have to be read.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    text: String,
    prompt: u64,
    cached: u64,
}

fn ask(server: &Server, prompt: &str) -> Answer {
    let ask = json!({ "model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0 });
    let response = server.post("/v1/completions", &ask);
    assert_eq!(response.status, 200);
    let answer = response.json().expect("JSON");
    let usage = &answer["usage"];
    Answer {
        text: answer["choices"][0]["text"].as_str().expect("text").to_owned(),
        prompt: usage["prompt_tokens"].as_u64().expect("a number"),
        cached: usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number"),
    }
}

fn system(seed: usize) -> String {
    format!("Rule {seed}: you carry salt over the pass. ").repeat(12)
}

/// Ends the server as an operator does.
fn stop(mut server: Server) {
    server.signal(Signal::SIGTERM);
    assert!(server.exit().success());
}

/// Every file below the root.
fn files(root: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root).expect("the root").flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).expect("a folder").flatten());
    files.map(|file| file.path()).collect()
}

fn events(server: &Server, event: &str) -> f64 {
    server.metric("arriero_snapshots_total", &format!("event=\"{event}\""))
}

fn save(server: &Server) -> Value {
    let response = Request::new("POST", "/admin/v1/models/tiny/snapshot").send(&server.admin);
    let response = response.expect("an answer");
    assert_eq!(response.status, 200);
    response.json().expect("JSON")
}

/// A folder in which the answer to one prompt has left its snapshot, with what was asked and answered.
fn saved() -> (TempDir, String, Answer) {
    let folder = tempfile::tempdir().expect("a folder");
    let prompt = format!("{}\nWho are you?", system(1));
    let first = server(folder.path(), "");
    let cold = ask(&first, &prompt);
    assert_eq!(cold.cached, 0);
    stop(first);
    assert_eq!(files(folder.path()).len(), 1);
    (folder, prompt, cold)
}

#[test]
fn after_a_restart_a_prompt_is_not_read_again_and_is_answered_the_same() {
    let (folder, prompt, cold) = saved();
    let file = files(folder.path()).remove(0);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));

    let second = server(folder.path(), "");
    let warm = ask(&second, &prompt);
    assert_eq!((warm.text, warm.prompt), (cold.text, cold.prompt));
    assert!(warm.cached as f64 >= 0.95 * cold.prompt as f64, "{} of {}", warm.cached, cold.prompt);
    until_true("it is counted", || events(&second, "restored") == 1.0);
    assert_eq!(second.metric("arriero_snapshot_restored_tokens_total", "tiny"), warm.cached as f64);
    assert!(second.metric("arriero_snapshot_bytes", "tiny") > 1000.0);

    // Another question under the same system prompt, which only the one before has brought here.
    let other = format!("{}\nWhere do you go?", system(1));
    let third = server(folder.path(), "");
    let (shared, alone) = (ask(&third, &other), ask(&server(Path::new("/dev/null"), ""), &other));
    assert_eq!(shared.text, alone.text);
    assert!(shared.cached as f64 >= 0.9 * shared.prompt as f64, "{} of {}", shared.cached, shared.prompt);
    assert_eq!(alone.cached, 0);
}

#[test]
fn callers_that_come_together_after_a_restart_share_what_is_restored() {
    let (folder, _, _) = saved();
    let (cold, warm) = (server(Path::new("/dev/null"), "parallel: 4"), server(folder.path(), ""));
    let prompts: Vec<String> = (0..4).map(|caller| format!("{}\nCaller {caller}?", system(1))).collect();
    let expected: Vec<_> = prompts.iter().map(|prompt| ask(&cold, prompt).text).collect();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let callers: Vec<_> = prompts.iter().map(|prompt| scope.spawn(|| ask(&warm, prompt))).collect();
        callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
    });
    for (answer, expected) in answers.iter().zip(expected) {
        assert_eq!(answer.text, expected);
        assert!(answer.cached as f64 >= 0.9 * answer.prompt as f64, "{answer:?}");
    }
}

#[test]
fn a_model_that_is_unloaded_comes_back_with_what_it_had_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path(), "");
    let cold = ask(&server, &system(2));
    server.post("/api/generate", &json!({ "model": "tiny", "keep_alive": 0 }));
    until_true("its worker is gone", || server.workers().is_empty());
    let warm = ask(&server, &system(2));
    assert_eq!(warm.text, cold.text);
    assert!(warm.cached as f64 >= 0.95 * cold.prompt as f64, "{warm:?}");
}

#[test]
fn on_request_it_is_saved_once_and_outlives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = server(folder.path(), "");
    let cold = ask(&first, &system(3));
    let answer = save(&first);
    let worker = &answer["workers"]["tiny-0"];
    assert_eq!(worker["snapshots"], 1, "{answer}");
    assert!(worker["tokens"].as_u64() >= Some(cold.prompt), "{answer}");
    for _ in 0..3 {
        assert_eq!(save(&first)["workers"]["tiny-0"]["snapshots"], 0, "it is there already");
    }
    until_true("it is counted", || events(&first, "saved") == 1.0);
    let workers = first.workers();
    workers.iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    first.signal(Signal::SIGKILL);
    let warm = ask(&server(folder.path(), ""), &system(3));
    assert_eq!(warm.text, cold.text);
    assert!(warm.cached as f64 >= 0.95 * cold.prompt as f64, "{warm:?}");

    let off = server(Path::new("/dev/null"), "");
    ask(&off, "Hello");
    let refused = Request::new("POST", "/admin/v1/models/tiny/snapshot").send(&off.admin).expect("an answer");
    assert_eq!(refused.status, 400);
    let unknown = Request::new("POST", "/admin/v1/models/nobody/snapshot").send(&off.admin);
    assert_eq!(unknown.expect("an answer").status, 404);
}

#[test]
fn a_file_that_is_damaged_or_foreign_is_ignored_with_a_warning() {
    let (folder, prompt, cold) = saved();
    let file = files(folder.path()).remove(0);
    let sound = std::fs::read(&file).expect("it can be read");
    let other = {
        // The same model under other settings saves under another name.
        let elsewhere = tempfile::tempdir().expect("a folder");
        let server = server(elsewhere.path(), "parallel: 2");
        ask(&server, &prompt);
        stop(server);
        let file = files(elsewhere.path()).remove(0);
        std::fs::read(file).expect("it can be read")
    };
    let changed = |at: usize| {
        let mut content = sound.clone();
        content[at] ^= 0x10;
        content
    };
    let cases = [
        ("damaged", changed(sound.len() / 2)),
        ("damaged", changed(sound.len() - 1)),
        ("damaged", sound[..sound.len() / 2].to_vec()),
        ("damaged", Vec::new()),
        ("foreign", changed(8)),
        ("foreign", changed(20)),
        ("foreign", other),
        ("foreign", vec![b'x'; 5000]),
    ];
    for (case, (event, content)) in cases.into_iter().enumerate() {
        std::fs::write(&file, &content).expect("it can be written");
        let server = server(folder.path(), "");
        assert_eq!(ask(&server, &prompt), cold, "case {case}");
        until_true("it is counted", || events(&server, event) == 1.0);
        let warned = |line: &Value| line["level"] == "WARN" && line.to_string().contains("is ignored");
        until_true("there is a warning", || server.log().iter().any(warned));
        // Killed, lest it saves the same again.
        server.workers().iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    }
    std::fs::write(&file, &sound).expect("it can be written");
    assert!(ask(&server(folder.path(), ""), &prompt).cached > 0, "the sound one is used");
}

/// A server has read a prompt and ended. What another one says then: behind the answer (`context`), and to a prompt that begins like
/// the first; and how many tokens it did not have to read for each.
fn goes_on(folder: &Path, fixture: Fixture) -> [(String, f64); 2] {
    let tiny = model(fixture, "context: 1024, parallel: 2");
    let snapshots = format!("{{ dir: {}, min_tokens: 32 }}", folder.display());
    let config = format!("models: {{ tiny: {tiny} }}\nworkers: {{ snapshots: {snapshots} }}");
    let say = |server: &Server, prompt: &str, context: &Value| {
        let ask = json!({ "model": "tiny", "prompt": prompt, "context": context, "stream": false,
                          "options": { "num_predict": 12, "temperature": 0 } });
        let answer = server.post("/api/generate", &ask).json().expect("JSON");
        (answer["response"].as_str().expect("text").to_owned(), answer["context"].clone())
    };
    let first = Server::start(&config);
    let (_, context) = say(&first, &system(6), &json!([]));
    stop(first);
    let second = Server::start(&config);
    let tokens = |kind: &str| second.metric("arriero_tokens_total", &format!("type=\"{kind}\""));
    let alike = format!("{}You rest.", &system(6)[..200]);
    [("And then?", &context), (&alike, &json!([]))].map(|(prompt, context)| {
        let (said, cached) = (tokens("completion"), tokens("cached"));
        let (text, _) = say(&second, prompt, context);
        until_true("it is counted", || tokens("completion") > said);
        (text, tokens("cached") - cached)
    })
}

#[test]
fn where_cells_cannot_be_cut_a_snapshot_is_used_as_a_whole_and_never_changes_an_answer() {
    for fixture in [Fixture::TinyLlama, Fixture::TinySliding, Fixture::TinyRecurrent] {
        let folder = tempfile::tempdir().expect("a folder");
        let [behind, alike] = goes_on(folder.path(), fixture);
        let [behind_cold, alike_cold] = goes_on(Path::new("/dev/null"), fixture);
        assert_eq!((&behind.0, &alike.0), (&behind_cold.0, &alike_cold.0), "{fixture:?}");
        assert_eq!(behind_cold.1, 0.0, "{fixture:?}");
        assert!(behind.1 > 100.0, "{fixture:?} goes on behind what it had read: {}", behind.1);
        let is_cut = alike.1 > 0.0;
        assert_eq!(is_cut, matches!(fixture, Fixture::TinyLlama), "{fixture:?} {alike:?}");
    }
}

#[test]
fn on_a_full_disk_nothing_is_saved_and_nothing_is_lost() {
    let (folder, prompt, cold) = saved();
    let before = files(folder.path());
    // Files may have 4 KB, and who writes more is told so.
    let full = Server::start_after("trap '' XFSZ; ulimit -f 8", &config(folder.path(), ""));
    assert_eq!(ask(&full, &prompt).text, cold.text, "what is there can be read");
    let (new, again) = (ask(&full, &system(4)), ask(&full, &system(4)));
    assert_eq!(save(&full)["workers"]["tiny-0"]["snapshots"], 0);
    until_true("it is counted", || events(&full, "failed") >= 1.0);
    let warned = |line: &Value| line["level"] == "WARN" && line.to_string().contains("are not saved");
    until_true("there is a warning", || full.log().iter().any(warned));
    assert_eq!((new.text, again.cached + 1), (again.text, again.prompt), "it serves on");
    stop(full);
    assert_eq!(files(folder.path()), before);
}

#[test]
fn replicas_save_into_one_folder_and_each_finds_what_the_others_saved() {
    const PROMPTS: usize = 3;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "replicas: 2, parallel: 4, preload: true";
    let first = server(folder.path(), settings);
    until_true("both are ready", || first.metric("arriero_model_loaded", "tiny") == 2.0);
    let all = |server: &Server| -> Vec<Answer> {
        thread::scope(|scope| {
            // Each twice, so that both replicas have most of them.
            let callers: Vec<_> = (0..2 * PROMPTS)
                .map(|i| scope.spawn(move || ask(server, &system(10 + i % PROMPTS))))
                .collect();
            callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
        })
    };
    let cold = all(&first);
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| save(&first)))));
    stop(first);
    let names: Vec<_> = files(folder.path());
    assert!(names.iter().all(|name| name.extension().is_some_and(|e| e == "snapshot")), "{names:?}");

    let second = server(folder.path(), settings);
    until_true("both are ready", || second.metric("arriero_model_loaded", "tiny") == 2.0);
    for (cold, warm) in cold.iter().zip(all(&second)) {
        assert_eq!(warm.text, cold.text);
        assert!(warm.cached as f64 >= 0.95 * cold.prompt as f64, "{warm:?}");
    }
    assert_eq!(events(&second, "damaged") + events(&second, "foreign"), 0.0);
}
