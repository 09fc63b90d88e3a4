//! [`Vitals`]: how a worker is.

use serde::{Deserialize, Serialize};

use super::{Binding, Settings};

/// A worker's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// `loading`, `ready`, `failed` or `stopping`.
    pub state: State,
    /// Part of the model loaded, 0 to 1.
    pub progress: f32,
    /// Why it failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Sequences running.
    pub busy: usize,
    /// Sequences that could start now.
    pub free: usize,
    /// KV cells in use, idle prefixes included.
    pub kv_used: u64,
    /// KV cells that running sequences use; what several share counts for each.
    #[serde(default)]
    pub kv_busy: u64,
    /// KV cells there are.
    pub kv_total: u64,
    /// Requests and paused sequences that wait for a place.
    #[serde(default)]
    pub waiting: usize,
    /// How often a sequence was paused because cells ran out.
    #[serde(default)]
    pub pauses: u64,
    /// What is in force; `None` until ready, and for a model that embeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Tokens of prompts that a step reads at the moment while others generate.
    #[serde(default)]
    pub pace: usize,
    /// Tokens guessed ahead so far.
    #[serde(default)]
    pub guessed: u64,
    /// Those of [`Vitals::guessed`] that were right.
    #[serde(default)]
    pub accepted: u64,
    /// Milliseconds since the last decode; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decode_ms: Option<u64>,
    /// What the process has done since its start: milliseconds of all its threads, and pages it had to wait for.
    #[serde(default)]
    pub work: u64,
    /// Resident memory of the process in bytes.
    pub resident_bytes: u64,
    /// The part of it that is no file's, such as a mapped model's; 0: not known.
    #[serde(default)]
    pub private_bytes: u64,
    /// The GPUs there are, as of when the model was loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The part of the model and its KV cache that is on GPUs, in bytes.
    pub device_bytes: u64,
    /// What the loaded model is; `None` until ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// llama.cpp's backend and the CPU features in use, as `arriero --version` prints them.
    pub backend: Backend,
    /// What it is bound to.
    #[serde(default, skip_serializing_if = "Binding::is_none")]
    pub binding: Binding,
    /// What keeps the worker in.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What became of snapshots.
    #[serde(default)]
    pub snapshots: SnapshotCounts,
}

/// Memory of a GPU in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Such as `CUDA0`.
    pub name: String,
    /// All there is.
    pub total: u64,
    /// What nobody has taken.
    pub free: u64,
}

/// Counts of snapshots since the worker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotCounts {
    /// Written.
    pub saved: u64,
    /// Read back and used.
    pub restored: u64,
    /// Tokens that did not have to be read for that.
    pub restored_tokens: u64,
    /// Not what was written: cut off, changed, or not readable.
    pub damaged: u64,
    /// Sound, but of another model, other settings or another version.
    pub foreign: u64,
    /// Could not be written.
    pub failed: u64,
    /// Bytes on disk that are the model's, as of the last look.
    pub bytes: u64,
}

/// The phases of a worker's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Reading the model.
    #[default]
    Loading,
    /// Serving.
    Ready,
    /// The model cannot be loaded; see [`Vitals::error`].
    Failed,
    /// Finishing what runs.
    Stopping,
}

/// What a loaded model is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Context per sequence in tokens.
    pub context: u32,
    /// Sequences that can run at once.
    pub parallel: u32,
    /// KV cells there are, of all sequences together.
    #[serde(default)]
    pub cells: u64,
    /// Context the model was trained with.
    pub trained_context: u32,
    /// Length of a hidden state, and of an embedding.
    pub embedding_length: u32,
    /// Can generate text.
    pub completes: bool,
    /// Can embed.
    pub embeds: bool,
    /// Can say how well a text answers a query.
    #[serde(default)]
    pub ranks: bool,
    /// Has fill-in-the-middle tokens.
    pub infills: bool,
}

/// How llama.cpp computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Devices in use, such as `CPU` or `CUDA0`.
    pub devices: Vec<String>,
    /// CPU features compiled in or picked at run time, such as `AVX2`.
    pub cpu_features: Vec<String>,
}

/// What keeps a worker in, should a model or a request take it over: it reads its model, the system's libraries and devices, writes
/// no file but its model's snapshots, has no network and gains no privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// How much of it is in force.
    pub state: Confinement,
    /// Why it is not all of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How much of a [`Sandbox`] is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Nothing, by configuration.
    #[default]
    Off,
    /// All.
    Full,
    /// What this kernel knows of it.
    Partial,
    /// Nothing: this system cannot.
    Unsupported,
}
