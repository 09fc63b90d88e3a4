//! The configuration as a whole: every kind of mistake, who overrides whom, and the files in `conf/`.

use std::path::Path as FilePath;
use std::time::Duration;

use super::*;
use crate::generation::seam::KvType;
use crate::routing::StrategyName;
use crate::telemetry::LogLevel;
use crate::units::KeepAlive;

/// What `text` as `a.yaml` and `env` make.
fn read(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, text).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let prefix = format!("{}/", directory.path().display());
    load(&Sources { file: Some(file), env, ..Sources::default() })
        .map_err(|problems| problems.iter().map(|p| p.to_string().replace(&prefix, "")).collect())
}

fn config(text: &str, env: &[(&str, &str)]) -> Config {
    read(text, env).unwrap().config
}

#[test]
fn every_kind_of_mistake_has_its_place_and_its_words() {
    let mut wrong = Vec::new();
    for (text, problems) in [
        // The file.
        ("a: [", vec!["a.yaml:2:1: while parsing a node, did not find expected node content"]),
        ("- a", vec!["a.yaml:1:1: expected a mapping of sections"]),
        ("listen: :1\n---\n{}", vec!["a.yaml:2:1: a second document starts here, expected one"]),
        (
            "threads: 1\nheaders: true\nthreads: 2",
            vec!["a.yaml:3:1: the key \"threads\" is here a second time, first at a.yaml:1:1"],
        ),
        ("[1]: 2", vec!["a.yaml:1:1: a list or mapping as a key, expected a text"]),
        ("threads: !!int x", vec!["a.yaml:1:10: \"x\" is not what its tag says"]),
        // Keys.
        ("queue:\n  depht: 1", vec!["a.yaml:2:3: queue.depht: unknown key, did you mean \"depth\"?"]),
        ("queue: { size: 1 }", vec!["a.yaml:1:10: queue.size: unknown key, expected one of: depth, wait"]),
        (
            "models: { a: { path: 'builtin:demo', options: { temprature: 1 } } }",
            vec!["a.yaml:1:49: models.a.options.temprature: unknown key, did you mean \"temperature\"?"],
        ),
        ("models:\n  a: { context: 1 }", vec!["a.yaml:2:3: models.a.path: required, but missing"]),
        ("models:\n  a:", vec!["a.yaml:2:3: models.a.path: required, but missing"]),
        ("nodes: [{ name: a }]", vec!["a.yaml:1:8: nodes[0].url: required, but missing"]),
        // Kinds of values.
        ("queue: 5", vec!["a.yaml:1:8: queue: expected a mapping, found 5"]),
        ("queue: [1, 60s]", vec!["a.yaml:1:8: queue: expected a mapping, found a list"]),
        ("models: [a]", vec!["a.yaml:1:9: models: expected a mapping, found a list"]),
        ("nodes: {}", vec!["a.yaml:1:8: nodes: expected a list, found a mapping"]),
        ("threads: -1", vec!["a.yaml:1:10: threads: expected a whole number from 0, found -1"]),
        ("threads: 1.5", vec!["a.yaml:1:10: threads: expected a whole number from 0, found 1.5"]),
        ("threads: '1'", vec!["a.yaml:1:10: threads: expected a whole number from 0, found \"1\""]),
        ("headers: yes", vec!["a.yaml:1:10: headers: expected true or false, found \"yes\""]),
        ("origins: [a://b, 5]", vec!["a.yaml:1:18: origins[1]: expected a text, found 5"]),
        (
            "routing: { strategy: fastest }",
            vec!["a.yaml:1:22: routing.strategy: expected least_loaded or round_robin, found \"fastest\""],
        ),
        (
            "log: { level: 3 }",
            vec!["a.yaml:1:15: log.level: expected error or warn or info or debug or trace, found 3"],
        ),
        (
            "queue: { wait: 60 }",
            vec![
                "a.yaml:1:16: queue.wait: expected a duration such as \"500ms\", \"5s\" or \"1m30s\", found 60",
            ],
        ),
        (
            "limits: { body: 8G }",
            vec![
                "a.yaml:1:17: limits.body: expected a size such as \"8GiB\", \"100MB\" or a number of bytes, found \"8G\"",
            ],
        ),
        (
            "listen: here",
            vec!["a.yaml:1:9: listen: expected an address such as 127.0.0.1:11434, found \"here\""],
        ),
        ("admin: false", vec!["a.yaml:1:8: admin: expected a text, found false"]),
        (
            "admin: on",
            vec!["a.yaml:1:8: admin: expected an address such as 127.0.0.1:11435, or off, found \"on\""],
        ),
        // References.
        (
            "log: { level: \"${LEVEL}\" }",
            vec![
                "a.yaml:1:15: log.level: the environment variable LEVEL is not set; ${LEVEL:-default} would do without",
            ],
        ),
        // A value from the environment or a file may be a secret.
        (
            "threads: ${SECRET}",
            vec![
                "a.yaml:1:10: threads: expected a whole number from 0, found something else behind the ${...}",
            ],
        ),
        // Rules of a section.
        (
            "models: { a: { path: 'builtin:x', replicas: 0, parallel: 0, batch: 0, gpu_layers: -2 } }",
            vec![
                "a.yaml:1:22: models.a.path: the only built-in model is builtin:demo",
                "a.yaml:1:45: models.a.replicas: must be at least 1",
                "a.yaml:1:58: models.a.parallel: must be at least 1",
                "a.yaml:1:68: models.a.batch: must be at least 1",
                "a.yaml:1:83: models.a.gpu_layers: must be -1 (all that fit) or more",
            ],
        ),
        (
            "nodes: [{ name: a, url: http://b, models: [], max_in_flight: 0 }]",
            vec![
                "a.yaml:1:25: nodes[0].url: expected unix:/path/of/socket, found \"http://b\"",
                "a.yaml:1:43: nodes[0].models: must name at least one model",
                "a.yaml:1:62: nodes[0].max_in_flight: must be at least 1",
            ],
        ),
        (
            "workers: { probe_interval: 0, restart_backoff: 1m, runtime_dir: run }",
            vec![
                "a.yaml:1:1: workers.restart_backoff_max: must not be less than restart_backoff, which is 1m",
                "a.yaml:1:28: workers.probe_interval: must be more than 0",
                "a.yaml:1:65: workers.runtime_dir: must be an absolute path",
            ],
        ),
        (
            "workers: { restart_backoff: 0 }",
            vec!["a.yaml:1:29: workers.restart_backoff: must be more than 0"],
        ),
        (
            "limits: { body: 0, client_write: 0 }",
            vec![
                "a.yaml:1:17: limits.body: must be more than 0",
                "a.yaml:1:34: limits.client_write: must be more than 0",
            ],
        ),
        (
            "passthrough: { url: https://a }",
            vec!["a.yaml:1:21: passthrough.url: expected http://host:port, found \"https://a\""],
        ),
        (
            "origins: [example.com]",
            vec!["a.yaml:1:11: origins[0]: expected * or scheme://host, found \"example.com\""],
        ),
        // Rules between sections.
        (
            "listen: 127.0.0.1:1\nadmin: 127.0.0.1:1",
            vec!["a.yaml:2:8: admin: must differ from listen, which is 127.0.0.1:1 too"],
        ),
        (
            "models:\n  a: { path: 'builtin:demo', aliases: [b, 'A:latest'] }\n  B: { path: 'builtin:demo' }",
            vec![
                "a.yaml:2:40: models.a.aliases[0]: the name \"b\" is taken by models.B",
                "a.yaml:2:43: models.a.aliases[1]: the name \"A:latest\" is taken by models.a",
            ],
        ),
        (
            "models: { a: { path: 'builtin:demo' } }\nnodes: [{ name: a, url: 'unix:/b', models: [a] }]",
            vec!["a.yaml:2:17: nodes[0].name: the name \"a\" is taken by models.a"],
        ),
        (
            "models: { 'a b': { path: 'builtin:demo' } }",
            vec![
                "a.yaml:1:11: models.a b: \"a b\" cannot be a name: expected letters, digits and any of _ - . : / after a letter, digit or _",
            ],
        ),
    ] {
        let found = read(text, &[("SECRET", "hunter2")]).map(|_| ()).unwrap_err();
        if found != problems {
            wrong.push(format!("in {text}\n found {found:#?}\n expected {problems:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_of_a_file_come_at_once_and_in_its_order() {
    let text = "\
listne: 127.0.0.1:1
models:
  a: { context: many }
  b: { path: 'builtin:demo', replicas: 0 }
nodes:
  - 5
  - { name: x, url: nowhere, models: [a] }
queue: { depth: 1, depth: 2, wait: soon }
headers: ${NONE}
";
    let found = read(text, &[("ARRIERO__QUEUE__SIZE", "3")]).unwrap_err();
    let places: Vec<&str> = found.iter().map(|p| p.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "a.yaml:1:1",
            "a.yaml:3:3",
            "a.yaml:3:17",
            "a.yaml:4:40",
            "a.yaml:6:5",
            "a.yaml:7:21",
            "a.yaml:8:20",
            "a.yaml:8:36",
            "a.yaml:9:10",
            "ARRIERO__QUEUE__SIZE",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let sources = Sources { file: Some("/no/such.yaml".into()), ..Sources::default() };
    let problems: Vec<String> = load(&sources).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["/no/such.yaml: cannot be read: No such file or directory (os error 2)"]);
}

#[test]
fn a_missing_model_file_does_not_keep_the_rest_from_being_served() {
    let loaded = read("models: { a: { path: /no/such.gguf } }", &[]).unwrap();
    let missing = &loaded.missing_files[0];
    assert_eq!(missing.path.to_string(), "models.a.path");
    assert_eq!(missing.message, "/no/such.gguf cannot be read: No such file or directory (os error 2)");
}

#[test]
fn flags_override_variables_override_the_file_overrides_ollama_overrides_defaults() {
    let all = [("ARRIERO__LISTEN", "127.0.0.1:3"), ("OLLAMA_HOST", "127.0.0.1:1")];
    let file = "listen: 127.0.0.1:2";
    let port = |text: &str, env: &[(&str, &str)]| config(text, env).listen.port();
    assert_eq!(port("", &[]), 11434);
    assert_eq!(port("", &all[1..]), 1);
    assert_eq!(port(file, &all[1..]), 2);
    assert_eq!(port(file, &all), 3);
    let env = all.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let sources = Sources { env, listen: Some(":4".to_owned()), admin: Some("off".to_owned()), file: None };
    let config = load(&sources).unwrap().config;
    assert_eq!((config.listen.port(), config.admin), (4, None));
}

#[test]
fn a_bad_flag_is_named() {
    let sources = Sources { listen: Some("x".to_owned()), ..Sources::default() };
    let problems: Vec<String> = load(&sources).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["--listen: listen: expected an address such as 127.0.0.1:11434, found \"x\""]);
}

#[test]
fn variables_reach_sections_models_and_list_entries() {
    let text = "\
models:
  llama3.2: { path: 'builtin:demo' }
nodes: [{ name: x, url: 'unix:/a', models: [m] }]
";
    let config = config(
        text,
        &[
            ("ARRIERO__QUEUE__DEPTH", "10"),
            ("ARRIERO__MODELS__LLAMA3_2__CONTEXT", "2048"),
            ("ARRIERO__MODELS__SMALL", "{path: 'builtin:demo', aliases: [s]}"),
            ("ARRIERO__MODELS__SMALL__PARALLEL", "2"),
            ("ARRIERO__NODES__0__MAX_IN_FLIGHT", "9"),
            ("ARRIERO__ORIGINS", "[a://b]"),
            ("ARRIERO_CONFIG", "not a setting"),
        ],
    );
    assert_eq!(config.queue.depth, 10);
    assert_eq!(config.models["llama3.2"].context, 2048);
    assert_eq!(config.models["small"].aliases, ["s"]);
    assert_eq!(config.models["small"].parallel, 2);
    assert_eq!(config.nodes[0].max_in_flight, 9);
    assert_eq!(config.origins, ["a://b"]);
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    for (name, value, problem) in [
        (
            "ARRIERO__QUEUE__DEPTH",
            "x",
            "ARRIERO__QUEUE__DEPTH: queue.depth: expected a whole number from 0, found \"x\"",
        ),
        ("ARRIERO__QUEU__DEPTH", "1", "ARRIERO__QUEU__DEPTH: queu: unknown key, did you mean \"queue\"?"),
        ("ARRIERO__QUEUE____DEPTH", "1", "ARRIERO__QUEUE____DEPTH: expected ARRIERO__SECTION__KEY"),
        ("ARRIERO__THREADS__MAX", "1", "ARRIERO__THREADS__MAX: there is nothing that MAX could be a part of"),
        ("ARRIERO__ORIGINS__5", "a://b", "ARRIERO__ORIGINS__5: there is nothing that 5 could be a part of"),
    ] {
        assert_eq!(read("threads: 1\norigins: []", &[(name, value)]).unwrap_err(), [problem]);
    }
}

#[test]
fn ollamas_variables_are_defaults() {
    let env = [
        ("OLLAMA_KEEP_ALIVE", "-1"),
        ("OLLAMA_NUM_PARALLEL", "7"),
        ("OLLAMA_CONTEXT_LENGTH", "1024"),
        ("OLLAMA_MAX_LOADED_MODELS", "2"),
        ("OLLAMA_MAX_QUEUE", "3"),
        ("OLLAMA_LOAD_TIMEOUT", "90"),
        ("OLLAMA_ORIGINS", "https://a.b, *"),
        ("OLLAMA_DEBUG", "1"),
    ];
    let text = "models: { a: { path: 'builtin:demo' }, b: { path: 'builtin:demo', parallel: 1 } }";
    let config = config(text, &env);
    assert_eq!(config.workers.keep_alive, KeepAlive::Forever);
    assert_eq!((config.models["a"].parallel, config.models["b"].parallel), (7, 1));
    assert_eq!(config.models["b"].context, 1024);
    assert_eq!((config.workers.max_loaded, config.workers.loaded_limit()), (2, 2));
    assert_eq!(config.queue.depth, 3);
    assert_eq!(config.workers.load_timeout, Duration::from_secs(90));
    assert_eq!(config.origins, ["https://a.b", "*"]);
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn the_demo_gets_ollamas_defaults_too_and_a_model_store_is_noticed() {
    let loaded = read("", &[("OLLAMA_NUM_PARALLEL", "2"), ("OLLAMA_MODELS", "/m")]).unwrap();
    assert_eq!(loaded.config.models["demo"].parallel, 2);
    assert_eq!(loaded.notices.len(), 1);
    assert!(loaded.notices[0].starts_with("OLLAMA_MODELS has no effect"), "{:?}", loaded.notices);
}

#[test]
fn the_demo_is_served_when_there_is_nothing_else() {
    assert_eq!(config("", &[]), Config::default());
    assert_eq!(config("models: {}\nnodes: []\nqueue:\n", &[]), Config::default());
    assert!(config("nodes: [{ name: x, url: 'unix:/a', models: [m] }]", &[]).models.is_empty());
    let demo = &config("", &[("ARRIERO__MODELS__DEMO__PARALLEL", "8")]).models["demo"];
    assert_eq!((demo.path.as_str(), demo.parallel), (BUILTIN_DEMO, 8));
}

#[test]
fn references_become_what_they_stand_for() {
    let text = "threads: ${THREADS}\nheaders: ${HEADERS:-false}\nmodels: { a: { path: '${DIR}/7', system: \"${SYSTEM}\" } }";
    let config = config(text, &[("THREADS", "2"), ("DIR", "/m"), ("SYSTEM", "12")]);
    assert_eq!((config.threads, config.headers), (2, false));
    assert_eq!(config.models["a"].path, "/m/7");
    assert_eq!(config.models["a"].system.as_deref(), Some("12"));
}

#[test]
fn anchors_can_be_used_and_cannot_explode() {
    let text = "models: { a: &a { path: 'builtin:demo', context: 7 }, b: *a }";
    assert_eq!(config(text, &[]).models["b"].context, 7);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..8 {
        let references = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{references}]\n");
    }
    let problems = read(&bomb, &[]).unwrap_err();
    assert!(problems.iter().any(|p| p.contains("more than 100000 values")), "{problems:?}");
    let deep = format!("a: {}", "[".repeat(100));
    assert!(read(&deep, &[]).unwrap_err()[0].contains("nested deeper than 32 levels"));
    assert!(read("a: &a [*a]", &[]).unwrap_err()[0].contains("an alias inside the value that it names"));
}

#[test]
fn a_full_example_is_understood() {
    let config = config(
        "\
listen: localhost:8080
admin: off
models:
  small: { path: 'builtin:demo', aliases: [gpt-4o-mini], replicas: 2, context: 4096, parallel: 4, kv_type: q8_0,
           threads: 2, keep_alive: 5m, pin: true, options: { temperature: 1, stop: [x] } }
routing: { strategy: round_robin }
workers: { keep_alive: 0 }
limits: { body: 1.5MiB, drain: 1m30s }
",
        &[],
    );
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin, None);
    let small = &config.models["small"];
    assert_eq!((small.replicas, small.kv_type, small.preload), (2, KvType::Q8_0, false));
    assert_eq!(small.keep_alive, Some(KeepAlive::For(Duration::from_secs(300))));
    assert_eq!(small.options.temperature, Some(1.0));
    assert_eq!(config.routing.strategy, StrategyName::RoundRobin);
    assert_eq!(config.workers.keep_alive, KeepAlive::Unload);
    assert_eq!((config.limits.body, config.limits.drain), (3 << 19, Duration::from_secs(90)));
}

fn conf(file: &str) -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file)
}

