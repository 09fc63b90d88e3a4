//! Every kind of mistake, with the exact words that it gets.

use super::*;

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
        ("nodes: [{ name: a }]", vec!["a.yaml:1:9: nodes[0].url: required, but missing"]),
        ("models:\n  a: { path: 5 }", vec!["a.yaml:2:14: models.a.path: expected a text, found 5"]),
        ("models:\n  a: { path: }", vec!["a.yaml:2:3: models.a.path: required, but missing"]),
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
            vec![
                "a.yaml:1:22: routing.strategy: expected least_loaded or round_robin or weighted or random or power_of_two or resource_aware or geographic or session_affinity or prefix_affinity or lowest_latency or priority or multi_objective or learned, found \"fastest\"",
            ],
        ),
        (
            "routing: { pools: { 'a b': random }, prefix_affinity: { threshold: 2 }, prefix_index: { memory: 1KiB } }",
            vec![
                "a.yaml:1:12: routing.pools: \"a b\" cannot be the name of a model",
                "a.yaml:1:68: routing.prefix_affinity.threshold: must be a number from 0 to 1, found 2",
                "a.yaml:1:97: routing.prefix_index.memory: must be from 1MiB to 64GiB, found \"1KiB\"",
            ],
        ),
        (
            "routing: { sites: { networks: [{ cidr: 10.0.0.0/40, zone: x }] }, priority: { within: priority } }",
            vec![
                "a.yaml:1:40: routing.sites.networks[0].cidr: expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
                "a.yaml:1:87: routing.priority.within: expected another strategy than priority, found \"priority\"",
            ],
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
        (
            "admin: false",
            vec!["a.yaml:1:8: admin: expected an address such as 127.0.0.1:11435, or off, found false"],
        ),
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
        (
            "passthrough: { url: \"http://me:${SECRET}@a\" }",
            vec![
                "a.yaml:1:21: passthrough.url: expected http://host:port, found something else behind the ${...}",
            ],
        ),
        // Rules of a section.
        (
            "models: { a: { path: 'builtin:x', replicas: 0, parallel: 0, batch: 0, gpu_layers: -2 } }",
            vec![
                "a.yaml:1:22: models.a.path: the only built-in model is builtin:demo, found \"builtin:x\"",
                "a.yaml:1:45: models.a.replicas: must be at least 1, found 0",
                "a.yaml:1:58: models.a.parallel: must be at least 1, found 0",
                "a.yaml:1:68: models.a.batch: must be at least 1, found 0",
                "a.yaml:1:83: models.a.gpu_layers: must be -1 (all that fit) or more, found -2",
            ],
        ),
        ("threads: 1025", vec!["a.yaml:1:10: threads: must be at most 1024, found 1025"]),
        (
            "queue: { depth: 1000001 }\nmodels:\n  a: { path: 'builtin:demo', replicas: 65, parallel: 257, threads: 1025, batch: 65537 }",
            vec![
                "a.yaml:1:17: queue.depth: must be at most 1000000, found 1000001",
                "a.yaml:3:40: models.a.replicas: must be at most 64, found 65",
                "a.yaml:3:54: models.a.parallel: must be at most 256, found 257",
                "a.yaml:3:68: models.a.threads: must be at most 1024, found 1025",
                "a.yaml:3:81: models.a.batch: must be at most 65536, found 65537",
            ],
        ),
        (
            "nodes: [{ name: a, url: 'unix:/b', models: [m], max_in_flight: 9223372036854775807 }]",
            vec!["a.yaml:1:64: nodes[0].max_in_flight: must be at most 1000000, found 9223372036854775807"],
        ),
        (
            "nodes: [{ name: a, url: ftp://b, models: [], max_in_flight: 0 }]",
            vec![
                "a.yaml:1:25: nodes[0].url: expected http://host:port, https://host:port, unix:/path/of/socket or dns+http://host:port, found \"ftp://b\"",
                "a.yaml:1:34: nodes[0].models: must name at least one model, for a worker does not say which it has",
                "a.yaml:1:61: nodes[0].max_in_flight: must be at least 1, found 0",
            ],
        ),
        (
            "workers: { probe_interval: 0, restart_backoff: 1m, runtime_dir: run }",
            vec![
                "a.yaml:1:1: workers.restart_backoff_max: must not be less than restart_backoff, which is 1m",
                "a.yaml:1:28: workers.probe_interval: must be more than 0, found 0",
                "a.yaml:1:65: workers.runtime_dir: must be an absolute path, found \"run\"",
            ],
        ),
        (
            "workers: { snapshots: { dir: cache } }",
            vec!["a.yaml:1:12: workers.snapshots: dir must be an absolute path"],
        ),
        (
            "workers: { restart_backoff: 0 }",
            vec!["a.yaml:1:29: workers.restart_backoff: must be more than 0, found 0"],
        ),
        (
            "limits: { body: 0, client_write: 0 }",
            vec![
                "a.yaml:1:17: limits.body: must be more than 0, found 0",
                "a.yaml:1:34: limits.client_write: must be more than 0, found 0",
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
            "models: { Small: { path: 'builtin:demo', aliases: [s] } }\nnodes: [{ name: a, url: 'unix:/b', models: [small, 'a/b/c/d', s, m, 'M:latest'] }]",
            vec![
                "a.yaml:2:52: nodes[0].models[1]: \"a/b/c/d\" cannot be a name: expected [[host/]namespace/]model[:tag] of letters, digits, _ - and .",
                "a.yaml:2:63: nodes[0].models[2]: \"s\" is the same model as nodes[0].models[0]",
                "a.yaml:2:69: nodes[0].models[4]: \"M:latest\" is the same model as nodes[0].models[3]",
            ],
        ),
        (
            "models: { a: { path: 'builtin:demo', sibling: a }, b: { path: 'builtin:demo', sibling: c, context_floor: 0 } }",
            vec![
                "a.yaml:1:47: models.a.sibling: \"a\" is the same model",
                "a.yaml:1:88: models.b.sibling: there is no model \"c\"",
                "a.yaml:1:106: models.b.context_floor: must be at least 1, found 0",
            ],
        ),
        (
            "models:\n  a: { path: 'builtin:demo', aliases: [x], fallbacks: [b, m, 'X', c] }\n  b: { path: 'builtin:demo', fallbacks: [a] }\n\
             nodes: [{ name: n, url: 'unix:/b', models: [m] }]\nretry: { fallbacks: { m: [a, 'M:latest'], A: [b] } }",
            vec![
                "a.yaml:2:62: models.a.fallbacks[2]: \"X\" is the same model",
                "a.yaml:2:67: models.a.fallbacks[3]: there is no model \"c\"",
                "a.yaml:5:30: retry.fallbacks.m[1]: \"M:latest\" is the same model",
                "a.yaml:5:43: retry.fallbacks.A: is for what only nodes serve; here it is models.a.fallbacks",
            ],
        ),
        (
            "models: { 'a b': { path: 'builtin:demo' } }",
            vec![
                "a.yaml:1:11: models.a b: \"a b\" cannot be a name: expected [[host/]namespace/]model[:tag] of letters, digits, _ - and .",
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
    let problems: Vec<String> =
        load(&sources).unwrap_err().problems.iter().map(ToString::to_string).collect();
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
fn a_missing_draft_model_is_named_with_its_place() {
    let config = "models:\n  a:\n    path: builtin:demo\n    speculate: { draft: { path: /no/such.gguf } }";
    let missing = &read(config, &[]).unwrap().missing_files[0];
    assert_eq!(missing.path.to_string(), "models.a.speculate.draft.path");
    assert!(missing.message.starts_with("/no/such.gguf cannot be read"), "{}", missing.message);
}

#[test]
fn cpus_that_are_not_there_and_sets_that_are_none_are_named_with_their_places() {
    let missing =
        &read("models: { a: { path: 'builtin:demo', cpus: [1023] } }", &[]).unwrap().missing_files[0];
    assert_eq!(missing.path.to_string(), "models.a.cpus");
    assert!(missing.message.ends_with(", and not 1023"), "{}", missing.message);
    for (cpus, problem) in [
        ("['0', '4-']", "cpus[1]: expected numbers such as \"0-3,8\", found \"4-\""),
        ("[7-4]", "cpus[0]: the range 7-4 ends before it begins"),
        ("['']", "cpus[0]: expected numbers such as \"0-3,8\", found \"\""),
        ("[0, 1]", "cpus: must have no more sets than there are replicas, 1; found 2"),
    ] {
        let found =
            read(&format!("models: {{ a: {{ path: 'builtin:demo', cpus: {cpus} }} }}"), &[]).unwrap_err();
        assert!(found[0].ends_with(problem), "{found:?}");
    }
}

#[test]
fn a_bad_flag_is_named() {
    let sources = Sources { listen: Some("x".to_owned()), ..Sources::default() };
    let problems: Vec<String> =
        load(&sources).unwrap_err().problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["--listen: listen: expected an address such as 127.0.0.1:11434, found \"x\""]);
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
fn a_rule_about_a_default_points_to_the_file_and_not_to_a_variable_below_it() {
    let found = read("workers:\n  restart_backoff: 1m", &[("OLLAMA_KEEP_ALIVE", "1m")]).unwrap_err();
    assert_eq!(
        found,
        ["a.yaml:1:1: workers.restart_backoff_max: must not be less than restart_backoff, which is 1m"]
    );
}
