//! [`Model`]: a loaded GGUF. What it is stands in `nature`, what it reads and writes in `vocabulary`.

mod nature;
mod vocabulary;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

use super::adapters::Adapters;
use super::grammar::Grammars;
use super::purpose::{Purpose, llama_pooling};
use super::sampling::dry::Breakers;
use super::speculate::{DraftModel, Speculation};
use super::speech::Speech;
use super::template::ChatTemplate;
use super::vision::Vision;
use super::{check, log, threads};
use crate::generation::seam::{KvType, Model as Facts, Spec, SpeculateMode};
use nature::{can_forget, can_shift, facts, has_planes, slides};
pub use vocabulary::llama_token;
use vocabulary::token_text;

/// Below this many bytes of weights one thread decodes a token as fast as several, which meet after every operation. On a busy
/// machine they wait there for whichever is not running: a token of the demo model (8 MB) takes 0.3 ms on one thread and was
/// seen to take 130 ms on two.
const TINY: u64 = 32 << 20;

/// A model in memory. Shared by the thread that computes and the tasks that prepare requests.
pub struct Model {
    /// What it sees with. Dropped before the model that it was made for.
    pub vision: Option<Vision>,
    // Both dropped before the backend they live in.
    llama: LlamaModel,
    /// Guesses what it is going to say.
    draft: Option<DraftModel>,
    backend: LlamaBackend,
    /// What it was told to be.
    pub spec: Spec,
    /// What it is.
    pub facts: Facts,
    /// Whether the KV cache can be moved to earlier positions.
    pub can_shift: bool,
    /// What it can be changed by.
    pub adapters: Adapters,
    /// Whether llama.cpp gives out all cells of a sequence, so that they can be put back.
    pub keeps_cells: bool,
    /// The chat template, if there is one: parsed, or why it could not be.
    pub template: Option<Result<ChatTemplate, String>>,
    /// How it marks thinking and tool calls.
    pub speech: Speech,
    /// Sequences share cells.
    shares: bool,
    grammars: OnceLock<Result<Grammars, String>>,
    /// Those asked for last: requests hardly ever differ in them, and finding them reads the whole vocabulary.
    breakers: Mutex<Option<(Vec<String>, Arc<Breakers>)>>,
}

impl Model {
    /// Loads the file. `progress` gets 0 to 1 and returns whether to go on. The error says in words what is wrong.
    pub fn load(
        backend: LlamaBackend,
        spec: Spec,
        progress: impl FnMut(f32) -> bool + 'static,
    ) -> Result<Self, String> {
        let headers = check::check(&spec.path)?;
        let mut params =
            LlamaModelParams::default().with_use_mmap(spec.mmap).with_progress_callback(progress);
        // llama.cpp's own default is every layer.
        if let Ok(layers) = u32::try_from(spec.gpu_layers) {
            params = params.with_n_gpu_layers(layers);
        }
        let mut llama = LlamaModel::load_from_file(&backend, &spec.path, &params)
            .map_err(|error| why(&format!("bad file {}", spec.path.display()), &error))?;
        let architecture = llama.meta_val_str("general.architecture").unwrap_or_default();
        let pooling = llama.meta_val_str(&format!("{architecture}.pooling_type")).ok();
        let pooling = pooling.and_then(|value| value.parse::<i32>().ok()).map(LlamaPoolingType::from);
        let purpose = Purpose::of(&architecture, spec.pooling.map(llama_pooling).or(pooling))?;
        let slides = slides(&llama, &architecture);
        // A recurrent memory has no cells to share, and a window would be that of whoever wrote last.
        // Where a picture stands in a plane it takes more cells than positions, and nobody counts those of a pool.
        let stands_in_plane = spec.projector.is_some() && has_planes(&llama);
        let shares = spec.cells > 0 && !slides && can_forget(&llama) && !stands_in_plane;
        let cells = if shares { spec.cells } else { 0 };
        let facts = facts(&llama, purpose, &spec, cells);
        if !facts.completes && !spec.adapters.is_empty() {
            return Err("adapters are for models that generate, and this one does not".to_owned());
        }
        if !facts.completes && spec.projector.is_some() {
            return Err("projectors are for models that generate, and this one does not".to_owned());
        }
        let adapters = Adapters::load(&mut llama, &headers, &spec.adapters, why)?;
        // A shared cell has one position for all who share it.
        let can_shift = !shares && can_shift(&llama, &architecture, spec.kv_type);
        let draft = match spec.speculate.draft.as_ref().filter(|_| spec.speculate.mode != SpeculateMode::Off)
        {
            Some(_) if !can_forget(&llama) => {
                return Err("draft model: the model is recurrent and cannot take guesses back".to_owned());
            }
            Some(draft) => Some(DraftModel::load(&backend, draft, spec.mmap, &llama)?),
            None => None,
        };
        let mut model = Self {
            vision: None,
            llama,
            draft,
            backend,
            spec,
            facts,
            can_shift,
            adapters,
            keeps_cells: !slides,
            shares,
            template: None,
            speech: Speech::default(),
            grammars: OnceLock::new(),
            breakers: Mutex::default(),
        };
        if let Some(projector) = &model.spec.projector {
            let on_gpu = model.spec.gpu_layers != 0;
            model.vision = Some(Vision::load(projector, &model.llama, model.threads().1, on_gpu)?);
        }
        if let Some(source) = model.template_source() {
            model.template = Some(model.chat_template(&source));
            model.speech = Speech::of(&source, |mark| model.special(mark));
        }
        Ok(model)
    }

