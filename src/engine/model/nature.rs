//! What a loaded model is, and what its memory can do.

use llama_cpp_2::model::{LlamaModel, RopeType};

use super::vocabulary::infill;
use crate::engine::purpose::Purpose;
use crate::generation::seam::{KvType, Model as Facts, Spec};

/// Context per sequence where nobody says.
const CONTEXT: u32 = 4096;

/// The same for an embedder. llama.cpp keeps room for the logits of every token of a batch though nobody reads them: with a
/// vocabulary of 150,000 tokens that is 0.6 MB for each token of the longest input.
const EMBEDDER_CONTEXT: u32 = 2048;

/// `cells`: those that sequences share; 0: they share none.
pub(super) fn facts(llama: &LlamaModel, purpose: Purpose, spec: &Spec, cells: u32) -> Facts {
    let trained = llama.n_ctx_train();
    let completes = purpose == Purpose::Generate;
    let usual = if completes { CONTEXT } else { EMBEDDER_CONTEXT };
    let context = context_length(spec.context, usual, trained);
    // A sequence can have all that there are, so that whatever fits its context can run.
    let context = if cells == 0 { context } else { context.min(cells) };
    let parallel = spec.parallel.max(1);
    Facts {
        context,
        parallel,
        cells: if cells == 0 { u64::from(context) * u64::from(parallel) } else { cells.into() },
        trained_context: trained,
        embedding_length: llama.n_embd_out().try_into().unwrap_or(0),
        completes,
        embeds: purpose == Purpose::Embed,
        ranks: purpose == Purpose::Rank,
        infills: completes && infill(llama).is_some(),
    }
}

/// Context per sequence: what was asked for, or the usual one; never more than trained.
pub(super) fn context_length(asked: u32, usual: u32, trained: u32) -> u32 {
    let wanted = if asked == 0 { usual } else { asked };
    if trained == 0 { wanted } else { wanted.min(trained) }
}

/// llama.cpp ends the process when it has to shift a cache that cannot be shifted, and llama-cpp-2 does not wrap the question.
/// These are the cases of its `get_can_shift`; the memories that keep no cell per token; and quantised caches, where this version
/// crashes.
pub(super) fn can_shift(llama: &LlamaModel, architecture: &str, kv_type: KvType) -> bool {
    can_forget(llama) && !has_planes(llama) && architecture != "step35" && kv_type == KvType::F16
}

/// Whether a token can have several positions, as parts of a picture do that stand in a plane.
pub(super) fn has_planes(llama: &LlamaModel) -> bool {
    matches!(llama.rope_type(), Some(RopeType::MRope | RopeType::IMRope | RopeType::Vision))
}

/// Whether its memory has a cell per token, which can be freed again.
pub(super) fn can_forget(llama: &LlamaModel) -> bool {
    !llama.is_recurrent() && !llama.is_hybrid()
}

/// Whether a layer of the model attends to a window only. llama-cpp-2 does not wrap the question: the key says so, or it is one
/// of those that have a window without it.
pub(super) fn slides(llama: &LlamaModel, architecture: &str) -> bool {
    let window = llama.meta_val_str(&format!("{architecture}.attention.sliding_window")).ok();
    let has_window = window.and_then(|value| value.parse::<u32>().ok()).is_some_and(|window| window > 0);
    has_window || ["gemma2", "llama4", "exaone4", "exaone-moe"].contains(&architecture)
}
