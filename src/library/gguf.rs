//! Reads the header of a GGUF file: key/values and tensor descriptions, never the tensor data.
//!
//! The file is input: every count and length is checked against what is left of the file before anything is reserved or
//! skipped, and what is kept is bounded. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashSet;
use std::io::Read;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The largest vocabularies make headers of some 20 MB; a file that claims more than this is broken.
const MAX_HEADER: u64 = 256 << 20;
/// Chat templates and licences are below 1 MiB.
const MAX_STRING: u64 = 16 << 20;
/// Longer arrays are of no use to most who read about a model, so only their presence is kept.
const MAX_ARRAY: u64 = 5;
/// Elements of longer arrays that are kept in full detail, all arrays together: three times what the largest vocabulary has
/// with its scores, types and merges. An element takes some 50 bytes of memory, however few it has in the file.
const MAX_ELEMENTS: u64 = 4 << 20;
/// Bytes of the shortest key/value (empty key, one byte) and of the shortest tensor description (scalar, empty name).
const MIN_PAIR: u64 = 8 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;
/// ggml has tensors of up to four dimensions.
const MAX_DIMENSIONS: u32 = 4;

/// Why a file is not a model.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The first four bytes differ.
    #[error("not a GGUF file")]
    Magic,
    /// Only 2 and 3 exist in the wild; 1 was short-lived.
    #[error("unsupported GGUF version {0}")]
    Version(u32),
    /// The file ends before what it promises.
    #[error("truncated: the file ends inside {0}")]
    Truncated(&'static str),
    /// It promises what cannot be.
    #[error("corrupt GGUF: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
}

/// How much of the header is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// No array of more than five entries.
    Brief,
    /// Every array, as far as memory allows.
    Full,
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Key/values. Arrays that were not kept are null.
    pub(super) metadata: Map<String, Value>,
    /// In file order.
    pub(super) tensors: Vec<Tensor>,
    /// Texts in the vocabulary that mark fill-in-the-middle; see [`FILL`].
    pub(super) fill: HashSet<&'static str>,
    /// SHA-256 over all bytes of the header.
    pub(super) fingerprint: [u8; 32],
}

/// The description of one tensor.
#[derive(Debug, PartialEq)]
pub(super) struct Tensor {
    /// Such as `blk.0.attn_q.weight`.
    pub(super) name: String,
    /// ggml's number of the element type.
    pub(super) kind: u32,
    /// Fastest-running dimension first.
    pub(super) shape: Vec<u64>,
}

impl Tensor {
    /// Number of elements; the reader has refused what overflows.
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The texts by which llama.cpp finds the tokens before, after and at the gap, where the file has no ids for them.
pub(super) const FILL: [&[&str]; 3] = [
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

/// Reads the header of a file of `length` bytes.
pub(super) fn read(source: impl Read, length: u64, detail: Detail) -> Result<Header, Error> {
    let mut reader = Reader {
        source,
        left: length,
        used: 0,
        elements: if detail == Detail::Full { MAX_ELEMENTS } else { 0 },
        hasher: Sha256::new(),
        fill: HashSet::new(),
    };
    if length < 4 || reader.bytes::<4>("the magic")? != *b"GGUF" {
        return Err(Error::Magic);
    }
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Error::Version(version));
    }
    let tensor_count = reader.u64("the counts")?;
    let pair_count = reader.u64("the counts")?;
    reader.check_count(pair_count, MIN_PAIR, "the key/values")?;
    let mut metadata = Map::new();
    for _ in 0..pair_count {
        let key = reader.string("a key")?;
        let kind = reader.u32("a value's type")?;
        let value = reader.value(&key, kind)?;
        metadata.insert(key, value);
    }
    reader.check_count(tensor_count, MIN_TENSOR, "the tensor descriptions")?;
    let tensors = (0..tensor_count).map(|_| reader.tensor()).collect::<Result<_, _>>()?;
    Ok(Header { metadata, tensors, fill: reader.fill, fingerprint: reader.hasher.finalize().into() })
}

