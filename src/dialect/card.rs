//! What a dialect needs to know of a model to list or describe it. The proxy fills these in.

use std::sync::Arc;

use time::OffsetDateTime;

use super::Capability;
use crate::generation::Loading;

/// A model that can be asked for. Of one that only nodes serve nothing but the name is known; the rest is empty.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// The configured name, no tag.
    pub name: String,
    /// When its file last changed.
    pub modified: OffsetDateTime,
    /// Bytes on disk.
    pub size: u64,
    /// 64 hex digits that identify its content.
    pub digest: String,
    /// Format and family.
    pub details: Details,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// The model's Jinja chat template, if it has one, or the configured override.
    pub template: String,
    /// The configured system text.
    pub system: String,
    /// The configured options, name and JSON value, for `parameters`.
    pub parameters: Vec<(String, serde_json::Value)>,
    /// The licence text or name, if the file names one.
    pub license: String,
    /// Where the file is, for the `FROM` line of `modelfile`.
    pub path: String,
    /// Where this is a model that an adapter makes of another.
    pub adapted: Option<Adapted>,
    /// The Arrieros between here and whoever runs it, for one that asks; empty where there are none.
    pub via: Vec<String>,
    /// GGUF key/values: scalars and arrays, `general.name` and `tokenizer.chat_template` left out, arrays over five entries
    /// as null unless the card is for `verbose`.
    pub model_info: serde_json::Map<String, serde_json::Value>,
    /// Name, type and shape of every tensor; only in a card for `verbose`.
    pub tensors: Vec<(String, String, Vec<u64>)>,
}

impl ModelCard {
    /// The name as lists show it: always with a tag.
    pub(super) fn display_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or_default();
        // A colon before the last slash belongs to a port.
        if last.contains(':') { self.name.clone() } else { format!("{}:latest", self.name) }
    }
}

/// A model with an adapter.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The configured name of the model that is changed.
    pub model: String,
    /// Where the adapter's file is, for the `ADAPTER` line of `modelfile`.
    pub path: String,
}

/// Ollama's `details`.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// `llama`, `bert`…
    pub family: String,
    /// Such as `8.0B`.
    pub parameter_size: String,
    /// Such as `Q4_0`.
    pub quantization_level: String,
    /// Trained context in tokens.
    pub context_length: u64,
    /// Length of a hidden state.
    pub embedding_length: u64,
}

/// A model on its way into memory, for `/api/ps`.
#[derive(Clone, Debug)]
pub struct ArrivingModel {
    /// What it is.
    pub card: Arc<ModelCard>,
    /// How far it is.
    pub loading: Loading,
}

/// A model in memory, for `/api/ps`.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// What it is.
    pub card: Arc<ModelCard>,
    /// Bytes in use, all replicas.
    pub memory: u64,
    /// The part on GPUs.
    pub device_memory: u64,
    /// When it will be unloaded if nothing comes; `None`: never.
    pub expires: Option<OffsetDateTime>,
    /// Context per sequence in tokens.
    pub context: u64,
}
