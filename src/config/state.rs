//! The `state` key: where what was said while running is kept.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Config;

/// The directory; `None`: nothing says where. `variable` reads the environment
/// (<https://specifications.freedesktop.org/basedir-spec/latest/>).
pub fn state_dir(config: &Config, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path in it is to be ignored, says the XDG specification.
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = || folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    config.state.clone().or_else(|| Some(state()?.join("arriero")))
}

/// What is wrong with it.
pub(super) fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let is_relative = config.state.as_ref().is_some_and(|dir| !dir.is_absolute());
    is_relative.then(|| ("state", "must be an absolute path".to_owned())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_wins_over_the_variables_and_a_relative_one_does_not_count() {
        let found = |key: Option<&str>, variables: &[(&str, &str)]| {
            let config = Config { state: key.map(Into::into), ..Config::default() };
            state_dir(&config, |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        let (home, xdg) = (("HOME", "/home/a"), ("XDG_STATE_HOME", "/state"));
        assert_eq!(found(Some("/s"), &[home, xdg]), Some("/s".into()));
        assert_eq!(found(None, &[home, xdg]), Some("/state/arriero".into()));
        assert_eq!(
            found(None, &[home, ("XDG_STATE_HOME", "x")]),
            Some("/home/a/.local/state/arriero".into())
        );
        assert_eq!(found(None, &[]), None);
    }
}
