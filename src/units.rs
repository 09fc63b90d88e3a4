//! Durations and sizes as people write them.

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

/// `keep_alive` in a config file: absent, or a duration.
pub mod keep_alive_option {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::KeepAlive;

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeepAlive>, D::Error> {
        let _ = Option::<String>::deserialize(deserializer)?;
        todo!()
    }

    /// Writes it.
    pub fn serialize<S: Serializer>(_value: &Option<KeepAlive>, _serializer: S) -> Result<S::Ok, S::Error> {
        todo!()
    }
}
