//! Checks a LoRA adapter against the model that it is for. llama.cpp compares names and two of the lengths; what does not fit beyond
//! that, it finds out in the middle of a computation and ends the process.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::gguf::{Header, Tensor};

/// ggml's numbers of the element types that adapters are made of (`convert_lora_to_gguf.py`): F32, F16, Q8_0, BF16. With others the
/// CPU may not be able to multiply.
const KINDS: [u32; 4] = [0, 1, 8, 30];
/// Of a model's weights, the type that llama.cpp does not adapt everywhere.
const NVFP4: u32 = 40;

/// The matrix that turns tokens into vectors; its adapter's matrices are the other way round (`llm_graph_context::build_inp_embd`).
const EMBEDDING: &str = "token_embd.weight";

/// Checks the file at `path` against the headers of the model's files. The error says what is wrong with it.
pub fn check(path: &Path, model: &[Header]) -> Result<(), String> {
    let adapter = super::read(path)?;
    let fits = check_metadata(&adapter, model).and_then(|()| check_tensors(&adapter, model));
    fits.map_err(|reason| format!("bad adapter: {}: {reason}", path.display()))
}

fn check_metadata(adapter: &Header, model: &[Header]) -> Result<(), String> {
    let text =
        |header: &Header, key: &str| header.metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let own = |key: &str| text(adapter, key);
    if own("general.type").as_deref() != Some("adapter") || own("adapter.type").as_deref() != Some("lora") {
        return Err("not a LoRA adapter".to_owned());
    }
    let of_model = model.first().and_then(|header| text(header, "general.architecture")).unwrap_or_default();
    let for_models = own("general.architecture").unwrap_or_default();
    if for_models != of_model {
        return Err(format!("for models of the architecture {for_models:?}; this one is {of_model:?}"));
    }
    // Neither NaN nor infinity is a JSON number.
    if let Some(alpha) = adapter.metadata.get("adapter.lora.alpha").filter(|alpha| !alpha.is_number()) {
        return Err(format!("adapter.lora.alpha is {alpha}"));
    }
    match adapter.metadata.contains_key("adapter.alora.invocation_tokens") {
        true => Err("activated adapters (aLoRA) are not supported".to_owned()),
        false => Ok(()),
    }
}

fn check_tensors(adapter: &Header, model: &[Header]) -> Result<(), String> {
    let model: HashMap<&str, &Tensor> = model
        .iter()
        .flat_map(|header| &header.tensors)
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let mut pairs: BTreeMap<&str, [Option<&Tensor>; 2]> = BTreeMap::new();
    for tensor in &adapter.tensors {
        let (name, half) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".lora_b")) {
            (Some(name), _) => (name, 0),
            (None, Some(name)) => (name, 1),
            // llama.cpp passes over them.
            (None, None) if tensor.name.ends_with("_norm.weight") => continue,
            (None, None) => {
                return Err(format!("tensor {} is no part of a pair", tensor.name.escape_debug()));
            }
        };
        if !KINDS.contains(&tensor.kind) {
            return Err(format!("tensor {} is not of F32, F16, BF16 or Q8_0", tensor.name.escape_debug()));
        }
        pairs.entry(name).or_default()[half] = Some(tensor);
    }
    if pairs.is_empty() {
        return Err("it holds no matrices".to_owned());
    }
    for (name, halves) in pairs {
        check_pair(name, halves, &model)
            .map_err(|reason| format!("its matrices for {} {reason}", name.escape_debug()))?;
    }
    Ok(())
}

/// The error goes behind the name of the tensor.
fn check_pair(
    name: &str,
    halves: [Option<&Tensor>; 2],
    model: &HashMap<&str, &Tensor>,
) -> Result<(), String> {
    let [Some(a), Some(b)] = halves else { return Err("are no pair".to_owned()) };
    let Some(adapted) = model.get(name) else {
        return Err("are for a tensor that the model lacks".to_owned());
    };
    if adapted.kind == NVFP4 {
        return Err("are for a tensor of NVFP4, which cannot be adapted".to_owned());
    }
    if name == EMBEDDING && !model.contains_key("output.weight") {
        return Err("are for an embedding that is the output too, which cannot be adapted".to_owned());
    }
    let [inputs, outputs, others @ ..] = lengths(adapted);
    let rank = lengths(b)[0];
    let fitting = match name.ends_with(EMBEDDING) {
        true => [[rank, outputs, 1, 1], [rank, inputs, 1, 1]],
        false => [[inputs, rank, others[0], others[1]], [rank, outputs, others[0], others[1]]],
    };
    match [lengths(a), lengths(b)] == fitting {
        true => Ok(()),
        false => Err(format!("are {:?} and {:?}, for a tensor of {:?}", a.shape, b.shape, adapted.shape)),
    }
}

