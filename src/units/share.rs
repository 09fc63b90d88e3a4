//! [`Share`]: how much of something may be taken: a part of it, so many bytes, or as much as there is.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::size;

/// Written as `80%`, `12GiB` or `off`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// No limit.
    Off,
    /// So many hundredths of it.
    Percent(f64),
    /// So many bytes, whatever there is.
    Bytes(u64),
}

impl Share {
    /// How many of `total` bytes that is; `None`: any number, or it is not known of how many.
    pub fn of(self, total: Option<u64>) -> Option<u64> {
        match self {
            Self::Off => None,
            // The cast saturates; a byte more or less does not matter.
            Self::Percent(percent) => total.map(|total| (total as f64 * percent / 100.0) as u64),
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// What is wrong with it as a budget, in words.
    pub fn fault(self) -> Option<&'static str> {
        match self {
            Self::Percent(percent) if !(percent > 0.0 && percent <= 100.0) => {
                Some("must be more than 0% and at most 100%")
            }
            Self::Bytes(0) => Some("must be more than 0"),
            _ => None,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => f.write_str(&size::format(*bytes)),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part such as \"80%\", a size such as \"12GiB\", or \"off\"")
    }

    fn visit_u64<E>(self, bytes: u64) -> Result<Share, E> {
        Ok(Share::Bytes(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Share, E> {
        let read = u64::try_from(bytes).map(Share::Bytes);
        read.map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    /// YAML's word for false.
    fn visit_bool<E: Error>(self, on: bool) -> Result<Share, E> {
        if on { Err(E::invalid_value(Unexpected::Bool(on), &self)) } else { Ok(Share::Off) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Share, E> {
        let percent =
            || text.strip_suffix('%')?.trim_end().parse().ok().filter(|part: &f64| part.is_finite());
        match text {
            "off" => Some(Share::Off),
            _ => percent().map(Share::Percent).or_else(|| size::parse(text).map(Share::Bytes)),
        }
        .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn parts_sizes_and_off_read_back_as_written() {
        for (text, share) in [
            ("80%", Share::Percent(80.0)),
            ("12.5%", Share::Percent(12.5)),
            ("12GiB", Share::Bytes(12 << 30)),
            ("off", Share::Off),
        ] {
            assert_eq!(from_value::<Share>(json!(text)).unwrap(), share);
            assert_eq!(json!(share), json!(text));
        }
        assert_eq!(from_value::<Share>(json!(4096)).unwrap(), Share::Bytes(4096));
        assert_eq!(from_value::<Share>(json!(false)).unwrap(), Share::Off);
    }

    #[test]
    fn what_is_none_is_refused() {
        for value in [json!("80"), json!("%"), json!("inf%"), json!(-1), json!(true), json!("all")] {
            // A number in quotes is bytes.
            assert_eq!(from_value::<Share>(value.clone()).is_ok(), value == json!("80"), "{value}");
        }
    }

    #[test]
    fn a_part_is_of_what_there_is() {
        assert_eq!(Share::Percent(80.0).of(Some(1000)), Some(800));
        assert_eq!(Share::Bytes(5).of(None), Some(5));
        assert_eq!(Share::Off.of(Some(1000)), None);
        assert!(Share::Percent(101.0).fault().is_some() && Share::Bytes(0).fault().is_some());
        assert_eq!((Share::Percent(100.0).fault(), Share::Off.fault()), (None, None));
    }
}
