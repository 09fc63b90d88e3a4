//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside the scalars of the config file; `$${` stands for `${`.
//!
//! An unquoted scalar means afterwards what the resulting text means to YAML: `depth: ${DEPTH}` can become a number.

use std::collections::BTreeMap;

use super::problem::{Path, Problem};
use super::tree::{Data, Node};
use super::yaml;

/// Replaces every reference below `node`; a scalar with one that cannot be resolved is reported and made absent.
pub fn substitute(node: &mut Node, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    walk(node, &Path::default(), env, problems);
}

fn walk(node: &mut Node, path: &Path, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    match &mut node.data {
        Data::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &path.index(index), env, problems);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                walk(&mut entry.value, &path.key(&entry.key), env, problems);
            }
        }
        Data::Text(text) if text.value.contains("${") => match expand(&text.value, env) {
            Ok(value) if text.is_plain => {
                node.data = yaml::plain(&value);
                node.is_substituted = true;
            }
            Ok(value) => {
                text.value = value;
                node.is_substituted = true;
            }
            Err(message) => {
                problems.push(Problem { place: node.place.clone(), path: path.clone(), message });
                node.data = Data::Faulty;
            }
        },
        _ => {}
    }
}

/// The text with every reference replaced, or why that cannot be done.
fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.push_str(before);
        let Some(end) = reference.find('}') else {
            return Err("\"${\" without its \"}\"; write \"$${\" for the characters themselves".to_owned());
        };
        expanded.push_str(&resolve(&reference[2..end], env)?);
        rest = &reference[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn resolve(reference: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return std::fs::read_to_string(path)
            .map(|content| content.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("${{file:{path}}} cannot be read: {error}"));
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        return Err(format!(
            "expected ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}, found ${{{reference}}}"
        ));
    }
    match (env.get(name), default) {
        (Some(value), None) => Ok(value.clone()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set; ${{{name}:-default}} would do without"))
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("HOST", "box"), ("PORT", "80"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn references_are_replaced_anywhere_in_a_text() {
        for (text, expanded) in [
            ("${HOST}", "box"),
            ("http://${HOST}:${PORT}/x", "http://box:80/x"),
            ("${NONE:-a b}", "a b"),
            ("${EMPTY:-a}", "a"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("$${HOST} ${HOST}", "${HOST} box"),
            ("$HOST $$ {}", "$HOST $$ {}"),
        ] {
            assert_eq!(expand(text, &env()).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn a_file_is_put_in_without_its_last_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let text = format!("key-${{file:{}}}", file.path().display());
        assert_eq!(expand(&text, &env()).as_deref(), Ok("key-secret"));
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        for (text, message) in [
            ("${NONE}", "the environment variable NONE is not set; ${NONE:-default} would do without"),
            ("a ${HOST", "\"${\" without its \"}\"; write \"$${\" for the characters themselves"),
            ("${A-B}", "expected ${NAME}, ${NAME:-default} or ${file:PATH}, found ${A-B}"),
            ("${file:/no/such}", "${file:/no/such} cannot be read: No such file or directory (os error 2)"),
        ] {
            assert_eq!(expand(text, &env()), Err(message.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_references_stays_as_it_is(text in "[a-z$}: ]{0,20}") {
            prop_assert_eq!(expand(&text, &env()), Ok(text.clone()));
        }
    }
}