/// Of all four dimensions.
fn lengths(tensor: &Tensor) -> [u64; 4] {
    let mut lengths = [1; 4];
    lengths.iter_mut().zip(&tensor.shape).for_each(|(length, own)| *length = *own);
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;
    use crate::gguf::{self, Detail};

    const F32: u32 = 0;

    fn header(writer: Writer) -> Header {
        let bytes = writer.finish();
        gguf::read(bytes.as_slice(), bytes.len() as u64, Detail::Brief).unwrap()
    }

    fn model() -> Header {
        let file =
            Writer::default().string("general.architecture", "llama").tensor(EMBEDDING, F32, &[64, 300]);
        header(file.tensor("blk.0.attn_q.weight", 8, &[64, 32]).tensor(
            "blk.0.ffn_up_exps.weight",
            F32,
            &[64, 32, 4],
        ))
    }

    fn lora() -> Writer {
        let file = Writer::default().string("general.type", "adapter").string("adapter.type", "lora");
        file.string("general.architecture", "llama").pair("adapter.lora.alpha", 6, &16_f32.to_le_bytes())
    }

    fn pair(file: Writer, name: &str, a: &[u64], b: &[u64]) -> Writer {
        file.tensor(&format!("{name}.lora_a"), F32, a).tensor(&format!("{name}.lora_b"), F32, b)
    }

    fn checked(file: Writer) -> Result<(), String> {
        let (adapter, model) = (header(file), [model()]);
        check_metadata(&adapter, &model).and_then(|()| check_tensors(&adapter, &model))
    }

    #[test]
    fn pairs_that_fit_the_model_are_accepted() {
        let sound = pair(lora(), "blk.0.attn_q.weight", &[64, 8], &[8, 32]);
        assert_eq!(checked(pair(sound, "blk.0.ffn_up_exps.weight", &[64, 4, 4], &[4, 32, 4])), Ok(()));
    }

    #[test]
    fn what_is_no_adapter_or_for_another_model_is_refused() {
        let no_adapter = Writer::default().string("general.architecture", "llama");
        assert_eq!(checked(no_adapter).unwrap_err(), "not a LoRA adapter");
        let vector = Writer::default().string("general.type", "adapter").string("adapter.type", "vector");
        assert_eq!(checked(vector).unwrap_err(), "not a LoRA adapter");
        let other = Writer::default().string("general.type", "adapter").string("adapter.type", "lora");
        let error = checked(other.string("general.architecture", "qwen2")).unwrap_err();
        assert_eq!(error, "for models of the architecture \"qwen2\"; this one is \"llama\"");
        let endless = Writer::default().string("general.type", "adapter").string("adapter.type", "lora");
        let endless = endless.string("general.architecture", "llama");
        let endless = endless.pair("adapter.lora.alpha", 6, &f32::INFINITY.to_le_bytes());
        assert_eq!(checked(endless).unwrap_err(), "adapter.lora.alpha is null");
        let activated = lora().u32("adapter.alora.invocation_tokens", 1);
        assert!(checked(activated).unwrap_err().contains("aLoRA"));
    }

    #[test]
    fn matrices_that_llama_cpp_would_end_over_are_refused() {
        let refusal = |name: &str, a: &[u64], b: &[u64]| checked(pair(lora(), name, a, b)).unwrap_err();
        let q = "blk.0.attn_q.weight";
        assert!(refusal(q, &[64, 8], &[4, 32]).contains("are [64, 8] and [4, 32], for a tensor of [64, 32]"));
        assert!(refusal(q, &[64, 8, 2], &[8, 32, 2]).contains("for a tensor of"));
        assert!(refusal("blk.0.ffn_up_exps.weight", &[64, 4, 2], &[4, 32, 2]).contains("for a tensor of"));
        assert!(refusal("blk.7.attn_q.weight", &[64, 8], &[8, 32]).contains("that the model lacks"));
        assert!(refusal(EMBEDDING, &[8, 300], &[8, 64]).contains("is the output too"));
        assert_eq!(checked(lora()).unwrap_err(), "it holds no matrices");
        let half = lora().tensor("blk.0.attn_q.weight.lora_a", F32, &[64, 8]);
        assert!(checked(half).unwrap_err().contains("are no pair"));
        let numbers = lora().tensor("blk.0.attn_q.weight.lora_a", 26, &[64, 8]);
        assert!(checked(numbers).unwrap_err().contains("not of F32"));
        assert!(checked(lora().tensor("loose", F32, &[64])).unwrap_err().contains("no part of a pair"));
        assert_eq!(
            checked(lora().tensor("blk.0.attn_norm.weight", F32, &[64])).unwrap_err(),
            "it holds no matrices"
        );
    }

    #[test]
    fn an_embedding_beside_an_output_can_be_adapted() {
        let model =
            Writer::default().string("general.architecture", "llama").tensor(EMBEDDING, F32, &[64, 300]);
        let model = [header(model.tensor("output.weight", F32, &[64, 300]))];
        let fits = |a: &[u64], b: &[u64]| check_tensors(&header(pair(lora(), EMBEDDING, a, b)), &model);
        assert_eq!(fits(&[8, 300], &[8, 64]), Ok(()));
        assert!(fits(&[64, 8], &[8, 300]).is_err());
        assert!(fits(&[4, 300], &[8, 64]).is_err());
    }
}
