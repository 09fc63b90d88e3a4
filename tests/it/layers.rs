//! Imports go down only: the layers of ARCHITECTURE.md, held by reading the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A module's layer, by its number in ARCHITECTURE.md. A module may use those of lower layers and of its own.
const LAYERS: &[(u8, &[&str])] = &[
    (6, &["main", "cli", "server"]),
    (5, &["proxy", "admin", "agent_check"]),
    (4, &["dispatch", "config"]),
    (3, &["node", "upstream", "worker", "library"]),
    (2, &["flight", "cache", "admission", "routing", "breaker"]),
    (1, &["generation", "dialect", "telemetry", "error", "gguf", "units"]),
];

/// The engine runs inside the worker process, beside the layers: it knows these and no others...
const ENGINE_USES: &[&str] = &["engine", "generation", "gguf", "error", "units", "telemetry"];
/// ...and only the entry knows it.
const ENGINE_USERS: &[&str] = &["engine", "main", "cli"];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Whether `user` may say `use crate::used`.
fn is_allowed(user: &str, used: &str) -> bool {
    match (user, used) {
        ("engine", used) => ENGINE_USES.contains(&used),
        (user, "engine") => ENGINE_USERS.contains(&user),
        (user, used) => match (layer(user), layer(used)) {
            (Some(from), Some(to)) => from >= to,
            _ => false,
        },
    }
}

fn sources() -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

/// The top-level module that a source belongs to.
fn module_of(source: &Path) -> String {
    let inside = source.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a source");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The top-level modules that `code` names as `crate::module` (or, in the binary, `arriero::module`), groups included.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    for (place, root) in code.match_indices("crate::").chain(code.match_indices("arriero::")) {
        let rest = &code[place + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads_of_group(group)),
            None => found.extend(word(rest)),
        }
    }
    found
}

/// The first word of each entry of a `{…}` group whose opening brace has been read.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut heads = vec![String::new()];
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(String::new()),
            _ if depth == 1 => heads.last_mut().expect("one at least").push(character),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.iter().filter_map(|entry| word(entry.trim_start())).collect()
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = module_of(&source);
        if module == "lib" {
            continue;
        }
        let code = std::fs::read_to_string(&source).expect("a source");
        let forbidden = uses(&code).into_iter().filter(|used| *used != module && !is_allowed(&module, used));
        wrong.extend(forbidden.map(|used| format!("{}: {module} must not use {used}", source.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let modules: BTreeSet<String> = sources().iter().map(|source| module_of(source)).collect();
    assert!(modules.contains("dispatch") && modules.contains("main"), "the sources were found");
    for module in modules {
        assert!(module == "lib" || module == "engine" || layer(&module).is_some(), "{module} has no layer");
    }
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths_but_not_comments() {
    let code = "use crate::{error::Error, node::{Node, Pool}, units};\n// use crate::proxy;\nlet x = crate::flight::f();";
    assert_eq!(uses(code).into_iter().collect::<Vec<_>>(), ["error", "flight", "node", "units"]);
    assert!(is_allowed("proxy", "dialect") && is_allowed("worker", "node") && is_allowed("cli", "engine"));
    assert!(!is_allowed("dialect", "proxy") && !is_allowed("flight", "node"));
    assert!(!is_allowed("engine", "worker") && !is_allowed("worker", "engine"));
}
