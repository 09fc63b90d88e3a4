//! [`Adaptation`]: which LoRA adapter a generation wants.

use serde::{Deserialize, Serialize};

/// What a model is changed by while it generates. llama.cpp's bindings apply one adapter at a time, so there is at most one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Adaptation {
    /// The model's default adapter, if it has one.
    #[default]
    Default,
    /// Nothing: the model as it is.
    Off,
    /// An adapter.
    Adapter {
        /// Its configured name.
        name: String,
        /// How strongly; its configured scale if absent. 0 is the same as [`Adaptation::Off`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<f32>,
    },
}

impl Adaptation {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}