    /// A context for this model, warmed up: what is computed with; with so many threads to decode a single token and for
    /// everything larger. The error says in words what is wrong.
    pub fn context(&self, (decoding, reading): (u32, u32)) -> Result<LlamaContext<'_>, String> {
        let threads = |count| i32::try_from(count).unwrap_or(i32::MAX);
        let kv_type = match self.spec.kv_type {
            KvType::F16 => KvCacheType::F16,
            KvType::Q8_0 => KvCacheType::Q8_0,
            KvType::Q4_0 => KvCacheType::Q4_0,
        };
        let batch = self.batch();
        // To generate, each sequence has cells of its own, so that none pays for attention to what idle ones hold, unless there
        // shall be fewer. To embed, all share those of one batch: else llama.cpp would cut a batch where lengths differ, and pool
        // each piece by itself.
        let cells = if self.pools() { batch } else { u32::try_from(self.facts.cells).unwrap_or(u32::MAX) };
        let mut params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(cells))
            .with_n_seq_max(self.sequences())
            .with_n_batch(batch)
            .with_n_ubatch(batch)
            .with_n_threads(threads(decoding))
            .with_n_threads_batch(threads(reading))
            .with_type_k(kv_type)
            .with_type_v(kv_type)
            .with_kv_unified(self.pools() || self.shares)
            .with_embeddings(self.pools());
        if self.pools() {
            match self.spec.pooling {
                Some(pooling) => params = params.with_pooling_type(llama_pooling(pooling)),
                None if self.names_pooling() => {}
                None => params = params.with_pooling_type(LlamaPoolingType::Mean),
            }
        }
        let fails = |error: &dyn std::fmt::Display| why("cannot start the model", error);
        let mut context = self.llama.new_context(&self.backend, params).map_err(|error| fails(&error))?;
        // One decode touches the weights, starts the threads and proves that the model computes, before anybody waits for it.
        let mut batch = LlamaBatch::new(1, 1);
        batch.add(llama_token(0), 0, &[0], true).map_err(|error| error.to_string())?;
        context.decode(&mut batch).map_err(|error| fails(&error))?;
        context.clear_kv_cache();
        self.vision.iter().try_for_each(|vision| vision.check(&mut context, &self.llama))?;
        Ok(context)
    }

    /// What guesses for the sequences of this model.
    pub fn speculation(&self) -> Result<Speculation<'_>, String> {
        if !can_forget(&self.llama) || !self.keeps_cells {
            return Ok(Speculation::off());
        }
        let (sequences, context) = (self.sequences(), self.facts.context);
        let drafter =
            self.draft.as_ref().map(|draft| draft.drafter(&self.backend, sequences, context, self.threads()));
        Ok(Speculation::new(self.spec.speculate.clone(), drafter.transpose()?))
    }

    /// Threads for decoding a single token and for everything larger.
    pub fn threads(&self) -> (u32, u32) {
        let available = || u32::try_from(threads::available()).unwrap_or(u32::MAX);
        let count = if self.spec.threads == 0 { available() } else { self.spec.threads };
        let is_tiny = self.spec.threads == 0 && self.llama.size() < TINY;
        (if is_tiny { 1 } else { count }, count)
    }

    /// Tokens in one batch, at most. An embedder may have to see all of an input at once, so there an input fits a batch.
    pub fn batch(&self) -> u32 {
        let least = if self.pools() { self.facts.context } else { self.sequences() };
        self.spec.batch.max(least)
    }

    /// The cells that its sequences share, if they do.
    pub fn shared_cells(&self) -> Option<usize> {
        self.shares.then(|| usize::try_from(self.facts.cells).unwrap_or(usize::MAX))
    }

    /// Whether it makes one vector or score of an input, instead of going on with it.
    pub fn pools(&self) -> bool {
        self.facts.embeds || self.facts.ranks
    }

    /// Bytes of its weights.
    pub fn weights(&self) -> u64 {
        self.llama.size()
    }

    /// Whether the saved state of a sequence can be cut to its beginning. Not where it is one state for all tokens, nor where only a
    /// window of them is saved.
    pub fn can_cut(&self) -> bool {
        let architecture = self.llama.meta_val_str("general.architecture").unwrap_or_default();
        let window = self.llama.meta_val_str(&format!("{architecture}.attention.sliding_window"));
        let slides = window.is_ok_and(|window| window != "0");
        !slides && !self.llama.is_recurrent() && !self.llama.is_hybrid()
    }

    /// Sequences in the context.
    pub fn sequences(&self) -> u32 {
        self.facts.parallel
    }

    /// Whether its file says how embeddings are pooled.
    fn names_pooling(&self) -> bool {
        let architecture = self.llama.meta_val_str("general.architecture").unwrap_or_default();
        self.llama.meta_val_str(&format!("{architecture}.pooling_type")).is_ok()
    }

    /// The text of its chat template: the configured one, else its own.
    fn template_source(&self) -> Option<String> {
        let own = || self.llama.chat_template(None).ok()?.to_string().ok();
        self.spec.template.clone().or_else(own)
    }

    fn chat_template(&self, source: &str) -> Result<ChatTemplate, String> {
        let text = |token| token_text(&self.llama, token);
        let (bos, eos) = (text(self.llama.vocab().bos()), text(self.llama.vocab().eos()));
        ChatTemplate::jinja(source, &bos, &eos).map_err(|error| error.to_string())
    }
}

/// Why llama.cpp failed, from what it logged, for its functions return nothing. `otherwise` is the heading where its words fall
/// under no other.
pub fn why(otherwise: &str, error: &dyn std::fmt::Display) -> String {
    // The first line is the cause, those after it are its consequences.
    let line = log::take_errors().into_iter().next().unwrap_or_else(|| error.to_string());
    explain(otherwise, &line)
}

/// Puts a line of llama.cpp's log under a heading, without the names of functions that it begins with.
fn explain(otherwise: &str, line: &str) -> String {
    let is_function =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut said = line;
    while let Some((part, rest)) = said.split_once(": ") {
        if !is_function(part) && part != "error loading model" {
            break;
        }
        said = rest;
    }
    if let Some(name) = said.strip_prefix("unknown model architecture: ") {
        return format!("unsupported architecture: {}", name.trim_matches('\''));
    }
    let lower = said.to_lowercase();
    let memory = ["alloc", "out of memory", "failed to create buffer", "kv buffer"];
    let is_memory = memory.iter().any(|word| lower.contains(word));
    format!("{}: {said}", if is_memory { "not enough memory" } else { otherwise })
}

#[cfg(test)]
mod tests;