/// Reads little-endian values and keeps account of what is left.
struct Reader<R> {
    source: R,
    left: u64,
    used: u64,
    /// How many more may be kept of long arrays.
    elements: u64,
    hasher: Sha256,
    fill: HashSet<&'static str>,
}

impl<R: Read> Reader<R> {
    /// Takes `count` bytes off what is left, or says that they are not there.
    fn claim(&mut self, count: u64, what: &'static str) -> Result<(), Error> {
        self.left = self.left.checked_sub(count).ok_or(Error::Truncated(what))?;
        self.used += count;
        if self.used > MAX_HEADER {
            return Err(Error::Corrupt(format!("its header is larger than {} MiB", MAX_HEADER >> 20)));
        }
        Ok(())
    }

    /// Fills `buffer`, whose length has been claimed.
    fn read_exact(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            // It became shorter since its length was taken.
            std::io::ErrorKind::UnexpectedEof => Error::Truncated(what),
            _ => Error::Io(error),
        })?;
        self.hasher.update(buffer);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.claim(N as u64, what)?;
        self.read_exact(&mut bytes, what)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// Refuses a count of things of at least `size` bytes that cannot fit into the rest of the file.
    fn check_count(&self, count: u64, size: u64, what: &'static str) -> Result<(), Error> {
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.left => Ok(()),
            _ => Err(Error::Truncated(what)),
        }
    }

    fn blob(&mut self, what: &'static str) -> Result<Vec<u8>, Error> {
        let length = self.u64(what)?;
        self.check_count(length, 1, what)?;
        if length > MAX_STRING {
            return Err(Error::Corrupt(format!("a string of {length} bytes")));
        }
        self.claim(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.read_exact(&mut bytes, what)?;
        Ok(bytes)
    }

    /// Text that is not UTF-8 is shown as well as it can be: it is metadata, and the engine reads the file itself.
    fn string(&mut self, what: &'static str) -> Result<String, Error> {
        let bytes = self.blob(what)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, Error> {
        if kind != kind::ARRAY {
            return self.scalar(kind);
        }
        let of = self.u32("an array's type")?;
        let count = self.u64("an array's length")?;
        let size = kind::size(of).ok_or_else(|| Error::Corrupt(format!("{key} is an array of type {of}")))?;
        self.check_count(count, size, "an array")?;
        let is_vocabulary = key == "tokenizer.ggml.tokens";
        if count <= MAX_ARRAY || count <= self.elements {
            self.elements = self.elements.saturating_sub(count);
            let values: Vec<_> = (0..count).map(|_| self.scalar(of)).collect::<Result<_, _>>()?;
            if is_vocabulary {
                values.iter().filter_map(Value::as_str).for_each(|text| self.note_fill(text.as_bytes()));
            }
            return Ok(Value::Array(values));
        }
        for _ in 0..count {
            if of != kind::STRING {
                self.skip(size)?;
            } else {
                let text = self.blob("an array")?;
                if is_vocabulary {
                    self.note_fill(&text);
                }
            }
        }
        Ok(Value::Null)
    }

    fn scalar(&mut self, kind: u32) -> Result<Value, Error> {
        const WHAT: &str = "a value";
        Ok(match kind {
            kind::U8 => u8::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::I8 => i8::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::U16 => u16::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::I16 => i16::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::U32 => self.u32(WHAT)?.into(),
            kind::I32 => i32::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::F32 => short(f32::from_le_bytes(self.bytes(WHAT)?)),
            kind::BOOL => (self.bytes::<1>(WHAT)? != [0]).into(),
            kind::STRING => self.string(WHAT)?.into(),
            kind::U64 => self.u64(WHAT)?.into(),
            kind::I64 => i64::from_le_bytes(self.bytes(WHAT)?).into(),
            kind::F64 => f64::from_le_bytes(self.bytes(WHAT)?).into(),
            other => return Err(Error::Corrupt(format!("a value of type {other}"))),
        })
    }

    fn skip(&mut self, count: u64) -> Result<(), Error> {
        debug_assert!(count <= 8, "the size of one element");
        let mut scratch = [0; 8];
        self.claim(count, "an array")?;
        self.read_exact(&mut scratch[..count as usize], "an array")
    }

    fn note_fill(&mut self, token: &[u8]) {
        let known = FILL.iter().copied().flatten().find(|text| text.as_bytes() == token);
        self.fill.extend(known);
    }

    fn tensor(&mut self) -> Result<Tensor, Error> {
        const WHAT: &str = "a tensor description";
        let name = self.string(WHAT)?;
        let dimensions = self.u32(WHAT)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Error::Corrupt(format!("tensor {name} has {dimensions} dimensions")));
        }
        let shape = (0..dimensions).map(|_| self.u64(WHAT)).collect::<Result<Vec<_>, _>>()?;
        if shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n)).is_none() {
            return Err(Error::Corrupt(format!("tensor {name} has an impossible size")));
        }
        let kind = self.u32(WHAT)?;
        let _offset = self.u64(WHAT)?;
        Ok(Tensor { name, kind, shape })
    }
}

