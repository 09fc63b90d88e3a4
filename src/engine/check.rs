//! Checks a model's files before llama.cpp sees them. That they are sound GGUFs is [`crate::gguf`]'s part; here is what llama.cpp
//! takes for granted beyond that, and ends the process over.

pub mod adapter;
pub mod projector;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::gguf::{self, Detail, Header};

/// `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u64 = 512;

/// Checks the file at `path` and, where it is the first of several, those that follow; their headers. The error says which is wrong
/// and how.
pub fn check(path: &Path) -> Result<Vec<Header>, String> {
    let files = parts(path);
    let mut headers = Vec::with_capacity(files.len());
    for (place, file) in files.iter().enumerate() {
        let bad = |reason: &dyn std::fmt::Display| format!("bad file: {}: {reason}", file.display());
        let header = read(file)?;
        if place == 0 {
            check_parts(&header, files.len()).map_err(|reason| bad(&reason))?;
            check_hyperparameters(&header).map_err(|reason| bad(&reason))?;
        }
        check_vectors(&header).map_err(|reason| bad(&reason))?;
        headers.push(header);
    }
    Ok(headers)
}

/// The header of one file. Errors in words.
pub fn read(path: &Path) -> Result<Header, String> {
    let cannot_read = |error| format!("cannot read {}: {error}", path.display());
    let metadata = std::fs::metadata(path).map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(format!("bad file: {} is not a regular file", path.display()));
    }
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(cannot_read)?);
    gguf::read(file, metadata.len(), Detail::Brief)
        .map_err(|error| format!("bad file: {}: {error}", path.display()))
}

/// The files of the model whose first is `path`, found by name as llama.cpp does: `NAME-00001-of-00003.gguf` and so on, else only
/// itself.
pub fn parts(path: &Path) -> Vec<PathBuf> {
    let others = || {
        let (prefix, count) = path.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let prefix = prefix.strip_suffix("-00001")?;
        let number: u16 = count.parse().ok().filter(|_| count.len() == 5)?;
        Some((2..=number).map(move |part| format!("{prefix}-{part:05}-of-{count}.gguf").into()))
    };
    std::iter::once(path.to_owned()).chain(others().into_iter().flatten()).collect()
}

/// Whether it says that it has as many parts as its name does.
fn check_parts(header: &Header, named: usize) -> Result<(), String> {
    match number(header, "split.count").filter(|count| *count > 1) {
        Some(count) if count != named as u64 => Err(format!(
            "one of {count} parts, of which the first is needed, with a name that ends in -00001-of-{count:05}.gguf"
        )),
        _ => Ok(()),
    }
}

/// The hyperparameters that llama.cpp asserts instead of checking (`llama_model_base::load_hparams`).
fn check_hyperparameters(header: &Header) -> Result<(), String> {
    let text = |key: &str| header.metadata.get(key).and_then(Value::as_str);
    let Some(architecture) = text("general.architecture") else {
        return Err("it does not say its general.architecture".to_owned());
    };
    let own = |name: &str| number(header, &format!("{architecture}.{name}"));
    let layers = own("block_count").unwrap_or(1);
    if !(1..=MAX_LAYERS).contains(&layers) {
        return Err(format!("{layers} layers; 1 to {MAX_LAYERS} are possible"));
    }
    check_epsilons(header)?;
    match text(&format!("{architecture}.rope.scaling.type")) {
        None | Some("none" | "linear" | "yarn" | "longrope") => Ok(()),
        Some(other) => Err(format!("unknown rope scaling {other:?}")),
    }
}

/// What norms divide by at least is no number below 0.
fn check_epsilons(header: &Header) -> Result<(), String> {
    let mut epsilons = header.metadata.iter().filter(|(key, _)| key.ends_with("_epsilon"));
    // Neither NaN nor infinity is a JSON number.
    match epsilons.find(|(_, value)| value.as_f64().is_none_or(|number| number < 0.0)) {
        Some((key, value)) => Err(format!("{} is {value}", key.escape_debug())),
        None => Ok(()),
    }
}

