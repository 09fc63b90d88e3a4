//! [`Control`]: what a request's `Cache-Control` says, by RFC 9111, section 5.2.1.

use std::time::Duration;

/// What a request allows. Directives that are not known, or not sound, say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// It wants an answer of its own, which may be kept.
    pub no_cache: bool,
    /// It wants an answer of its own, which may not be kept.
    pub no_store: bool,
    /// It takes no answer that is older.
    pub max_age: Option<Duration>,
    /// It wants a kept answer or none.
    pub only_if_cached: bool,
}

impl Control {
    /// Reads the value of the header.
    pub fn parse(value: &str) -> Self {
        let mut control = Self::default();
        for directive in value.split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => control.no_cache = true,
                "no-store" => control.no_store = true,
                "only-if-cached" => control.only_if_cached = true,
                "max-age" => {
                    let seconds = value.trim().trim_matches('"').parse().ok();
                    control.max_age = seconds.map(Duration::from_secs).or(control.max_age);
                }
                _ => {}
            }
        }
        control
    }

    /// Whether a kept answer may be given.
    pub fn may_read(&self) -> bool {
        !self.no_cache && !self.no_store
    }

    /// Whether what answers it is its own business, so that it is not to be answered with what another request gets.
    pub fn is_particular(&self) -> bool {
        *self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_in_any_case_and_company() {
        let nothing = Control::default();
        for (value, control) in [
            ("", nothing),
            ("no-transform, private", nothing),
            ("No-Cache", Control { no_cache: true, ..nothing }),
            (
                "no-store , max-age=\"7\"",
                Control { no_store: true, max_age: Some(Duration::from_secs(7)), ..nothing },
            ),
            ("max-age=soon", nothing),
            ("max-age=-1", nothing),
            (
                "only-if-cached,max-age=0",
                Control { only_if_cached: true, max_age: Some(Duration::ZERO), ..nothing },
            ),
        ] {
            assert_eq!(Control::parse(value), control, "{value:?}");
            assert_eq!(control.is_particular(), control != nothing);
        }
    }
}
