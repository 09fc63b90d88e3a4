//! [`Estimate`]: what a worker of a model takes, worked out from the header of its file before anything is loaded.
//!
//! What is computed: weights by layer, so that any split between GPU and host can be priced; the KV cells of layers that attend,
//! the state of those that are recurrent; what computing takes beside. Constants that no file tells were measured with the workers
//! themselves (see there), and what is measured of a model replaces all of it the next time ([`super::Ledger`]). Uses `gguf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::generation::seam::KvType;
use crate::gguf::{Header, Tensor};
use crate::units::Indices;

/// What an idle worker's process takes without a model.
const PROCESS: u64 = 5 << 20;
/// What llama.cpp and the engine keep of a token of the vocabulary: its text and score, twice by hash, its merges.
const TOKEN: u64 = 300;
/// What llama.cpp notes of a KV cell beside its keys and values (`llama_kv_cells`): position, shift and a bit per sequence.
const CELL: u64 = 48;
/// Cells come in pieces of so many.
const CELLS: u64 = 256;
/// Numbers that are of few bits come in blocks of so many.
const BLOCK: u64 = 32;
/// Bytes of a number while computing.
const FLOAT: u64 = 4;
/// Hidden states that are alive at once while a layer computes: its input, the norm of that, queries, keys, values and output.
const HIDDEN: u64 = 6;

/// The types whose matrices llama.cpp's CPU backend copies in an order of its own when it loads them (`repack.cpp`), by ggml's
/// number: Q4_0, Q4_K, IQ4_NL and MXFP4 on every machine it has fast code for; of the others Q8_0, Q5_K and Q6_K on ARM.
const REPACKED: &[u32] =
    if cfg!(target_arch = "aarch64") { &[2, 8, 12, 13, 14, 20, 39] } else { &[2, 12, 20, 39] };

/// How a worker is to be run, as far as it costs memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Context per sequence in tokens; 0: the usual one.
    pub context: u32,
    /// Sequences.
    pub parallel: u32,
    /// Cells that sequences share; 0: each has its own.
    pub cells: u32,
    /// Number format of the cells.
    pub kv_type: KvType,
    /// Tokens per step.
    pub batch: u32,
    /// The file is mapped.
    pub mmap: bool,
    /// It generates, rather than making a vector or a score of its input.
    pub completes: bool,
}

/// Bytes of one part of a model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    all: u64,
    /// Those of [`Weights::all`] that the host computes with in another order, of which it makes a copy.
    repacked: u64,
}

/// One layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layer {
    weights: Weights,
    /// KV cells or state of all sequences.
    memory: u64,
}

/// What a worker takes, before it is said where its layers go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Context per sequence in tokens, by the engine's rule.
    pub context: u32,
    /// Whether the KV cells can be of another number format: those come in blocks that a head has to be made of.
    pub quantizes: bool,
    file: PathBuf,
    mmap: bool,
    /// Token embeddings and what else is looked up rather than computed with: on the host always.
    input: Weights,
    layers: Vec<Layer>,
    /// Behind the last layer.
    output: Weights,
    process: u64,
    compute: u64,
    /// What computing reserves on a GPU beside [`Estimate::compute`]: logits of all tokens of a step. On the host that is address
    /// space which nobody touches.
    logits: u64,
}

/// Bytes that a worker takes, by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Of mapped files, by path: there once, however many workers map them.
    pub mapped: BTreeMap<PathBuf, u64>,
    /// Ordinary memory of the process, once it serves.
    pub private: u64,
    /// The same, taken by computing for the first time.
    pub compute: u64,
    /// On GPUs, all of them together.
    pub device: u64,
    /// What of that is on GPUs that were chosen, by number.
    pub gpus: BTreeMap<usize, u64>,
}

impl Need {
    /// On the host, if nobody else maps its files.
    pub fn host(&self) -> u64 {
        self.mapped.values().fold(self.own(), |sum, bytes| sum.saturating_add(*bytes))
    }

    /// On the host, without mapped files.
    pub fn own(&self) -> u64 {
        self.private.saturating_add(self.compute)
    }