/// A 32-bit float with the digits that it needs, so that 1e-5 does not become 9.999999747378752e-6. JSON has no NaN.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// GGUF's numbers of value types.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;

    /// Least bytes of one element. Arrays of arrays exist on paper only; llama.cpp refuses them too.
    pub(super) fn size(kind: u32) -> Option<u64> {
        Some(match kind {
            U8 | I8 | BOOL => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            STRING | U64 | I64 | F64 => 8,
            _ => return None,
        })
    }
}

#[cfg(test)]
pub(super) mod writer {
    //! Builds small GGUF files.

    use super::kind;

    #[derive(Default)]
    pub(crate) struct Writer {
        pairs: Vec<u8>,
        pair_count: u64,
        tensors: Vec<u8>,
        tensor_count: u64,
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    impl Writer {
        pub(crate) fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
            text(&mut self.pairs, key);
            self.pairs.extend(kind.to_le_bytes());
            self.pairs.extend(value);
            self.pair_count += 1;
            self
        }

        pub(crate) fn string(self, key: &str, value: &str) -> Self {
            let mut bytes = Vec::new();
            text(&mut bytes, value);
            self.pair(key, kind::STRING, &bytes)
        }

        pub(crate) fn u32(self, key: &str, value: u32) -> Self {
            self.pair(key, kind::U32, &value.to_le_bytes())
        }

        pub(crate) fn strings(self, key: &str, values: &[&str]) -> Self {
            let mut bytes = kind::STRING.to_le_bytes().to_vec();
            bytes.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| text(&mut bytes, value));
            self.pair(key, kind::ARRAY, &bytes)
        }

