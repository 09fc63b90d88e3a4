//! Durations in the config: `500ms`, `5s`, `1m30s`, `1.5h`. Use as `#[serde(with = "crate::units::duration")]`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};

use super::parse_go_duration;

/// Largest first, which is the order in which [`format()`] writes them.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A Go duration that is not negative. `None`: not a duration, or more than 292 years.
pub fn parse(text: &str) -> Option<Duration> {
    u64::try_from(parse_go_duration(text).ok()?).ok().map(Duration::from_nanos)
}

/// The shortest exact form that [`parse()`] reads back: `1m30s`; `0s` for nothing.
pub fn format(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        let count = nanos / size;
        if count > 0 {
            text += &format!("{count}{unit}");
            nanos %= size;
        }
    }
    text
}

/// Reads a duration; a number without unit is refused except 0.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Reader)
}

/// Writes the form of [`format()`].
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"500ms\", \"5s\" or \"1m30s\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        match number {
            0 => Ok(Duration::ZERO),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        match number {
            0 => Ok(Duration::ZERO),
            _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_add_up_and_fractions_are_exact() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("0.1s", 100_000_000),
            ("1.5h", 5_400_000_000_000),
            ("7us3ns", 7_003),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "5sec", "1.2.3s", "5s ", "99999999999h", "1m30", "2d"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_reads_back_as_written(nanos in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9.]{0,25}[a-zµ]{0,3}[0-9.a-z]{0,9}") {
            let _ = parse(&text);
        }
    }
}