    /// Of so many processes.
    pub fn times(&self, count: u64) -> Self {
        let times = |bytes: u64| bytes.saturating_mul(count);
        Self {
            mapped: self.mapped.clone(),
            private: times(self.private),
            compute: times(self.compute),
            device: times(self.device),
            gpus: self.gpus.iter().map(|(gpu, bytes)| (*gpu, times(*bytes))).collect(),
        }
    }

    /// Says on which GPUs so many of its bytes are: on all of them alike.
    pub fn put(&mut self, bytes: u64, gpus: &Indices) {
        for gpu in gpus.iter() {
            let there = self.gpus.entry(gpu).or_default();
            *there = there.saturating_add(bytes / gpus.count() as u64);
        }
    }

    /// What both take together, in one process.
    pub fn with(mut self, other: Self) -> Self {
        for (file, bytes) in other.mapped {
            let mapped = self.mapped.entry(file).or_default();
            *mapped = bytes.max(*mapped);
        }
        self.private = self.private.saturating_add(other.private);
        self.compute = self.compute.saturating_add(other.compute);
        self.device = self.device.saturating_add(other.device);
        self
    }
}

impl Estimate {
    /// Of a worker that runs the model in `file`, whose header this is, by `plan`.
    pub fn new(header: &Header, file: &Path, plan: &Plan) -> Self {
        let facts = Facts::new(header);
        let (mut input, mut output) = (Weights::default(), Weights::default());
        let mut layers = vec![Layer::default(); facts.layers];
        for tensor in &header.tensors {
            let weights = weights(tensor);
            let part = match layer_of(&tensor.name) {
                Some(layer) => layers.get_mut(layer).map(|layer| &mut layer.weights),
                None => None,
            };
            // Embeddings may also be the output, but then as they are.
            let is_input = tensor.name.contains("_embd");
            let part = part.unwrap_or(if is_input { &mut input } else { &mut output });
            part.all = part.all.saturating_add(weights.all);
            part.repacked = part.repacked.saturating_add(if is_input { 0 } else { weights.repacked });
        }
        let (streams, cells) = facts.cells(plan);
        for (index, layer) in layers.iter_mut().enumerate() {
            layer.memory = facts.memory(index, streams, cells, plan);
        }
        let batch = u64::from(facts.batch(plan));
        let hidden = facts.embedding.saturating_mul(HIDDEN);
        let wide = facts.feed_forward.saturating_mul(2).saturating_add(hidden).saturating_add(cells);
        // Logits twice: llama.cpp's and those that are sampled from.
        let sampled = facts.vocabulary.saturating_mul(2 * u64::from(plan.parallel.max(1)));
        Self {
            context: u32::try_from(facts.context(plan)).unwrap_or(u32::MAX),
            quantizes: (0..facts.layers).all(|layer| facts.quantizes(layer)),
            file: file.to_owned(),
            mmap: plan.mmap,
            input,
            layers,
            output,
            process: facts.vocabulary.saturating_mul(TOKEN).saturating_add(PROCESS),
            compute: batch.saturating_mul(wide).saturating_add(sampled).saturating_mul(FLOAT),
            logits: facts.vocabulary.saturating_mul(batch * FLOAT),
        }
    }

    /// Layers that can be on a GPU, what comes behind the last one included.
    pub fn layers(&self) -> u32 {
        u32::try_from(self.layers.len() + 1).unwrap_or(u32::MAX)
    }

