//! [`ModelCard`] from a file's header and the model's section in the configuration.

use std::io::BufReader;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{ModelConfig, quantization};
use crate::dialect::{Capability, Details, ModelCard};
use crate::generation::ability;
use crate::generation::seam::Pooling;
use crate::gguf::{self, Detail, Header};
use crate::node::protocol::Offer;

/// The card of a model that only nodes serve: its name, and what the node says of it.
pub fn elsewhere(name: &str, offer: Option<&Offer>) -> ModelCard {
    let offer = offer.cloned().unwrap_or_default();
    ModelCard {
        name: name.to_owned(),
        modified: SystemTime::UNIX_EPOCH.into(),
        size: offer.size,
        // Not left empty: `ollama list` cuts the first twelve digits off without looking.
        digest: if offer.digest.len() == 64 { offer.digest } else { hex(Sha256::digest(name)) },
        details: Details {
            family: offer.family,
            parameter_size: offer.parameter_size,
            quantization_level: offer.quantization,
            ..Details::default()
        },
        capabilities: Vec::new(),
        template: String::new(),
        system: String::new(),
        parameters: Vec::new(),
        license: String::new(),
        path: name.to_owned(),
        adapted: None,
        via: Vec::new(),
        tensors: Vec::new(),
        model_info: Map::new(),
    }
}

/// Reads the header of `path` and describes the model in it. Errors in words.
pub(super) fn read(
    name: &str,
    config: &ModelConfig,
    path: &Path,
    detail: Detail,
) -> Result<ModelCard, String> {
    let (size, modified, header) = open(path, detail)?;
    let tensors = match detail {
        Detail::Brief | Detail::Layers => Vec::new(),
        Detail::Full => tensors(&header),
    };
    let card = ModelCard { tensors, ..describe(name, config, path, size, modified, header) };
    match &config.projector {
        Some(projector) => with_projector(card, projector),
        None => Ok(card),
    }
}

/// Size, time and header of a file. Errors in words.
fn open(path: &Path, detail: Detail) -> Result<(u64, SystemTime, Header), String> {
    let in_words = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| in_words(&error))?;
    let facts = file.metadata().map_err(|error| in_words(&error))?;
    let modified = facts.modified().map_err(|error| in_words(&error))?;
    let reader = BufReader::with_capacity(1 << 20, file);
    let header = gguf::read(reader, facts.len(), detail).map_err(|error| in_words(&error))?;
    Ok((facts.len(), modified, header))
}

/// A card of a model with its projector: it is larger, another, and what generates can see.
fn with_projector(card: ModelCard, projector: &Path) -> Result<ModelCard, String> {
    let (size, modified, header) = open(projector, Detail::Brief)?;
    let mut hasher = Sha256::new();
    hasher.update(&card.digest);
    hasher.update(identity(size, modified));
    hasher.update(header.fingerprint);
    let sees = cfg!(feature = "vision") && card.capabilities.contains(&Capability::Completion);
    let capabilities = card.capabilities.into_iter().chain(sees.then_some(Capability::Vision)).collect();
    Ok(ModelCard {
        size: card.size.saturating_add(size),
        digest: hex(hasher.finalize()),
        modified: card.modified.max(modified.into()),
        capabilities,
        ..card
    })
}

/// Everything but the tensors.
fn describe(
    name: &str,
    config: &ModelConfig,
    path: &Path,
    size: u64,
    modified: SystemTime,
    header: Header,
) -> ModelCard {
    let digest = digest(&header, size, modified);
    let details = details(&header);
    let text = |key: &str| header.metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let template = config.template.clone().unwrap_or_else(|| text("tokenizer.chat_template"));
    ModelCard {
        name: name.to_owned(),
        modified: modified.into(),
        size,
        digest,
        details,
        capabilities: capabilities(&header, config.pooling, &template),
        template,
        system: config.system.clone().unwrap_or_default(),
        parameters: parameters(config),
        license: text("general.license"),
        path: path.display().to_string(),
        adapted: None,
        via: Vec::new(),
        tensors: Vec::new(),
        model_info: model_info(header),
    }
}

fn tensors(header: &Header) -> Vec<(String, String, Vec<u64>)> {
    let tensors = header.tensors.iter();
    tensors.map(|t| (t.name.clone(), quantization::tensor_type(t.kind), t.shape.clone())).collect()
}

