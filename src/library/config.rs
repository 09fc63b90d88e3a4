//! One entry of the `models` section.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AdapterConfig;
use crate::generation::Options;
use crate::generation::seam::{KvType, PaceSettings, Pooling, SpeculateSettings};
use crate::units::{Indices, KeepAlive, range};

/// How one model is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A GGUF file, or `builtin:demo`.
    pub path: String,
    /// Other names it answers to.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Models that answer in its place when no node of it can, the first one first.
    #[serde(default)]
    pub fallbacks: Vec<String>,
    /// A smaller model that answers in its place when it finds no room in memory.
    #[serde(default)]
    pub sibling: Option<String>,
    /// Workers of this model; 1 to 64.
    #[serde(default = "one")]
    pub replicas: usize,
    /// Context per sequence in tokens; 0: what the model was trained with, at most 4096.
    #[serde(default)]
    pub context: u32,
    /// What is left of the context at least where the model does not fit into memory otherwise; absent: all of it.
    #[serde(default)]
    pub context_floor: Option<u32>,
    /// Requests decoded together in one worker; 1 to 256.
    #[serde(default = "four")]
    pub parallel: u32,
    /// KV cells that the requests of one worker share; 0: each has its own for its whole context. At least `context`.
    #[serde(default)]
    pub cells: u32,
    /// Number format of the KV cache.
    #[serde(default)]
    pub kv_type: KvType,
    /// CPUs for each worker, dealt out in turn; empty: any.
    #[serde(default)]
    pub cpus: Vec<Indices>,
    /// GPUs for each worker, likewise; empty: all.
    #[serde(default)]
    pub gpus: Vec<Indices>,
    /// Threads per worker; 0: one per physical core that it has.
    #[serde(default)]
    pub threads: u32,
    /// Tokens per llama.cpp batch.
    #[serde(default = "batch")]
    pub batch: u32,
    /// How prompts are read while others generate.
    #[serde(default)]
    pub pace: PaceSettings,
    /// How tokens are guessed ahead.
    #[serde(default)]
    pub speculate: SpeculateSettings,
    /// How embeddings are pooled; absent: as the file says.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// LoRA adapters by name, each a model of its own to clients.
    #[serde(default)]
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// The GGUF file that makes of images what the model can read (`mmproj`); absent: it sees none.
    #[serde(default)]
    pub projector: Option<PathBuf>,
    /// Layers on the GPU; -1: all that fit.
    #[serde(default = "all")]
    pub gpu_layers: i32,
    /// Map the file instead of reading it.
    #[serde(default = "yes")]
    pub mmap: bool,
    /// How long it stays in memory after its last request; absent: `workers.keep_alive`.
    #[serde(default)]
    pub keep_alive: Option<KeepAlive>,
    /// Never unload it to make room or when idle.
    #[serde(default)]
    pub pin: bool,
    /// Load it at start.
    #[serde(default)]
    pub preload: bool,
    /// A Jinja chat template in place of the model's own.
    #[serde(default)]
    pub template: Option<String>,
    /// Put before conversations that bring no system message.
    #[serde(default)]
    pub system: Option<String>,
    /// What requests get that do not say otherwise.
    #[serde(default)]
    pub options: Options,
}

/// llama.cpp gives out KV cells in pieces of so many.
pub(super) const LEAST_CELLS: u32 = 256;

/// The path that means the model embedded in the binary.
pub const BUILTIN_DEMO: &str = "builtin:demo";

