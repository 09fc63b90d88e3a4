//! The key of a snapshot: everything that a sequence's state depends on besides its tokens.
//!
//! A state that is restored for the wrong model gives wrong answers and no error, so no two models may share a key. Reading
//! all of a model to hash it takes seconds to minutes, at the very moment when somebody waits for a first token. What is
//! hashed instead is, of each file, its size, its time and its header (which holds every name, shape, type and
//! hyperparameter), and a piece of each tensor. Time alone would not do: image builders and package managers set it to a
//! constant. A model trained further, merged, quantised or converted differently differs in nearly every piece; one with a few
//! numbers patched and its time put back is taken for the same, and whoever does that has to empty the folder.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::{backend, check};
use super::format::Key;
use crate::generation::seam::{KvType, Spec};
use crate::gguf::Header;

/// What writes and reads states: the version of the bindings, which is that of the llama.cpp inside them.
const LLAMA: &str = "llama-cpp-2 0.1.160";
/// Bytes of each tensor that are looked at.
const PIECE: u64 = 4096;

/// The settings that a state depends on. What is not here (threads, batches, templates, sampling) leaves no trace in it.
#[derive(Serialize)]
struct Settings<'a> {
    llama: &'static str,
    kv_type: KvType,
    /// Some models choose their rotary factors by it.
    context: u32,
    /// A state names all streams of its context.
    parallel: u32,
    /// Or it is of a pool.
    cells: u32,
    /// Devices compute what is nearly the same.
    devices: &'a [String],
    gpu_layers: i32,
}

/// The key for a worker that was told to be `spec`. Errors in words.
pub fn key(spec: &Spec) -> Result<Key, String> {
    let mut hash = Sha256::new();
    let settings = Settings {
        llama: LLAMA,
        kv_type: spec.kv_type,
        context: spec.context,
        parallel: spec.parallel,
        cells: spec.cells,
        devices: &backend::describe().devices,
        gpu_layers: spec.gpu_layers,
    };
    hash.update(serde_json::to_vec(&settings).map_err(|error| error.to_string())?);
    // What a picture becomes in a state depends on it.
    for path in check::parts(&spec.path).into_iter().chain(spec.projector.clone()) {
        let header = check::read(&path)?;
        look(&mut hash, &path, &header).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(hash.finalize().into())
}

/// Adds what tells one file from another.
fn look(hash: &mut Sha256, path: &Path, header: &Header) -> std::io::Result<()> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    let modified = facts.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hash.update(facts.len().to_le_bytes());
    hash.update(modified.as_nanos().to_le_bytes());
    hash.update(header.fingerprint);
    let mut piece = [0; PIECE as usize];
    for tensor in &header.tensors {
        let length = (tensor.place.end - tensor.place.start).min(PIECE);
        let from = tensor.place.start + (tensor.place.end - tensor.place.start - length) / 2;
        let piece = &mut piece[..length as usize];
        file.read_exact_at(piece, from)?;
        hash.update(piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::gguf::writer::Writer;

    fn spec(path: &Path, change: Value) -> Spec {
        let mut spec = json!({
            "name": "m", "path": path, "socket": "", "context": 0, "parallel": 1, "threads": 0, "batch": 512,
            "kv_type": "f16", "gpu_layers": 0, "mmap": true,
        });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_version_is_that_of_the_bindings() {
        let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));
        let (name, version) = LLAMA.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{LLAMA}");
    }

    #[test]
    fn another_model_or_another_setting_that_matters_is_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let mut model =
            Writer::default().string("general.architecture", "llama").tensor("t", 0, &[4096]).finish();
        let write = |model: &[u8]| {
            std::fs::write(&path, model).unwrap();
            // As an image builder does.
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        write(&model);
        let same = key(&spec(&path, json!({}))).unwrap();
        let unimportant = json!({"threads": 3, "batch": 64, "template": "{{ x }}", "name": "n"});
        assert_eq!(key(&spec(&path, unimportant)).unwrap(), same);
        for setting in [json!({"kv_type": "q8_0"}), json!({"context": 512}), json!({"parallel": 2})] {
            assert_ne!(key(&spec(&path, setting.clone())).unwrap(), same, "{setting}");
        }
        let middle = model.len() - 4 * 4096 / 2;
        model[middle] ^= 1;
        write(&model);
        assert_ne!(
            key(&spec(&path, json!({}))).unwrap(),
            same,
            "other weights in a file of the same size and time"
        );
        let projector = json!({ "projector": path });
        assert_ne!(
            key(&spec(&path, projector)).unwrap(),
            key(&spec(&path, json!({}))).unwrap(),
            "a projector"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(key(&spec(&path, json!({}))).is_err());
    }
}
