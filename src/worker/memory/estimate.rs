//! [`Estimate`]: what a worker of a model takes, worked out from the header of its file before anything is loaded.
//!
//! What is computed: weights by layer, so that any split between GPU and host can be priced; what layers keep (`facts`); what computing
//! takes beside. Constants that no file tells were measured with the workers themselves (see there), and what is measured of a model
//! replaces all of it the next time ([`super::Ledger`]). Uses `gguf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::facts::{FLOAT, Facts, layer_of};
use super::need::Need;
use crate::generation::seam::KvType;
use crate::gguf::{Header, Tensor};

/// What an idle worker's process takes without a model.
const PROCESS: u64 = 5 << 20;
/// What llama.cpp and the engine keep of a token of the vocabulary: its text and score, twice by hash, its merges.
const TOKEN: u64 = 300;
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

fn weights(tensor: &Tensor) -> Weights {
    let all = tensor.place.end.saturating_sub(tensor.place.start);
    let rows = tensor.shape.get(1).copied().unwrap_or(1);
    let is_copied = tensor.shape.len() >= 2 && rows.is_multiple_of(8) && REPACKED.contains(&tensor.kind);
    Weights { all, repacked: if is_copied { all } else { 0 } }
}

#[cfg(test)]
mod tests {
    use super::super::facts::CELL;
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