impl ModelConfig {
    /// The model at `path` with every other key at its default.
    pub fn at(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            aliases: Vec::new(),
            fallbacks: Vec::new(),
            sibling: None,
            replicas: one(),
            context: 0,
            context_floor: None,
            parallel: four(),
            cells: 0,
            kv_type: KvType::default(),
            cpus: Vec::new(),
            gpus: Vec::new(),
            threads: 0,
            batch: batch(),
            pace: PaceSettings::default(),
            speculate: SpeculateSettings::default(),
            pooling: None,
            adapters: BTreeMap::new(),
            projector: None,
            gpu_layers: all(),
            mmap: yes(),
            keep_alive: None,
            pin: false,
            preload: false,
            template: None,
            system: None,
            options: Options::default(),
        }
    }

    /// Whether workers that were made by `other` can go on: it differs, if at all, in what the proxy goes by.
    pub fn has_workers_of(&self, other: &Self) -> bool {
        let Self { keep_alive, pin, preload, context_floor, .. } = *self;
        let (aliases, fallbacks, sibling) =
            (self.aliases.clone(), self.fallbacks.clone(), self.sibling.clone());
        let proxied =
            Self { aliases, fallbacks, sibling, keep_alive, pin, preload, context_floor, ..other.clone() };
        proxied == *self
    }

    /// What is wrong, with the key it is wrong with. The file is looked at by [`ModelConfig::file_faults`].
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let ranges = [
            ("replicas", self.replicas as u64, 1..=64),
            // llama.cpp's own limit of sequences.
            ("parallel", self.parallel.into(), 1..=256),
            ("threads", self.threads.into(), 0..=1024),
            ("batch", self.batch.into(), 1..=65_536),
        ];
        let mut faults: Vec<_> = ranges
            .into_iter()
            .filter_map(|(key, value, range)| Some((key, range::fault(value, range)?)))
            .collect();
        faults.extend(self.binding_faults());
        faults.extend(self.pace.fault().map(|fault| ("pace", fault.to_owned())));
        if self.adapters.values().filter(|adapter| adapter.default).count() > 1 {
            faults.push(("adapters", "only one of them can be the default".to_owned()));
        }
        if let Some((name, _)) = self.adapters.iter().find(|(_, adapter)| !adapter.scale.is_finite()) {
            faults.push(("adapters", format!("the scale of {name:?} must be a number")));
        }
        if (1..self.context.max(LEAST_CELLS)).contains(&self.cells) {
            let least = self.context.max(LEAST_CELLS);
            faults.push(("cells", format!("must be 0 or at least {least}: one request may need as many")));
        }
        if self.context_floor == Some(0) {
            faults.push(("context_floor", "must be at least 1".to_owned()));
        }
        if self.projector.is_some() && cfg!(all(feature = "engine", not(feature = "vision"))) {
            faults.push(("projector", "this build of Arriero has no vision".to_owned()));
        }
        faults.extend(self.speculate.fault().map(|fault| ("speculate", fault.to_owned())));
        if self.gpu_layers < -1 {
            faults.push(("gpu_layers", "must be -1 (all that fit) or more".to_owned()));
        }
        let draft = self.speculate.draft.as_ref().and_then(|draft| draft.path.to_str());
        for (key, path) in [("path", Some(self.path.as_str())), ("speculate", draft)] {
            if path.is_some_and(|path| path.starts_with("builtin:") && path != BUILTIN_DEMO) {
                faults.push((key, format!("the only built-in model is {BUILTIN_DEMO}")));
            }
        }
        faults
    }

    /// Why the file, that of its draft model and its projector cannot be served, as far as opening them tells, and what this machine lacks
    /// to run it; with the keys below the model's.
    pub fn file_faults(&self) -> Vec<(&'static [&'static str], String)> {
        let own = file_fault(Path::new(&self.path)).map(|fault| (&["path"][..], fault));
        let draft = self.speculate.draft.as_ref().and_then(|draft| file_fault(&draft.path));
        let projector = self.projector.as_deref().and_then(file_fault);
        own.into_iter()
            .chain(draft.map(|fault| (&["speculate", "draft", "path"][..], fault)))
            .chain(projector.map(|fault| (&["projector"][..], fault)))
            .chain(self.cpus_fault().map(|fault| (&["cpus"][..], fault)))
            .collect()
    }
}

/// Why the file at `path` cannot be read as a GGUF file, as far as opening it tells.
pub(super) fn file_fault(path: &Path) -> Option<String> {
    if path.to_str().is_some_and(|path| path.starts_with("builtin:")) {
        return None;
    }
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => {
            Some(format!("{} is a directory, not a GGUF file", path.display()))
        }
        Ok(_) => None,
        Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
    }
}

fn one() -> usize {
    1
}
fn four() -> u32 {
    4
}
fn batch() -> u32 {
    512
}
fn all() -> i32 {
    -1
}
fn yes() -> bool {
    true
}
