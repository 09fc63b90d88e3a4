//! Names of GGUF's number formats: of whole files (`general.file_type`) and of single tensors.

use std::collections::HashMap;

use crate::gguf::{Tensor, Type};

/// ggml's name of a tensor's element type.
pub(super) fn tensor_type(kind: u32) -> String {
    Type::find(kind).map_or_else(|| format!("type {kind}"), |known| known.name.to_owned())
}

/// The mix that a quantiser made of a file (`llama.h`, `enum llama_ftype`).
fn file_type(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        _ => return None,
    })
}

/// What Ollama calls the quantisation level: what the file says of itself, else the format that most of its numbers have.
pub(super) fn level(declared: Option<u64>, tensors: &[Tensor]) -> String {
    if let Some(name) = declared.and_then(file_type) {
        return name.to_owned();
    }
    let mut elements: HashMap<u32, u64> = HashMap::new();
    for tensor in tensors {
        let sum = elements.entry(tensor.kind).or_default();
        *sum = sum.saturating_add(tensor.elements());
    }
    let most = elements.into_iter().max_by_key(|(kind, count)| (*count, *kind));
    most.map_or_else(|| "unknown".to_owned(), |(kind, _)| tensor_type(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(kind: u32, elements: u64) -> Tensor {
        Tensor { kind, shape: vec![elements], ..Tensor::default() }
    }

    #[test]
    fn the_declared_mix_wins_over_the_tensors() {
        assert_eq!(level(Some(15), &[tensor(0, 10)]), "Q4_K_M");
    }

    #[test]
    fn without_a_known_declaration_the_most_frequent_type_counts() {
        let tensors = [tensor(0, 64), tensor(0, 64), tensor(8, 6400)];
        assert_eq!(level(None, &tensors), "Q8_0");
        assert_eq!(level(Some(999), &tensors), "Q8_0");
        assert_eq!(level(None, &[]), "unknown");
    }
}