/// Norms and biases, all that has one dimension, are 32-bit floats in any file: the CPU computes with nothing else.
fn check_vectors(header: &Header) -> Result<(), String> {
    let mut vectors = header.tensors.iter().filter(|tensor| tensor.shape.len() < 2);
    match vectors.find(|tensor| !tensor.is_float()) {
        Some(tensor) => Err(format!(
            "tensor {} has one dimension, but its elements are no 32-bit floats",
            tensor.name.escape_debug()
        )),
        None => Ok(()),
    }
}

fn number(header: &Header, key: &str) -> Option<u64> {
    header.metadata.get(key).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;

    /// Why a file of these bytes is refused.
    fn refusal(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        check(&path).unwrap_err()
    }

    fn llama() -> Writer {
        Writer::default().string("general.architecture", "llama")
    }

    #[test]
    fn a_file_that_is_no_gguf_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("none.gguf")).unwrap_err().starts_with("cannot read "));
        assert!(check(folder.path()).unwrap_err().contains("not a regular file"));
        assert!(refusal(b"GGU").ends_with("model.gguf: not a GGUF file"));
        assert!(refusal(b"GGUF\x01\0\0\0").ends_with("unsupported GGUF version 1"));
        assert!(
            refusal(b"GGUF\x03\0\0\0").ends_with("truncated: the file ends inside the counts, at byte 8")
        );
    }

    #[test]
    fn hyperparameters_that_llama_cpp_would_abort_over_are_refused() {
        assert!(refusal(&Writer::default().finish()).contains("general.architecture"));
        for layers in [0, 513] {
            assert!(refusal(&llama().u32("llama.block_count", layers).finish()).contains("layers"));
        }
        let negative = llama().pair("llama.attention.layer_norm_rms_epsilon", 6, &(-1e-5_f32).to_le_bytes());
        assert!(refusal(&negative.finish()).contains("_epsilon is -"));
        let half = llama().tensor("blk.0.attn_norm.weight", 1, &[64]);
        assert!(refusal(&half.finish()).contains("no 32-bit floats"));
        let scaled = llama().string("llama.rope.scaling.type", "cubic");
        assert!(refusal(&scaled.finish()).contains("rope scaling \"cubic\""));
    }

    #[test]
    fn the_parts_of_a_split_model_are_found_by_name_and_all_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = |part| folder.path().join(format!("m-0000{part}-of-00003.gguf"));
        assert_eq!(parts(&path(1)), [path(1), path(2), path(3)]);
        assert_eq!(parts(&path(2)), [path(2)]);
        let first = llama().pair("split.count", 2, &3_u16.to_le_bytes()).finish();
        std::fs::write(path(1), &first).unwrap();
        std::fs::write(path(2), llama().finish()).unwrap();
        std::fs::write(path(3), b"GGUF").unwrap();
        let error = check(&path(1)).unwrap_err();
        assert!(error.contains("m-00003-of-00003.gguf: truncated"), "{error}");
        std::fs::write(path(3), llama().finish()).unwrap();
        assert_eq!(check(&path(1)).map(|headers| headers.len()), Ok(3));
        assert!(refusal(&first).contains("one of 3 parts"));
    }

    #[test]
    fn the_table_of_element_types_is_ggmls() {
        for known in gguf::TYPES {
            let kind = known.number as llama_cpp_sys_2::ggml_type;
            // SAFETY: both look a number below `GGML_TYPE_COUNT` up in a table.
            #[expect(unsafe_code, reason = "the bindings do not wrap them")]
            let (block, bytes) =
                unsafe { (llama_cpp_sys_2::ggml_blck_size(kind), llama_cpp_sys_2::ggml_type_size(kind)) };
            assert_eq!((known.block as i64, known.bytes as usize), (block, bytes), "{}", known.name);
        }
    }
}
