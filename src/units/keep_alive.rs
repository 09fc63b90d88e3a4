//! [`KeepAlive`]: how long a model stays loaded after its last request.

use std::time::Duration;

/// How long a model stays loaded after its last request, as `keep_alive` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Unload as soon as it is idle.
    Unload,
    /// Unload after this idle time.
    For(Duration),
    /// Never unload.
    Forever,
}

/// `keep_alive` in a config file: absent, a number of seconds or a duration; 0 unloads, a negative one never does.
pub mod keep_alive_option {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    use super::{Duration, KeepAlive};
    use crate::units::duration;

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeepAlive>, D::Error> {
        deserializer.deserialize_any(Reader)
    }

    /// Writes it.
    pub fn serialize<S: Serializer>(value: &Option<KeepAlive>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_none(),
            Some(KeepAlive::Unload) => serializer.serialize_i64(0),
            Some(KeepAlive::Forever) => serializer.serialize_i64(-1),
            Some(KeepAlive::For(time)) => serializer.serialize_str(&duration::format(*time)),
        }
    }

    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = Option<KeepAlive>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"5m\", 0 (unload at once) or -1 (never unload)")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E>(self, seconds: i64) -> Result<Self::Value, E> {
            Ok(Some(match u64::try_from(seconds) {
                Ok(0) => KeepAlive::Unload,
                Ok(seconds) => KeepAlive::For(Duration::from_secs(seconds)),
                Err(_) => KeepAlive::Forever,
            }))
        }

        fn visit_u64<E: Error>(self, seconds: u64) -> Result<Self::Value, E> {
            self.visit_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            if text.strip_prefix('-').is_some_and(|rest| duration::parse(rest).is_some()) {
                return Ok(Some(KeepAlive::Forever));
            }
            match duration::parse(text) {
                Some(Duration::ZERO) => Ok(Some(KeepAlive::Unload)),
                Some(time) => Ok(Some(KeepAlive::For(time))),
                None => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }
}
