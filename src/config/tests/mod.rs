//! The configuration as a whole: who overrides whom, what references and anchors become.

mod files;
mod mistakes;

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
        .map_err(|refused| refused.problems.iter().map(|p| p.to_string().replace(&prefix, "")).collect())
}

fn config(text: &str, env: &[(&str, &str)]) -> Config {
    read(text, env).unwrap().config
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
fn variables_need_no_quotes_whatever_yaml_would_see_in_them() {
    let config = config(
        "models: { m: { path: 'builtin:demo' } }",
        &[
            ("ARRIERO__MODELS__M__SYSTEM", "You are: brief # and\nkind: always"),
            ("ARRIERO__MODELS__M__TEMPLATE", "{% for m in messages %}{{ m.content }}{% endfor %}"),
            ("ARRIERO__MODELS__M__ALIASES", "[a, \"b\"]"),
            ("ARRIERO__MODELS__M__CONTEXT", " 7 "),
            ("ARRIERO__MODELS__M__MMAP", "false"),
            ("ARRIERO__MODELS__M__PARALLEL", " "),
            ("ARRIERO__LISTEN", "[::1]:80"),
            ("ARRIERO__ORIGINS", "*"),
        ],
    );
    let model = &config.models["m"];
    assert_eq!(model.system.as_deref(), Some("You are: brief # and\nkind: always"));
    assert_eq!(model.template.as_deref(), Some("{% for m in messages %}{{ m.content }}{% endfor %}"));
    assert_eq!((model.context, model.mmap, model.parallel), (7, false, 4));
    assert_eq!(model.aliases, ["a", "b"]);
    assert_eq!(config.listen.to_string(), "[::1]:80");
    assert_eq!(config.origins, ["*"]);
}

#[test]
fn quotes_in_a_variable_make_a_text() {
    let system = |value| {
        let text = "models: { m: { path: 'builtin:demo' } }";
        config(text, &[("ARRIERO__MODELS__M__SYSTEM", value)]).models["m"].system.clone()
    };
    assert_eq!(system("\"7\"").as_deref(), Some("7"));
    assert_eq!(system("\"Yes\" is all you say").as_deref(), Some("\"Yes\" is all you say"));
}

#[test]
fn origins_may_be_a_list_with_commas_as_ollama_has_them() {
    assert_eq!(config("origins: 'https://a.b, *'", &[]).origins, ["https://a.b", "*"]);
    assert_eq!(config("", &[("ARRIERO__ORIGINS", "a://b,c://d")]).origins, ["a://b", "c://d"]);
    assert_eq!(
        read("", &[("ARRIERO__ORIGINS", "a://b,c")]).unwrap_err(),
        ["ARRIERO__ORIGINS: origins[1]: expected * or scheme://host, found \"c\""]
    );
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
    assert_eq!((config.workers.max_loaded, config.workers.loaded_limit(true)), (2, 2));
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
