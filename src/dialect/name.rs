//! Model names as Ollama reads them (`types/model/name.go`): `[scheme://][host/][namespace/]model[:tag]`. Every place that
//! compares names does so by their [`key`].

const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// Says that the model is on this machine, which every model here is.
const SOURCE_MARKER: &str = ":local";

/// What two names that mean the same model share: lower case, parts with their default value left out. `None` if the name
/// is malformed.
pub fn key(name: &str) -> Option<String> {
    // Nearly all names are keys already, and every request has one.
    if is_word(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(name.to_owned());
    }
    Parts::of(&name.to_lowercase()).map(|parts| parts.short())
}

/// Whether two names mean the same model, which those do that have one key; looked at without making it.
pub fn is_same(a: &str, b: &str) -> bool {
    let all =
        |name| Parts::of(name).map(|Parts { host, namespace, model, tag }| [host, namespace, model, tag]);
    match (all(a), all(b)) {
        (Some(a), Some(b)) => a.iter().zip(&b).all(|(a, b)| a.eq_ignore_ascii_case(b)),
        _ => false,
    }
}

/// The name with every part, spelled as it is: `registry.ollama.ai/library/demo:latest`. A malformed one stays as it is.
pub(super) fn full(name: &str) -> String {
    Parts::of(name).map_or_else(|| name.to_owned(), |parts| parts.full())
}

/// A well-formed name, defaults filled in.
struct Parts<'a> {
    host: &'a str,
    namespace: &'a str,
    model: &'a str,
    tag: &'a str,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let name = without_marker(name);
        // A colon before the last slash belongs to the host's port.
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (name, DEFAULT_TAG),
        };
        let (rest, model) = path.rsplit_once('/').unwrap_or((DEFAULT_NAMESPACE, path));
        let (host, namespace) = rest.rsplit_once('/').unwrap_or((DEFAULT_HOST, rest));
        let host = host.split_once("://").map_or(host, |(_scheme, host)| host);
        let valid =
            is_part(host, 350, "_-.:") && is_part(namespace, 80, "_-") && is_word(model) && is_word(tag);
        valid.then_some(Self { host, namespace, model, tag })
    }

    fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// Without the parts that have their default value.
    fn short(&self) -> String {
        let mut name = String::new();
        if self.host != DEFAULT_HOST {
            name.push_str(self.host);
            name.push('/');
        }
        if self.host != DEFAULT_HOST || self.namespace != DEFAULT_NAMESPACE {
            name.push_str(self.namespace);
            name.push('/');
        }
        name.push_str(self.model);
        if self.tag != DEFAULT_TAG {
            name.push(':');
            name.push_str(self.tag);
        }
        name
    }
}

fn without_marker(name: &str) -> &str {
    match name.len().checked_sub(SOURCE_MARKER.len()).and_then(|at| name.split_at_checked(at)) {
        Some((name, marker)) if marker.eq_ignore_ascii_case(SOURCE_MARKER) => name,
        _ => name,
    }
}

/// What the name of a model and its tag are.
fn is_word(part: &str) -> bool {
    is_part(part, 80, "_-.")
}

fn is_part(part: &str, longest: usize, punctuation: &str) -> bool {
    let first = part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || punctuation.as_bytes().contains(&b);
    first && part.len() <= longest && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{full, is_same, key};

    #[test]
    fn names_that_mean_the_same_model_have_one_key() {
        for name in [
            "demo",
            "Demo",
            "demo:latest",
            "DEMO:LATEST",
            "library/demo",
            "registry.ollama.ai/library/demo:latest",
            "https://registry.ollama.ai/library/demo",
            "demo:local",
            "demo:latest:LOCAL",
        ] {
            assert_eq!(key(name).as_deref(), Some("demo"), "{name}");
        }
    }

    #[test]
    fn parts_that_are_not_the_default_stay_in_the_key() {
        for (name, expected) in [
            ("llama3:8b", "llama3:8b"),
            ("me/Llama3", "me/llama3"),
            ("hf.co/x/y:Q4", "hf.co/x/y:q4"),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
            ("hf.co/library/y", "hf.co/library/y"),
            ("text-embedding-3.small_v2", "text-embedding-3.small_v2"),
        ] {
            assert_eq!(key(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_full_name_has_every_part_and_keeps_its_spelling() {
        for (name, expected) in [
            ("Demo", "registry.ollama.ai/library/Demo:latest"),
            ("demo:8b:LOCAL", "registry.ollama.ai/library/demo:8b"),
            ("https://hf.co/x/Y:Q4", "hf.co/x/Y:Q4"),
            ("no name", "no name"),
        ] {
            assert_eq!(full(name), expected);
        }
    }

    #[test]
    fn malformed_names_have_no_key() {
        let long = "m".repeat(81);
        for name in
            ["", ":", "a b", "-a", ".a", "a:", ":x", "a/", "/a", "na.me/a", "a/b/c/d", "ä", "a\n", &long]
        {
            assert_eq!(key(name), None, "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_key_is_its_own_key(name in "[a-zA-Z0-9_./:-]{1,40}") {
            // `x:local` has the key `x`, so a second marker would be stripped again.
            if let Some(first) = key(&name).filter(|k| !k.ends_with(":local")) {
                proptest::prop_assert_eq!(key(&first), Some(first));
            }
        }
    }

    proptest! {
        #[test]
        fn names_are_the_same_that_have_one_key(
            a in "(registry\\.ollama\\.ai/)?(library/|[LM]/)?[aAb]{0,2}(:[lL]atest|:8[bB]|:local)?",
            b in "(registry\\.ollama\\.ai/)?(library/|[lm]/)?[aAb]{0,2}(:[lL]atest|:8[bB]|:local)?",
        ) {
            prop_assert_eq!(is_same(&a, &b), key(&a).is_some() && key(&a) == key(&b), "{} {}", a, b);
        }
    }
}
