//! The seam between proxy and engine: HTTP/1.1 over a unix socket carrying canonical JSON.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /health` | – | [`Vitals`]; 200 while ready, else 503, with the same body |
//! | `POST /generate` | [`Generation`](super::Generation) | NDJSON, one [`Event`](super::Event) per line, flushed per event |
//! | `POST /embed` | [`Embedding`](super::Embedding) | [`Embeddings`](super::Embeddings) |
//! | `POST /rank` | [`Ranking`](super::Ranking) | [`Scores`](super::Scores) |
//! | `POST /tokenize` | [`Tokenize`] | [`Tokens`] |
//! | `POST /detokenize` | [`Tokens`] | [`Text`] |
//! | `POST /settings` | [`Change`] | [`Settings`]: those in force then |
//! | `POST /render` | [`Generation`](super::Generation) | [`Text`]: the prompt its template makes |
//! | `POST /snapshot` | – | [`Saved`]: what was saved to disk of what its sequences hold |
//!
//! An error before the first event is a status and `{"error": Failure}`. Closing the connection cancels a generation.

mod binding;
mod cut;
mod settings;
mod vitals;

pub use binding::Binding;
pub use cut::Cut;
use serde::{Deserialize, Serialize};
pub use settings::{
    Change, Draft, PaceSettings, Settings, SnapshotSettings, SpeculateMode, SpeculateSettings,
};
pub use vitals::{Backend, Confinement, Device, Model, Sandbox, SnapshotCounts, State, Vitals};

use super::Failure;

/// What a line of a worker's output begins with that somebody should look into.
pub const WARNING: &str = "warning: ";

/// What a worker is told to be: the JSON behind `arriero worker --spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the worker in logs and metrics, such as `demo-0`.
    pub name: String,
    /// The GGUF file.
    pub path: std::path::PathBuf,
    /// Where to listen; created with mode 0600.
    pub socket: std::path::PathBuf,
    /// Context per sequence in tokens; 0: what the model was trained with, at most 4096, and 2048 for one that embeds. Capped at
    /// the trained context.
    pub context: u32,
    /// Sequences that can run at once, at least 1.
    pub parallel: u32,
    /// KV cells that all sequences share; 0: each has a stream of its own for its whole context.
    #[serde(default)]
    pub cells: u32,
    /// Threads for decoding and for reading prompts; 0: one per physical core that it has, and a single one to decode with a tiny model.
    pub threads: u32,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Binding::is_none")]
    pub binding: Binding,
    /// Tokens per llama.cpp batch.
    pub batch: u32,
    /// How prompts are read while others generate.
    #[serde(default)]
    pub pace: PaceSettings,
    /// How tokens are guessed ahead.
    #[serde(default)]
    pub speculate: SpeculateSettings,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// How embeddings are pooled; absent: as the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// LoRA adapters that requests may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapter>,
    /// The GGUF file that makes of images what the model can read; absent: it sees none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<std::path::PathBuf>,
    /// Layers on the GPU; -1: all that fit.
    pub gpu_layers: i32,
    /// Map the file into memory instead of reading it.
    pub mmap: bool,
    /// Give up what it does not need before it opens the model; see [`Vitals::sandbox`].
    #[serde(default = "yes")]
    pub sandbox: bool,
    /// Where it saves what it has read, and finds it again; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotSettings>,
    /// A Jinja chat template in place of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Put before conversations that bring no system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What requests get that do not say otherwise.
    #[serde(default)]
    pub options: super::Options,
}

/// A LoRA adapter of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// What requests call it; unique.
    pub name: String,
    /// The GGUF file.
    pub path: std::path::PathBuf,
    /// How strongly it changes the model unless a request says otherwise.
    pub scale: f32,
    /// Applied where a request names none; at most one is.
    #[serde(default)]
    pub default: bool,
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 16 bits per number.
    #[default]
    F16,
    /// About 8.5 bits.
    Q8_0,
    /// About 4.5 bits.
    Q4_0,
}

impl KvType {
    /// In the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// What becomes of the vectors of an input's tokens, and with it what a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean is the embedding.
    Mean,
    /// The first is.
    Cls,
    /// The last is.
    Last,
    /// They become a score: the model ranks.
    Rank,
    /// Nothing: the model generates.
    None,
}

/// What was saved to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Files written. What was on disk already is not written again.
    pub snapshots: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Asks for the tokens of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokenize {
    /// The text.
    pub text: String,
    /// Add the tokens that start a sequence, where the model wants them.
    #[serde(default)]
    pub add_special: bool,
    /// Recognise special tokens written in the text.
    #[serde(default = "yes")]
    pub parse_special: bool,
    /// Answer with the bytes of each token too.
    #[serde(default)]
    pub with_pieces: bool,
}

fn yes() -> bool {
    true
}

/// Token ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// In order.
    pub tokens: Vec<u32>,
    /// The bytes that each stands for, special tokens included; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Vec<u8>>,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
}

/// The body of an error response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Failure,
}