    /// What it takes where the last `gpu_layers` layers are on a GPU; -1: all, 0: none. One more than there are layers has
    /// what comes behind them there too (llama.cpp's `i_gpu_start`).
    pub fn need(&self, gpu_layers: i32) -> Need {
        let count = self.layers.len() + 1;
        let on_gpu = usize::try_from(gpu_layers).unwrap_or(count).min(count);
        let first = count - on_gpu;
        let mut host = self.input;
        let (mut memory, mut device) = (0_u64, 0_u64);
        let output = Layer { weights: self.output, memory: 0 };
        for (index, layer) in self.layers.iter().chain([&output]).enumerate() {
            if index >= first {
                device = device.saturating_add(layer.weights.all).saturating_add(layer.memory);
            } else {
                host.all = host.all.saturating_add(layer.weights.all);
                host.repacked = host.repacked.saturating_add(layer.weights.repacked);
                memory = memory.saturating_add(layer.memory);
            }
        }
        if on_gpu > 0 {
            device = device.saturating_add(self.compute).saturating_add(self.logits);
        }
        // Pages of which there is a copy are not looked at again, so they give way before anything else does.
        let (mapped, copied) =
            if self.mmap { (host.all - host.repacked, host.repacked) } else { (0, host.all) };
        let private = self.process.saturating_add(copied).saturating_add(memory);
        let mapped = (mapped > 0).then(|| (self.file.clone(), mapped)).into_iter().collect();
        Need { mapped, private, compute: self.compute, device, gpus: BTreeMap::new() }
    }
}

/// The layer that a tensor belongs to.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

fn weights(tensor: &Tensor) -> Weights {
    let all = tensor.place.end.saturating_sub(tensor.place.start);
    let rows = tensor.shape.get(1).copied().unwrap_or(1);
    let is_copied = tensor.shape.len() >= 2 && rows.is_multiple_of(8) && REPACKED.contains(&tensor.kind);
    Weights { all, repacked: if is_copied { all } else { 0 } }
}

/// What the key/values say, and what of it is to be learned from the tensors.
struct Facts<'a> {
    header: &'a Header,
    architecture: &'a str,
    layers: usize,
    embedding: u64,
    feed_forward: u64,
    vocabulary: u64,
    trained: u64,
    /// Layers with keys and values, and with a state.
    attends: Vec<bool>,
    recurs: Vec<bool>,
}

