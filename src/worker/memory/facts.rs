//! [`Facts`]: what a header says of a model, as far as it costs memory: what each of its layers keeps of what it has read, and the
//! sizes that computing goes by.

use serde_json::Value;

use super::estimate::Plan;
use crate::generation::seam::KvType;
use crate::gguf::Header;

/// What llama.cpp notes of a KV cell beside its keys and values (`llama_kv_cells`): position, shift and a bit per sequence.
pub(super) const CELL: u64 = 48;
/// Cells come in pieces of so many.
const CELLS: u64 = 256;
/// Numbers that are of few bits come in blocks of so many.
const BLOCK: u64 = 32;
/// Bytes of a number while computing.
pub(super) const FLOAT: u64 = 4;

/// What the key/values say, and what of it is to be learned from the tensors.
pub(super) struct Facts<'a> {
    header: &'a Header,
    architecture: &'a str,
    pub(super) layers: usize,
    pub(super) embedding: u64,
    pub(super) feed_forward: u64,
    pub(super) vocabulary: u64,
    trained: u64,
    /// Layers with keys and values, and with a state.
    attends: Vec<bool>,
    recurs: Vec<bool>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(header: &'a Header) -> Self {
        let architecture = header.metadata.get("general.architecture").and_then(Value::as_str).unwrap_or("");
        let rows = |name: &str| {
            let tensor = header.tensors.iter().find(|tensor| tensor.name == name)?;
            tensor.shape.get(1).copied()
        };
        let mut facts = Self {
            header,
            architecture,
            layers: 0,
            embedding: 0,
            feed_forward: 0,
            vocabulary: rows("token_embd.weight").unwrap_or(0),
            trained: 0,
            attends: Vec::new(),
            recurs: Vec::new(),
        };
        let last = header.tensors.iter().filter_map(|tensor| layer_of(&tensor.name)).max();
        // A file may claim any number; only layers that are there cost anything.
        facts.layers = last.map_or(0, |last| (last + 1).min(header.tensors.len()));
        facts.embedding = facts.number("embedding_length").unwrap_or(0);
        facts.feed_forward =
            (0..facts.layers).filter_map(|i| facts.at("feed_forward_length", i)).max().unwrap_or(0);
        facts.trained = facts.number("context_length").unwrap_or(0);
        facts.look_at_layers();
        facts
    }

    /// What a layer keeps is known by what it computes with: no key says it for all architectures.
    fn look_at_layers(&mut self) {
        self.attends = vec![false; self.layers];
        self.recurs = vec![false; self.layers];
        let causal = self.value("attention.causal").and_then(Value::as_bool);
        let keeps = causal.unwrap_or(!self.architecture.contains("bert"));
        // The last layers of some (Gemma 3n) look at the keys and values of earlier ones.
        let shared = self.number("attention.shared_kv_layers").unwrap_or(0);
        let own = self.layers.saturating_sub(usize::try_from(shared).unwrap_or(usize::MAX));
        for tensor in &self.header.tensors {
            let Some(layer) = layer_of(&tensor.name).filter(|layer| *layer < self.layers) else { continue };
            let Some(part) = tensor.name.splitn(3, '.').nth(2) else { continue };
            let has_keys = ["attn_k.", "attn_qkv.", "attn_kv_a"].iter().any(|name| part.starts_with(name));
            self.attends[layer] |= has_keys && keeps && layer < own;
            self.recurs[layer] |= part.starts_with("ssm_") || part.starts_with("time_mix_");
        }
        for layer in 0..self.layers {
            // Where a state takes the place of attention, its projections are called alike.
            if self.recurs[layer] && self.at("attention.head_count_kv", layer) == Some(0) {
                self.attends[layer] = false;
            }
        }
        let interval = self.number("full_attention_interval").and_then(|every| usize::try_from(every).ok());
        if let Some(every) = interval.filter(|every| *every > 0) {
            self.attends.iter_mut().enumerate().for_each(|(i, attends)| *attends &= (i + 1) % every == 0);
        }
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.header.metadata.get(&format!("{}.{key}", self.architecture))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    /// What the key says of a layer: one number for all, or one for each.
    fn at(&self, key: &str, layer: usize) -> Option<u64> {
        match self.value(key)? {
            Value::Array(values) => values.get(layer)?.as_u64(),
            value => value.as_u64(),
        }
    }

    /// The context of a sequence, by the engine's rule.
    pub(super) fn context(&self, plan: &Plan) -> u64 {
        let usual = if plan.completes { 4096 } else { 2048 };
        let wanted = if plan.context == 0 { usual } else { plan.context.into() };
        if self.trained == 0 { wanted } else { wanted.min(self.trained) }
    }

    /// Tokens in a step, by the engine's rule.
    pub(super) fn batch(&self, plan: &Plan) -> u32 {
        let least = if plan.completes {
            plan.parallel
        } else {
            u32::try_from(self.context(plan)).unwrap_or(u32::MAX)
        };
        plan.batch.max(least)
    }

    /// Streams of cells, and cells in each. Windows do not make them fewer: llama.cpp's `swa_full` is on, for only so can what a
    /// slot holds be used again.
    pub(super) fn cells(&self, plan: &Plan) -> (u64, u64) {
        let shares = plan.cells > 0 && !self.recurs.contains(&true);
        let (streams, cells) = match (plan.completes, shares) {
            (false, _) => (1, self.batch(plan).into()),
            (true, true) => (1, plan.cells.into()),
            (true, false) => (plan.parallel.max(1).into(), self.context(plan)),
        };
        (streams, cells.div_ceil(CELLS).saturating_mul(CELLS))
    }

    /// Bytes that a layer keeps of what it has read.
    pub(super) fn memory(&self, layer: usize, streams: u64, cells: u64, plan: &Plan) -> u64 {
        let kept = if self.attends[layer] {
            let cells = streams.saturating_mul(cells);
            let [keys, values] =
                [self.keys(layer), self.values(layer)].map(|row| quantized(row, plan.kv_type));
            // There is one note for all layers.
            let notes = cells.saturating_mul(CELL) / self.layers as u64;
            keys.saturating_add(values).saturating_mul(cells).saturating_add(notes)
        } else {
            0
        };
        let sequences = u64::from(plan.parallel.max(1));
        let state = if self.recurs[layer] { self.state().saturating_mul(FLOAT * sequences) } else { 0 };
        kept.saturating_add(state)
    }

    fn heads(&self, layer: usize) -> u64 {
        let all = self.at("attention.head_count", layer).unwrap_or(1).max(1);
        self.at("attention.head_count_kv", layer).unwrap_or(all)
    }

    fn width(&self, key: &str, layer: usize) -> u64 {
        let heads = self.at("attention.head_count", layer).unwrap_or(1).max(1);
        self.number(key).unwrap_or(self.embedding / heads)
    }

    pub(super) fn quantizes(&self, layer: usize) -> bool {
        let widths = ["attention.key_length", "attention.value_length"].map(|key| self.width(key, layer));
        !self.attends[layer] || widths.iter().all(|width| width.is_multiple_of(BLOCK))
    }

    /// Numbers in the keys of a token.
    fn keys(&self, layer: usize) -> u64 {
        self.width("attention.key_length", layer).saturating_mul(self.heads(layer))
    }

    /// The same for values. Multi-head latent attention has them in the keys.
    fn values(&self, layer: usize) -> u64 {
        if self.number("attention.key_length_mla").is_some_and(|length| length > 0) {
            return 0;
        }
        self.width("attention.value_length", layer).saturating_mul(self.heads(layer))
    }

    /// Numbers of the state of a sequence in a recurrent layer (llama.cpp's `n_embd_r` and `n_embd_s`).
    fn state(&self) -> u64 {
        let number = |key: &str| self.number(key).unwrap_or(0);
        let wkv = number("wkv.head_size");
        if wkv > 0 {
            return self
                .embedding
                .saturating_mul(wkv.saturating_add(self.number("token_shift_count").unwrap_or(2)));
        }
        let (inner, state) = (number("ssm.inner_size"), number("ssm.state_size"));
        let wide = inner.saturating_add(number("ssm.group_count").saturating_mul(2).saturating_mul(state));
        let kernel = number("ssm.conv_kernel").saturating_sub(1);
        kernel.saturating_mul(wide).saturating_add(state.saturating_mul(inner))
    }
}

/// Bytes of a row of so many numbers.
fn quantized(numbers: u64, kv_type: KvType) -> u64 {
    match kv_type {
        KvType::F16 => numbers.saturating_mul(2),
        KvType::Q8_0 => numbers.div_ceil(BLOCK).saturating_mul(34),
        KvType::Q4_0 => numbers.div_ceil(BLOCK).saturating_mul(18),
    }
}

/// The layer that a tensor belongs to.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}
