//! How a worker computes: what its spec says, and what of it can be changed while it runs.

use serde::{Deserialize, Serialize};

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
    /// What it may take where that is longer, as a multiple of one in which nothing is read: where a token alone takes long, a
    /// prompt would hardly be read otherwise. 0: never longer than the target.
    pub stretch: f64,
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
            stretch: 7.0,
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
        } else if !(0.0..=1000.0).contains(&self.stretch) {
            Some("stretch must be a number from 0 to 1000")
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
