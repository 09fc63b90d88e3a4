//! GGUF: reads and checks the header of a model file: key/values and tensor descriptions, never the tensor data.
//!
//! The file is input, and parsers of model files are a known way in. So both sides read it here: the proxy for what it tells of
//! a model, the worker before llama.cpp sees the file. Every count and length is checked against what is left of the file before
//! anything is reserved or skipped, what is kept is bounded, and each tensor of an accepted file lies inside it. What llama.cpp's
//! own reader (`gguf.cpp`) refuses is refused here too. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! `reader` takes bytes and keeps account of them, `pairs` reads key/values, `tensor` descriptions. Touches no other module.

mod kind;
mod pairs;
mod reader;
mod tensor;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

use std::collections::HashSet;
use std::io::Read;

pub use pairs::FILL;
use pairs::Pairs;
use reader::Reader;
use serde_json::{Map, Value};
pub use tensor::{TYPES, Tensor, Type};

/// Why a file is not a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first four bytes differ.
    #[error("not a GGUF file")]
    Magic,
    /// Only 2 and 3 exist in the wild; 1 was short-lived.
    #[error("unsupported GGUF version {0}")]
    Version(u32),
    /// The file ends before what it promises.
    #[error("truncated: the file ends inside {what}, at byte {at}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        at: u64,
    },
    /// The same, of a tensor's data.
    #[error("truncated: the data of tensor {name} ends at byte {end}, the file at byte {length}")]
    Data {
        /// The tensor's.
        name: String,
        /// The byte behind it.
        end: u64,
        /// Of the file.
        length: u64,
    },
    /// It promises what cannot be.
    #[error("corrupt GGUF at byte {at}: {what}")]
    Corrupt {
        /// Where that stands.
        at: u64,
        /// In words.
        what: String,
    },
    /// The disk failed.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
}

/// How much of the header is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// No array of more than five entries.
    Brief,
    /// The same, but for arrays of numbers that can be one for each layer.
    Layers,
    /// Every array, as far as memory allows.
    Full,
}

/// What the header says.
#[derive(Debug)]
pub struct Header {
    /// Key/values. Arrays that were not kept are null.
    pub metadata: Map<String, Value>,
    /// In file order.
    pub tensors: Vec<Tensor>,
    /// Texts in the vocabulary that mark fill-in-the-middle; see [`FILL`].
    pub fill: HashSet<&'static str>,
    /// SHA-256 over all bytes of the header.
    pub fingerprint: [u8; 32],
}

/// Reads the header of a file of `length` bytes, from its first byte on. Of a large vocabulary (150,000 tokens) this takes some
/// 10 ms.
pub fn read(source: impl Read, length: u64, detail: Detail) -> Result<Header, Error> {
    let mut reader = Reader::new(source, length);
    if length < 4 || reader.bytes::<4>("the magic")? != *b"GGUF" {
        return Err(Error::Magic);
    }
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Error::Version(version));
    }
    let tensor_count = reader.u64("the counts")?;
    let pair_count = reader.u64("the counts")?;
    let pairs = Pairs::read(&mut reader, pair_count, detail)?;
    let tensors = tensor::read_all(&mut reader, tensor_count, pairs.alignment)?;
    tensor::check_data(&tensors, length)?;
    let Pairs { metadata, fill, .. } = pairs;
    Ok(Header { metadata, tensors, fill, fingerprint: reader.fingerprint() })
}