impl<'a> Facts<'a> {
    fn new(header: &'a Header) -> Self {
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
    fn context(&self, plan: &Plan) -> u64 {
        let usual = if plan.completes { 4096 } else { 2048 };
        let wanted = if plan.context == 0 { usual } else { plan.context.into() };
        if self.trained == 0 { wanted } else { wanted.min(self.trained) }
    }

    /// Tokens in a step, by the engine's rule.
    fn batch(&self, plan: &Plan) -> u32 {
        let least = if plan.completes {
            plan.parallel
        } else {
            u32::try_from(self.context(plan)).unwrap_or(u32::MAX)
        };
        plan.batch.max(least)
    }

    /// Streams of cells, and cells in each. Windows do not make them fewer: llama.cpp's `swa_full` is on, for only so can what a
    /// slot holds be used again.
    fn cells(&self, plan: &Plan) -> (u64, u64) {
        let shares = plan.cells > 0 && !self.recurs.contains(&true);
        let (streams, cells) = match (plan.completes, shares) {
            (false, _) => (1, self.batch(plan).into()),
            (true, true) => (1, plan.cells.into()),
            (true, false) => (plan.parallel.max(1).into(), self.context(plan)),
        };
        (streams, cells.div_ceil(CELLS).saturating_mul(CELLS))
    }

    /// Bytes that a layer keeps of what it has read.
    fn memory(&self, layer: usize, streams: u64, cells: u64, plan: &Plan) -> u64 {
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

    fn quantizes(&self, layer: usize) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;
    use crate::gguf::{self, Detail};

    const MIB: u64 = 1 << 20;

    fn plan() -> Plan {
        Plan {
            context: 4096,
            parallel: 4,
            cells: 0,
            kv_type: KvType::F16,
            batch: 512,
            mmap: true,
            completes: true,
        }
    }

    fn estimate(file: Writer, plan: &Plan) -> Estimate {
        let file = file.head();
        // As long as a file may be: tensors are described, not written.
        let header = gguf::read(file.as_slice(), 1 << 50, Detail::Layers).unwrap();
        Estimate::new(&header, Path::new("/m.gguf"), plan)
    }

    /// The shape of Qwen2.5-0.5B in Q4_0, the fixture `bench-llama`.
    fn half_a_billion() -> Writer {
        let mut file = Writer::default()
            .string("general.architecture", "llama")
            .u32("llama.block_count", 24)
            .u32("llama.context_length", 32_768)
            .u32("llama.embedding_length", 896)
            .u32("llama.feed_forward_length", 4864)
            .u32("llama.attention.head_count", 14)
            .u32("llama.attention.head_count_kv", 2)
            .tensor("token_embd.weight", 8, &[896, 151_936]);
        for layer in 0..24 {
            for (name, inputs, outputs) in [
                ("attn_q", 896, 896),
                ("attn_k", 896, 128),
                ("attn_v", 896, 128),
                ("attn_output", 896, 896),
                ("ffn_gate", 896, 4864),
                ("ffn_up", 896, 4864),
                ("ffn_down", 4864, 896),
            ] {
                file = file.tensor(&format!("blk.{layer}.{name}.weight"), 2, &[inputs, outputs]);
            }
        }
        file
    }

    /// A layer that attends, with keys of so many rows.
    fn attention(file: Writer, layer: usize, rows: u64) -> Writer {
        file.tensor(&format!("blk.{layer}.attn_k.weight"), 0, &[64, rows])
    }

    fn small(architecture: &str) -> Writer {
        let key = |key: &str| format!("{architecture}.{key}");
        Writer::default()
            .string("general.architecture", architecture)
            .u32(&key("embedding_length"), 64)
            .u32(&key("attention.head_count"), 4)
    }

    fn memory(estimate: &Estimate) -> Vec<u64> {
        estimate.layers.iter().map(|layer| layer.memory).collect()
    }

    #[test]
    fn the_estimate_is_what_workers_were_measured_to_take() {
        // RssAnon of real workers of the fixture on x86-64 when they became ready.
        for (plan, measured) in [
            (plan(), 432.6),
            (Plan { context: 512, parallel: 1, ..plan() }, 244.8),
            (Plan { kv_type: KvType::Q8_0, ..plan() }, 342.8),
            (Plan { cells: 8192, ..plan() }, 336.6),
            (Plan { context: 16_384, parallel: 1, ..plan() }, 431.6),
            (Plan { context: 512, parallel: 1, mmap: false, ..plan() }, 385.3),
        ] {
            let private = estimate(half_a_billion(), &plan).need(0).private as f64 / MIB as f64;
            assert!((private / measured - 1.0).abs() < 0.03, "{private:.1} for {measured}: {plan:?}");
        }
        // What a prompt of 500 tokens added.
        let compute = estimate(half_a_billion(), &plan()).compute as f64 / MIB as f64;
        assert!((37.0..56.0).contains(&compute), "{compute:.1}");
    }

    #[test]
    fn mapped_files_count_once_and_what_is_copied_of_them_instead() {
        let need = estimate(half_a_billion(), &plan()).need(0);
        let weights = 329.9 * MIB as f64;
        let layers = 192.0 * MIB as f64;
        let mapped = need.mapped[Path::new("/m.gguf")] as f64;
        if cfg!(target_arch = "x86_64") {
            assert!((mapped / (weights - layers) - 1.0).abs() < 0.01, "{mapped}");
        }
        let read = estimate(half_a_billion(), &Plan { mmap: false, ..plan() }).need(0);
        assert!(read.mapped.is_empty());
        assert_eq!(read.host(), need.host());
    }

    #[test]
    fn layers_go_to_the_gpu_from_the_last_one_on() {
        let estimate = estimate(half_a_billion(), &plan());
        let needs: Vec<_> = (-1..=25).map(|layers| estimate.need(layers)).collect();
        assert_eq!(needs[0], needs[26], "-1 is all of them and what comes behind");
        let devices: Vec<_> = needs[1..].iter().map(|need| need.device).collect();
        assert_eq!(devices[0], 0);
        assert!(devices.is_sorted());
        let hosts: Vec<_> = needs[1..].iter().map(Need::host).collect();
        assert!(hosts.is_sorted_by(|a, b| a >= b));
        // A layer that moves is on the other side in full.
        assert_eq!(devices[3] - devices[2], hosts[2] - hosts[3]);
    }

    #[test]
    fn cells_are_quantised_where_heads_are_made_of_whole_blocks() {
        let file = |width: u32| small("llama").u32("llama.attention.key_length", width);
        let quantizes = |width| {
            let file = file(width).u32("llama.attention.value_length", 64);
            estimate(attention(file, 0, 64), &plan()).quantizes
        };
        assert!(quantizes(64) && !quantizes(80));
        assert_eq!(estimate(half_a_billion(), &Plan { context: 0, ..plan() }).context, 4096);
        assert_eq!(estimate(half_a_billion(), &plan()).layers(), 25);
    }

    #[test]
    fn heads_may_differ_by_layer() {
        let file = small("deci").u32s("deci.attention.head_count_kv", &[4, 2, 0]);
        let file = (0..3).fold(file, |file, layer| attention(file, layer, 64));
        let found = estimate(file, &Plan { context: 256, parallel: 1, ..plan() });
        let cell = |heads: u64| (2 * heads * 16 * 2 + CELL / 3) * 256;
        assert_eq!(memory(&found), [cell(4), cell(2), cell(0)]);
    }

    #[test]
    fn latent_attention_keeps_no_values() {
        let file = small("deepseek2")
            .u32("deepseek2.attention.head_count_kv", 1)
            .u32("deepseek2.attention.key_length", 576)
            .u32("deepseek2.attention.value_length", 512)
            .u32("deepseek2.attention.key_length_mla", 192)
            .tensor("blk.0.attn_kv_a_mqa.weight", 0, &[64, 576]);
        let found = estimate(file, &Plan { context: 256, parallel: 1, ..plan() });
        assert_eq!(memory(&found), [(576 * 2 + CELL) * 256]);
    }

    #[test]
    fn a_recurrent_layer_keeps_a_state_and_a_hybrid_both_kinds() {
        let file = small("jamba")
            .u32s("jamba.attention.head_count_kv", &[0, 2])
            .u32("jamba.ssm.conv_kernel", 4)
            .u32("jamba.ssm.inner_size", 128)
            .u32("jamba.ssm.state_size", 16)
            .tensor("blk.0.ssm_in.weight", 0, &[64, 256]);
        let found = estimate(attention(file, 1, 32), &Plan { context: 256, parallel: 2, ..plan() });
        assert_eq!(memory(&found), [4 * 2 * (3 * 128 + 16 * 128), (2 * 2 * 16 * 2 + CELL / 2) * 512]);
    }

    #[test]
    fn an_encoder_keeps_nothing_and_an_embedder_the_cells_of_one_batch() {
        let embeds = Plan { context: 2048, completes: false, ..plan() };
        let encoder = small("bert").flag("bert.attention.causal", false);
        assert_eq!(memory(&estimate(attention(encoder, 0, 64), &embeds)), [0]);
        let decoder = estimate(attention(small("llama"), 0, 64), &embeds);
        assert_eq!(memory(&decoder), [(2 * 64 * 2 + CELL) * 2048]);
    }

    #[test]
    fn two_models_in_a_process_add_up_and_share_their_file() {
        let need = |mapped: u64, private| Need {
            mapped: BTreeMap::from([("/m".into(), mapped)]),
            private,
            ..Need::default()
        };
        assert_eq!(need(5, 1).with(need(7, 2)), need(7, 3));
        assert_eq!(need(7, 3).host(), 10);
    }

    proptest::proptest! {
        /// Whatever numbers a file claims.
        #[test]
        fn no_header_makes_it_panic(numbers in proptest::collection::vec(proptest::prelude::any::<u32>(), 9), context: u32, parallel: u32) {
            let keys = [
                "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
                "ssm.inner_size", "ssm.state_size", "ssm.conv_kernel", "wkv.head_size",
            ];
            let file = Writer::default().string("general.architecture", "x");
            let file = keys.iter().zip(numbers).fold(file, |file, (key, n)| file.u32(&format!("x.{key}"), n));
            let file = attention(file, 0, 64).tensor("blk.0.ssm_in.weight", 0, &[64, 256]);
            let plan = Plan { context, parallel: parallel % 256, ..plan() };
            let _ = estimate(file, &plan).need(-1).host();
        }
    }
}
