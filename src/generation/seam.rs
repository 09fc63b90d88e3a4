//! The seam between proxy and engine: HTTP/1.1 over a unix socket carrying canonical JSON.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /health` | – | [`Health`]; 200 while ready, else 503, with the same body |
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

use serde::{Deserialize, Serialize};

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
    /// Threads for decoding and for reading prompts; 0: one per physical core, and a single one to decode with a tiny model.
    pub threads: u32,
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
    /// Give up what it does not need before it opens the model; see [`Health::sandbox`].
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

/// What can be changed while a worker runs, as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Threads for steps in which nothing is read.
    pub threads: u32,
    /// Threads for steps in which prompts are read.
    pub prefill_threads: u32,
    /// Most tokens of a step.
    pub batch: u32,
    /// Sequences that run at once, at most.
    pub parallel: u32,
    /// How prompts are read while others generate.
    pub pace: PaceSettings,
}

/// What of [`Settings`] is to be changed; absent: nothing. `batch` and `parallel` up to what was allocated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// See [`Settings::threads`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// See [`Settings::prefill_threads`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_threads: Option<u32>,
    /// See [`Settings::batch`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// See [`Settings::parallel`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// See [`Settings::pace`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceSettings>,
}

/// How prompts are read while other sequences generate: as many tokens per step as keep a step at its target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaceSettings {
    /// What a step should take: the longest pause between two tokens of a stream.
    #[serde(with = "crate::units::duration")]
    pub target: std::time::Duration,
    /// Tokens of prompts that a step reads in any case; at most a batch.
    pub least: u32,
    /// A prompt of more tokens than this is not read in every step.
    pub long: u32,
    /// What steps beside such a prompt should take on average, as a multiple of one in which nothing is read.
    pub slowdown: f64,
    /// Proportional, integral and derivative, on logarithms of times.
    pub gains: [f64; 3],
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self {
            target: std::time::Duration::from_millis(250),
            least: 16,
            long: 2048,
            slowdown: 2.0,
            gains: [0.3, 0.4, 0.05],
        }
    }
}

impl PaceSettings {
    /// What is wrong, in words.
    pub fn fault(&self) -> Option<&'static str> {
        if self.target.is_zero() {
            Some("target must be more than 0")
        } else if self.least == 0 {
            Some("least must be at least 1")
        } else if !(1.0..=1000.0).contains(&self.slowdown) {
            Some("slowdown must be a number from 1 to 1000")
        } else if self.gains.iter().any(|gain| !(0.0..=1.0).contains(gain)) {
            Some("gains must be three numbers from 0 to 1")
        } else {
            None
        }
    }
}

/// How tokens are guessed, to be checked several in one step. Output is the same with and without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeculateSettings {
    /// When.
    pub mode: SpeculateMode,
    /// Most tokens to guess in a step for a sequence; 1 to 63.
    pub tokens: u32,
    /// A second model that guesses where earlier text does not.
    pub draft: Option<Draft>,
}

/// When tokens are guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeculateMode {
    /// Where it makes things faster, by what was measured.
    #[default]
    Auto,
    /// As much as possible.
    Always,
    /// Never.
    Off,
}

/// A model that guesses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Its GGUF file.
    pub path: std::path::PathBuf,
    /// Its layers on the GPU; -1: all that fit.
    #[serde(default = "all")]
    pub gpu_layers: i32,
}

fn all() -> i32 {
    -1
}

impl Default for SpeculateSettings {
    fn default() -> Self {
        Self { mode: SpeculateMode::default(), tokens: 15, draft: None }
    }
}

impl SpeculateSettings {
    /// What is wrong, in words.
    pub fn fault(&self) -> Option<&'static str> {
        if !(1..=63).contains(&self.tokens) {
            Some("tokens must be 1 to 63")
        } else if self.draft.as_ref().is_some_and(|draft| draft.gpu_layers < -1) {
            Some("draft.gpu_layers must be -1 (all that fit) or more")
        } else {
            None
        }
    }
}

/// How the cells of prompts are saved to disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSettings {
    /// The model's folder, in the one that all models' folders are in. Made where it is missing.
    pub folder: std::path::PathBuf,
    /// Bytes that the snapshots of all models take at most.
    pub budget: u64,
    /// For fewer tokens nothing is saved or restored.
    pub min_tokens: u32,
    /// What saving may take when the worker ends.
    #[serde(with = "crate::units::duration")]
    pub patience: std::time::Duration,
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

/// A worker's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
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
    /// Those of [`Health::guessed`] that were right.
    #[serde(default)]
    pub accepted: u64,
    /// Milliseconds since the last decode; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decode_ms: Option<u64>,
    /// Resident memory of the process in bytes.
    pub resident_bytes: u64,
    /// The part of the model and its KV cache that is on GPUs, in bytes.
    pub device_bytes: u64,
    /// What the loaded model is; `None` until ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// llama.cpp's backend and the CPU features in use, as `arriero --version` prints them.
    pub backend: Backend,
    /// What keeps the worker in.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What became of snapshots.
    #[serde(default)]
    pub snapshots: SnapshotCounts,
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

/// The phases of a worker's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Reading the model.
    #[default]
    Loading,
    /// Serving.
    Ready,
    /// The model cannot be loaded; see [`Health::error`].
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
