//! Sizes in the config: `8GiB`, `100MB`, or plain bytes. Use as `#[serde(with = "crate::units::size")]`.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};

/// Binary units first and largest first, which is the order in which [`format()`] tries them.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// A number, a fraction allowed, and a unit in any case; without a unit a whole number of bytes. `None`: not a size.
pub fn parse(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = if unit.is_empty() { "B" } else { unit.trim_start() };
    let (_, bytes) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(*bytes),
        Some((whole, fraction)) => {
            let whole = whole.parse::<u64>().ok()?.checked_mul(*bytes)?;
            let numerator = fraction.parse::<u64>().ok()?;
            let denominator = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part = u128::from(numerator) * u128::from(*bytes) / u128::from(denominator);
            whole.checked_add(u64::try_from(part).ok()?)
        }
    }
}

/// The shortest exact form that [`parse()`] reads back.
pub fn format(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    exact.map_or_else(|| "0B".to_owned(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// For people: `9.5 GiB`, `312.4 MiB`, `17 B`.
pub fn rounded(bytes: u64) -> String {
    let unit = UNITS[..4].iter().find(|(_, unit)| bytes >= *unit);
    match unit {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Reads a size.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Reader)
}

/// Writes the form of [`format()`].
pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*bytes))
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"8GiB\", \"100MB\" or a number of bytes")
    }

    fn visit_u64<E>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn binary_and_decimal_units_differ() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("17B", 17),
            ("8GiB", 8 << 30),
            ("100MB", 100_000_000),
            ("100 MiB", 100 << 20),
            ("1.5gib", 3 << 29),
            ("2kb", 2000),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5.5MB", "8G", "8 Gigs", "99999999TiB", ".5MB", "1.MB", "5%"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn people_get_one_digit_behind_the_point() {
        let rounded = [0, 1023, 1536, 327_577_600, 19 << 29].map(rounded);
        assert_eq!(rounded, ["0 B", "1023 B", "1.5 KiB", "312.4 MiB", "9.5 GiB"]);
    }

    proptest! {
        #[test]
        fn every_size_reads_back_as_written(bytes: u64) {
            prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "[0-9.]{0,25}[a-zA-Z]{0,4}") {
            let _ = parse(&text);
        }
    }
}
