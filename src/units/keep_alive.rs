//! [`KeepAlive`]: how long an idle model stays in memory, and the Go durations it is written in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// How long a model stays loaded after its last request, as `keep_alive` says it: a Go duration, or a number of seconds.
/// The longer, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepAlive {
    /// Unload as soon as it is idle.
    Unload,
    /// Unload after this idle time.
    For(Duration),
    /// Never unload.
    Forever,
}

impl KeepAlive {
    /// A number of seconds: negative is forever, 0 unloads. Less than a nanosecond is 0; more than Go's durations can
    /// hold (292 years) is forever.
    pub fn from_seconds(seconds: f64) -> Self {
        // The cast saturates, as a Go program on amd64 would not; nobody waits that long.
        Self::from_nanoseconds((seconds * 1e9) as i64)
    }

    fn from_nanoseconds(nanoseconds: i64) -> Self {
        match u64::try_from(nanoseconds) {
            Err(_) => Self::Forever,
            Ok(0) => Self::Unload,
            Ok(_) if nanoseconds == i64::MAX => Self::Forever,
            Ok(nanoseconds) => Self::For(Duration::from_nanos(nanoseconds)),
        }
    }
}

impl FromStr for KeepAlive {
    type Err = GoDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_go_duration(text).map(Self::from_nanoseconds)
    }
}

/// As a Go duration, which [`KeepAlive::from_str`] reads back: `5m`, `1h30m`, `0`, `-1s`.
impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unload => f.write_str("0"),
            Self::Forever => f.write_str("-1s"),
            Self::For(duration) => f.write_str(&super::duration::format(*duration)),
        }
    }
}

impl Serialize for KeepAlive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepAliveVisitor)
    }
}

struct KeepAliveVisitor;

impl Visitor<'_> for KeepAliveVisitor {
    type Value = KeepAlive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 5m, or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<KeepAlive, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds as f64))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds as f64))
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<KeepAlive, E> {
        Ok(KeepAlive::from_seconds(seconds))
    }
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;
const SECOND: u64 = 1_000 * MILLI;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Why a text is not a Go duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoDurationError {
    /// No number, or more than 292 years.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit Go does not have.
    #[error("time: unknown unit {0:?} in duration {1:?}")]
    UnknownUnit(String, String),
}

/// Nanoseconds of a Go duration: a sign, then numbers with units (`1h30m`, `-1.5s`, `300ms`), or `0`. Mirrors
/// `time.ParseDuration` (<https://pkg.go.dev/time#ParseDuration>).
pub fn parse_go_duration(text: &str) -> Result<i64, GoDurationError> {
    let invalid = || GoDurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        if name.is_empty() {
            return Err(GoDurationError::MissingUnit(text.to_owned()));
        }
        let Some(unit) = unit(name) else {
            return Err(GoDurationError::UnknownUnit(name.to_owned(), text.to_owned()));
        };
        total = length(whole, fraction, unit).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = after;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

/// Nanoseconds of one number with its unit; `None` where they overflow.
fn length(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // A fraction is below one unit, so a float holds it well enough, as in Go.
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    u64::checked_mul(whole, unit)?.checked_add((fraction * unit as f64).round() as u64)
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // Both code points for micro, as in Go.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICRO,
        "ms" => MILLI,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// The leading digits, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("-0", 0),
            ("5m", 5 * MINUTE as i64),
            ("1h30m", 90 * MINUTE as i64),
            ("1.5h", 90 * MINUTE as i64),
            ("300ms", 300 * MILLI as i64),
            (".5s", 500 * MILLI as i64),
            ("1.s", SECOND as i64),
            ("+2us", 2 * MICRO as i64),
            ("3µs", 3 * MICRO as i64),
            ("-1.5s", -1_500 * MILLI as i64),
        ] {
            assert_eq!(parse_go_duration(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn bad_durations_get_gos_words() {
        for (text, message) in [
            ("30", r#"time: missing unit in duration "30""#),
            ("5 minutes", r#"time: unknown unit " minutes" in duration "5 minutes""#),
            ("", r#"time: invalid duration """#),
            ("-", r#"time: invalid duration "-""#),
            ("abc", r#"time: invalid duration "abc""#),
            (".s", r#"time: invalid duration ".s""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("99999999999h", r#"time: invalid duration "99999999999h""#),
        ] {
            assert_eq!(parse_go_duration(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn numbers_are_seconds_negative_is_forever_and_zero_unloads() {
        assert_eq!(KeepAlive::from_seconds(300.0), KeepAlive::For(Duration::from_secs(300)));
        assert_eq!(KeepAlive::from_seconds(0.25), KeepAlive::For(Duration::from_millis(250)));
        assert_eq!(KeepAlive::from_seconds(-1.0), KeepAlive::Forever);
        assert_eq!(KeepAlive::from_seconds(0.0), KeepAlive::Unload);
        assert_eq!(KeepAlive::from_seconds(1e300), KeepAlive::Forever);
        assert_eq!("-5m".parse(), Ok(KeepAlive::Forever));
        assert_eq!("0".parse(), Ok(KeepAlive::Unload));
        assert_eq!("0s".parse(), Ok(KeepAlive::Unload));
    }

    #[test]
    fn the_config_form_is_a_string_a_number_or_nothing() {
        let read =
            |text: &str| serde_json::from_str::<Option<KeepAlive>>(text).map_err(|error| error.to_string());
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read("\"5m\""), Ok(Some(KeepAlive::For(Duration::from_secs(300)))));
        assert_eq!(read("90"), Ok(Some(KeepAlive::For(Duration::from_secs(90)))));
        assert_eq!(read("-1"), Ok(Some(KeepAlive::Forever)));
        assert!(read("\"30\"").unwrap_err().contains("missing unit"));
        assert!(read("true").unwrap_err().contains("a duration such as 5m"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanoseconds: i64) {
            let value = KeepAlive::from_nanoseconds(nanoseconds);
            prop_assert_eq!(value.to_string().parse::<KeepAlive>(), Ok(value));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+0-9.a-zµ ]{0,24}|.*") {
            let _ = parse_go_duration(&text);
        }
    }
}
