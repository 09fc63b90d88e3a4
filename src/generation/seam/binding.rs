//! [`Binding`]: which of the machine's processors a worker has.

use serde::{Deserialize, Serialize};

use crate::units::Indices;

/// What a worker is bound to; what is absent is left to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// CPUs that all its threads run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Indices>,
    /// GPUs that it sees, by the numbers that they have for this process' own environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Indices>,
}

impl Binding {
    /// Whether everything is left to the system.
    pub fn is_none(&self) -> bool {
        self.cpus.is_none() && self.gpus.is_none()
    }
}