#[test]
fn the_reference_file_is_the_defaults() {
    let sources = Sources { file: Some(conf("arriero.yaml")), ..Sources::default() };
    assert_eq!(load(&sources).unwrap().config, Config::default());
}

#[test]
fn the_reference_file_has_every_key() {
    let text = std::fs::read_to_string(conf("arriero.yaml")).unwrap();
    let mut config = Config::default();
    config.passthrough = Some(PassthroughConfig { url: "http://a".to_owned() });
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
fn the_reference_files_comments_are_examples_that_work() {
    let text = std::fs::read_to_string(conf("arriero.yaml")).unwrap();
    let (mut uncommented, mut replaced) = (String::new(), 0);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let example = line.trim_start().strip_prefix("# ").filter(|example| {
            let key = example.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default();
            !key.contains(' ') && example.contains(':') && key.starts_with(|c: char| c.is_ascii_lowercase())
        });
        match example {
            Some(example) => {
                // The example stands in for the empty default above it.
                for empty in ["nodes: []\n", "    options: {}\n"] {
                    if uncommented.ends_with(empty)
                        && example.starts_with(empty.trim_start().split(':').next().unwrap())
                    {
                        uncommented.truncate(uncommented.len() - empty.len());
                    }
                }
                uncommented += &format!("{}{example}\n", " ".repeat(indent));
                replaced += 1;
            }
            None => uncommented += &format!("{line}\n"),
        }
    }
    let config = config(&uncommented, &[]);
    assert_eq!(replaced, 13, "{uncommented}");
    assert_eq!(config.nodes[0].name, "box");
    assert_eq!(config.models["demo"].options.top_k, Some(40));
    assert!(config.models["demo"].template.is_some() && config.passthrough.is_some());
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
