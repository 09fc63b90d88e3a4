//! Where this user's files of a kind belong, by the XDG base directory specification.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder for what can be made again: `$XDG_CACHE_HOME`, else `~/.cache`; `None` without a home. `variable` reads the environment.
pub fn cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path in it is to be ignored, says the specification.
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_count() {
        let of = |home: &'static str, cache_home: &'static str| {
            cache(move |name| Some(if name == "HOME" { home } else { cache_home }.into()))
        };
        assert_eq!(of("/h", "/c"), Some("/c".into()));
        assert_eq!(of("/h", "c"), Some("/h/.cache".into()));
        assert_eq!(of("h", ""), None);
    }
}