/// What the model can do by itself.
fn capabilities(header: &Header, asked: Option<Pooling>, template: &str) -> Vec<Capability> {
    // The engine's rule: 1 to 3 are mean, cls and last, 4 is rank; an encoder embeds even if its file does not say how.
    let architecture = architecture(header);
    let pooling = header.metadata.get(&format!("{architecture}.pooling_type"));
    match (asked, pooling.map(Value::as_u64)) {
        (Some(Pooling::Rank), _) | (None, Some(Some(4))) => return vec![Capability::Rerank],
        (Some(Pooling::Mean | Pooling::Cls | Pooling::Last), _) | (None, Some(Some(1..=3))) => {
            return vec![Capability::Embedding];
        }
        (None, None) if architecture.contains("bert") => return vec![Capability::Embedding],
        (Some(Pooling::None), _) | (None, _) => {}
    }
    let has_id = |names: [&str; 2]| {
        names.iter().any(|name| header.metadata.contains_key(&format!("tokenizer.ggml.{name}_token_id")))
    };
    // The second names are those of older converters.
    let ids = [["fim_pre", "prefix"], ["fim_suf", "suffix"], ["fim_mid", "middle"]];
    let fills = ids
        .into_iter()
        .zip(gguf::FILL)
        .all(|(names, texts)| has_id(names) || texts.iter().any(|text| header.fill.contains(text)));
    let mut capabilities = vec![Capability::Completion];
    let can = [
        (fills, Capability::Insert),
        (ability::calls_tools(template), Capability::Tools),
        (ability::thinking(template).is_some(), Capability::Thinking),
    ];
    capabilities.extend(can.into_iter().filter(|(can, _)| *can).map(|(_, capability)| capability));
    capabilities
}

fn architecture(header: &Header) -> &str {
    header.metadata.get("general.architecture").and_then(Value::as_str).unwrap_or("unknown")
}

fn details(header: &Header) -> Details {
    let family = architecture(header);
    let number = |key: String| header.metadata.get(&key).and_then(Value::as_u64);
    Details {
        family: family.to_owned(),
        parameter_size: parameter_size(parameter_count(header)),
        quantization_level: quantization::level(number("general.file_type".to_owned()), &header.tensors),
        context_length: number(format!("{family}.context_length")).unwrap_or_default(),
        embedding_length: number(format!("{family}.embedding_length")).unwrap_or_default(),
    }
}

fn parameter_count(header: &Header) -> u64 {
    header.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.elements()))
}

/// As Ollama writes it (`format.HumanNumber`): `8.0B`, `494.03M`, `7B` where it is whole.
fn parameter_size(count: u64) -> String {
    let scaled = |unit: u64, digits: usize| {
        let digits = if count.is_multiple_of(unit) { 0 } else { digits };
        format!("{:.digits$}", count as f64 / unit as f64)
    };
    match count {
        1_000_000_000.. => scaled(1_000_000_000, 1) + "B",
        1_000_000.. => scaled(1_000_000, 2) + "M",
        1_000.. => scaled(1_000, 0) + "K",
        _ => count.to_string(),
    }
}

/// The name and the template are shown elsewhere; the parameter count is Ollama's addition to what the file says.
fn model_info(header: Header) -> Map<String, Value> {
    let count = parameter_count(&header);
    let mut info = header.metadata;
    info.retain(|key, _| key != "general.name" && key != "tokenizer.chat_template");
    info.insert("general.parameter_count".to_owned(), count.into());
    info
}