        pub(crate) fn tensor(mut self, name: &str, kind: u32, shape: &[u64]) -> Self {
            text(&mut self.tensors, name);
            self.tensors.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| self.tensors.extend(n.to_le_bytes()));
            self.tensors.extend(kind.to_le_bytes());
            self.tensors.extend(0_u64.to_le_bytes());
            self.tensor_count += 1;
            self
        }

        pub(crate) fn finish(self) -> Vec<u8> {
            let mut file = b"GGUF".to_vec();
            file.extend(3_u32.to_le_bytes());
            file.extend(self.tensor_count.to_le_bytes());
            file.extend(self.pair_count.to_le_bytes());
            file.extend(self.pairs);
            file.extend(self.tensors);
            file
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::writer::Writer;
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Header, Error> {
        read(bytes, bytes.len() as u64, Detail::Brief)
    }

    fn sample() -> Vec<u8> {
        Writer::default()
            .string("general.architecture", "llama")
            .u32("llama.context_length", 2048)
            .pair("llama.rms_eps", kind::F32, &1e-5_f32.to_le_bytes())
            .pair("llama.causal", kind::BOOL, &[1])
            .pair("llama.offset", kind::I64, &(-7_i64).to_le_bytes())
            .strings("general.tags", &["a", "b"])
            .strings(
                "tokenizer.ggml.tokens",
                &["x", "y", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "z"],
            )
            .tensor("token_embd.weight", 8, &[64, 100])
            .tensor("norm", 0, &[64])
            .finish()
    }

    #[test]
    fn key_values_and_tensors_come_back_as_written() {
        let header = parse(&sample()).unwrap();
        assert_eq!(
            Value::Object(header.metadata),
            json!({
                "general.architecture": "llama", "llama.context_length": 2048, "llama.rms_eps": 1e-5, "llama.causal": true,
                "llama.offset": -7, "general.tags": ["a", "b"], "tokenizer.ggml.tokens": null,
            })
        );
        assert_eq!(
            header.tensors[0],
            Tensor { name: "token_embd.weight".into(), kind: 8, shape: vec![64, 100] }
        );
        assert_eq!(header.tensors[1].elements(), 64);
        assert_eq!(header.fill, HashSet::from(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]));
    }

    #[test]
    fn in_full_detail_long_arrays_are_kept_and_nothing_else_differs() {
        let file = sample();
        let full = read(file.as_slice(), file.len() as u64, Detail::Full).unwrap();
        assert_eq!(
            full.metadata["tokenizer.ggml.tokens"],
            json!(["x", "y", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "z"])
        );
        let brief = parse(&file).unwrap();
        assert_eq!((full.fill, full.fingerprint), (brief.fill, brief.fingerprint));
    }

    #[test]
    fn arrays_beyond_what_memory_allows_are_not_kept_in_full_detail_either() {
        let count = MAX_ELEMENTS / 2 + 1;
        let mut array = [kind::U8.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
        array.resize(array.len() + count as usize, 1);
        let file = Writer::default().pair("a", kind::ARRAY, &array).pair("b", kind::ARRAY, &array).finish();
        let full = read(file.as_slice(), file.len() as u64, Detail::Full).unwrap();
        assert_eq!(full.metadata["a"].as_array().unwrap().len() as u64, count);
        assert_eq!(full.metadata["b"], Value::Null);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_an_error_in_words() {
        let file = sample();
        for cut in 0..file.len() {
            let error = parse(&file[..cut]).unwrap_err().to_string();
            assert!(error == "not a GGUF file" || error.starts_with("truncated: "), "at {cut}: {error}");
        }
    }

    #[test]
    fn a_file_that_shrinks_while_being_read_is_truncated() {
        let file = sample();
        assert!(matches!(
            read(&file[..file.len() - 1], file.len() as u64, Detail::Brief),
            Err(Error::Truncated(_))
        ));
    }

    #[test]
    fn other_files_and_versions_are_named() {
        assert_eq!(parse(b"<html>nothing here</html>").unwrap_err().to_string(), "not a GGUF file");
        let mut file = sample();
        file[4] = 7;
        assert_eq!(parse(&file).unwrap_err().to_string(), "unsupported GGUF version 7");
    }

    #[test]
    fn impossible_counts_are_refused_before_anything_is_reserved() {
        for place in [8..16, 16..24] {
            let mut file = sample();
            file[place].fill(0xff);
            assert!(matches!(parse(&file), Err(Error::Truncated(_))));
        }
        let huge = [kind::U64.to_le_bytes().as_slice(), &(1_u64 << 61).to_le_bytes()].concat();
        let file = Writer::default().pair("a", kind::ARRAY, &huge).finish();
        assert!(matches!(parse(&file), Err(Error::Truncated("an array"))));
        let file = Writer::default().tensor("t", 0, &[u64::MAX, 2]).finish();
        assert_eq!(parse(&file).unwrap_err().to_string(), "corrupt GGUF: tensor t has an impossible size");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&tail);
            let _ = parse(&[b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".as_slice(), &tail].concat());
        }

        #[test]
        fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut file = sample();
            let at = at.index(file.len());
            file[at] = byte;
            let _ = parse(&file);
        }
    }
}