fn parameters(config: &ModelConfig) -> Vec<(String, Value)> {
    match serde_json::to_value(&config.options) {
        Ok(Value::Object(options)) => options.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// An identity of the file: SHA-256 over its size, its time and its header. Reading all of a 100 GB file to hash it would
/// take minutes, and Ollama's own digest is not of the weights either but of the manifest.
fn digest(header: &Header, size: u64, modified: SystemTime) -> String {
    let mut hasher = Sha256::new();
    hasher.update(identity(size, modified));
    hasher.update(header.fingerprint);
    hex(hasher.finalize())
}

/// What tells one state of a file from another.
pub(super) fn identity(size: u64, modified: SystemTime) -> [u8; 24] {
    let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&size.to_le_bytes());
    bytes[8..].copy_from_slice(&since_epoch.as_nanos().to_le_bytes());
    bytes
}

pub(super) fn hex(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;

    fn config() -> ModelConfig {
        serde_json::from_value(serde_json::json!({"path": "/m.gguf", "options": {"top_k": 3, "stop": ["x"]}}))
            .unwrap()
    }

    fn card_of(file: &[u8]) -> ModelCard {
        let header = gguf::read(file, file.len() as u64, Detail::Brief).unwrap();
        describe("m", &config(), Path::new("/m.gguf"), 123, SystemTime::UNIX_EPOCH, header)
    }

    #[test]
    fn a_card_tells_what_the_file_and_the_configuration_say() {
        let file = Writer::default()
            .string("general.architecture", "llama")
            .string("general.name", "M")
            .string("general.license", "mit")
            .string("tokenizer.chat_template", "{{ messages }}")
            .u32("general.file_type", 7)
            .u32("llama.context_length", 2048)
            .u32("llama.embedding_length", 64)
            .tensor("token_embd.weight", 8, &[64, 1000])
            .finish();
        let card = card_of(&file);
        assert_eq!((card.name.as_str(), card.size, card.license.as_str()), ("m", 123, "mit"));
        assert_eq!(card.template, "{{ messages }}");
        assert_eq!(card.details.family, "llama");
        assert_eq!(card.details.parameter_size, "64K");
        assert_eq!(card.details.quantization_level, "Q8_0");
        assert_eq!((card.details.context_length, card.details.embedding_length), (2048, 64));
        assert_eq!(card.capabilities, [Capability::Completion]);
        assert_eq!(card.model_info["general.parameter_count"], 64_000);
        assert!(!card.model_info.contains_key("general.name"));
        assert!(!card.model_info.contains_key("tokenizer.chat_template"));
        let names: Vec<_> = card.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["top_k", "stop"]);
        assert_eq!(card.digest.len(), 64);
    }

    #[test]
    fn tensors_have_names_types_and_shapes() {
        let file = Writer::default().tensor("token_embd.weight", 8, &[64, 1000]).finish();
        let header = gguf::read(file.as_slice(), file.len() as u64, Detail::Full).unwrap();
        assert_eq!(tensors(&header), [("token_embd.weight".to_owned(), "Q8_0".to_owned(), vec![64, 1000])]);
    }

    #[test]
    fn a_model_elsewhere_has_a_name_and_an_identity_and_claims_nothing() {
        let card = elsewhere("m", None);
        assert_eq!((card.name.as_str(), card.size, card.digest.len()), ("m", 0, 64));
        assert_ne!(card.digest, elsewhere("n", None).digest);
        assert!(card.capabilities.is_empty() && card.model_info.is_empty());
    }

    #[test]
    fn a_pooling_type_makes_an_embedder() {
        let file =
            Writer::default().string("general.architecture", "bert").u32("bert.pooling_type", 1).finish();
        assert_eq!(card_of(&file).capabilities, [Capability::Embedding]);
        let of = |kind: u32, asked| {
            let file =
                Writer::default().string("general.architecture", "llama").u32("llama.pooling_type", kind);
            let file = file.finish();
            let header = gguf::read(file.as_slice(), file.len() as u64, Detail::Brief).unwrap();
            capabilities(&header, asked, "")
        };
        assert_eq!(of(4, None), [Capability::Rerank]);
        assert_eq!(of(0, None), [Capability::Completion]);
        assert_eq!(of(0, Some(Pooling::Last)), [Capability::Embedding]);
        assert_eq!(of(1, Some(Pooling::None)), [Capability::Completion]);
        assert_eq!(of(1, Some(Pooling::Rank)), [Capability::Rerank]);
    }

    #[test]
    fn all_three_fill_tokens_make_insert_by_text_or_by_id() {
        let vocabulary = ["a", "b", "c", "<PRE>", "<SUF>", "<MID>"];
        let by_text = Writer::default().strings("tokenizer.ggml.tokens", &vocabulary);
        assert!(card_of(&by_text.finish()).capabilities.contains(&Capability::Insert));
        let by_id = Writer::default()
            .u32("tokenizer.ggml.prefix_token_id", 1)
            .u32("tokenizer.ggml.fim_suf_token_id", 2)
            .u32("tokenizer.ggml.fim_mid_token_id", 3);
        assert!(card_of(&by_id.finish()).capabilities.contains(&Capability::Insert));
        let two = Writer::default().strings("tokenizer.ggml.tokens", &vocabulary[..5]);
        assert_eq!(card_of(&two.finish()).capabilities, [Capability::Completion]);
    }

    #[test]
    fn the_template_tells_of_tools_and_thinking_and_the_configured_one_counts() {
        let file = Writer::default()
            .string("tokenizer.chat_template", "{{ tools }}{{ messages }}<think>\n{{ x.split('</think>') }}")
            .finish();
        let expected = [Capability::Completion, Capability::Tools, Capability::Thinking];
        assert_eq!(card_of(&file).capabilities, expected);
        let header = gguf::read(file.as_slice(), file.len() as u64, Detail::Brief).unwrap();
        let config = ModelConfig { template: Some("{{ messages }}".to_owned()), ..config() };
        let card = describe("m", &config, Path::new("/m.gguf"), 123, SystemTime::UNIX_EPOCH, header);
        assert_eq!(card.capabilities, [Capability::Completion]);
    }

    #[test]
    fn parameter_sizes_are_written_as_ollama_does() {
        for (count, expected) in [
            (8_030_261_312, "8.0B"),
            (7_000_000_000, "7B"),
            (494_032_768, "494.03M"),
            (5_200_000, "5.20M"),
            (64_000, "64K"),
            (999, "999"),
        ] {
            assert_eq!(parameter_size(count), expected);
        }
    }
}
