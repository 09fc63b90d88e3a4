//! [`Pairs`]: the key/values of a header.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use serde_json::{Map, Value};

use super::kind;
use super::reader::Reader;
use super::{Detail, Error};

/// Longer arrays are of no use to most who read about a model, so only their presence is kept.
const MAX_ARRAY: u64 = 5;
/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u64 = 512;
/// Elements of longer arrays that are kept in full detail, all arrays together: three times what the largest vocabulary has
/// with its scores, types and merges. An element takes some 50 bytes of memory, however few it has in the file.
pub(super) const MAX_ELEMENTS: u64 = 4 << 20;
/// Bytes of the shortest key/value (one letter, one byte).
const MIN_PAIR: u64 = 8 + 1 + 4 + 1;
/// The format's own limit.
const MAX_KEY: usize = 0xffff;
/// Where tensors begin, in multiples of this many bytes, unless `general.alignment` says otherwise. llama.cpp ends the process
/// over a file that is mapped with a smaller one.
const ALIGNMENT: u64 = 32;

/// The strength that a LoRA adapter was trained with. llama.cpp ends the process over one of another type.
const ALPHA: &str = "adapter.lora.alpha";

/// The texts by which llama.cpp finds the tokens before, after and at the gap, where the file has no ids for them.
pub const FILL: [&[&str]; 3] = [
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

/// What the key/values say.
pub(super) struct Pairs {
    pub(super) metadata: Map<String, Value>,
    pub(super) fill: HashSet<&'static str>,
    /// Of tensors, in bytes: a power of two.
    pub(super) alignment: u64,
    /// Hashes of the vocabulary: of 64 bits, so that two tokens of a large one share one in a billion files.
    tokens: HashSet<u64>,
    hasher: RandomState,
    /// How many more elements may be kept of long arrays.
    elements: u64,
    /// Arrays of so many numbers are kept in any case.
    longest: u64,
}

impl Pairs {
    /// Reads `count` of them.
    pub(super) fn read(reader: &mut Reader<impl Read>, count: u64, detail: Detail) -> Result<Self, Error> {
        reader.check_count(count, MIN_PAIR, "the key/values")?;
        let mut pairs = Self {
            metadata: Map::new(),
            fill: HashSet::new(),
            alignment: ALIGNMENT,
            tokens: HashSet::new(),
            hasher: RandomState::new(),
            elements: if detail == Detail::Full { MAX_ELEMENTS } else { 0 },
            longest: if detail == Detail::Layers { MAX_LAYERS } else { MAX_ARRAY },
        };
        for _ in 0..count {
            pairs.pair(reader)?;
        }
        Ok(pairs)
    }

    fn pair(&mut self, reader: &mut Reader<impl Read>) -> Result<(), Error> {
        let at = reader.at();
        let corrupt = |what| Err(Error::Corrupt { at, what });
        let key = reader.string("a key")?;
        if key.is_empty() || key.len() > MAX_KEY || key.contains('\0') {
            return corrupt("a key that is empty, too long or holds a NUL".to_owned());
        }
        if self.metadata.contains_key(&key) {
            return corrupt(format!("key {} for the second time", key.escape_debug()));
        }
        let kind = reader.u32("a value's type")?;
        let value = self.value(reader, &key, kind)?;
        if key == "general.alignment" {
            match value.as_u64() {
                Some(bytes) if kind == kind::U32 && bytes >= ALIGNMENT && bytes.is_power_of_two() => {
                    self.alignment = bytes;
                }
                _ => return corrupt(format!("alignment {value}, not a power of two from {ALIGNMENT} on")),
            }
        }
        if key == ALPHA && kind != kind::F32 {
            return corrupt(format!("{ALPHA} is no 32-bit float"));
        }
        self.metadata.insert(key, value);
        Ok(())
    }

    fn value(&mut self, reader: &mut Reader<impl Read>, key: &str, kind: u32) -> Result<Value, Error> {
        const WHAT: &str = "an array";
        if kind != kind::ARRAY {
            return scalar(reader, kind);
        }
        let at = reader.at();
        let of = reader.u32("an array's type")?;
        let count = reader.u64("an array's length")?;
        let Some(size) = kind::size(of) else {
            return Err(Error::Corrupt {
                at,
                what: format!("{} is an array of type {of}", key.escape_debug()),
            });
        };
        reader.check_count(count, size, WHAT)?;
        let is_vocabulary = key == "tokenizer.ggml.tokens";
        let is_short = count <= if of == kind::STRING { MAX_ARRAY } else { self.longest };
        if is_short || count <= self.elements {
            self.elements = self.elements.saturating_sub(count);
            let values: Vec<_> = (0..count).map(|_| scalar(reader, of)).collect::<Result<_, _>>()?;
            if is_vocabulary {
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .try_for_each(|text| self.token(text.as_bytes(), at))?;
            }
            return Ok(Value::Array(values));
        }
        if of != kind::STRING {
            reader.skip(count * size, WHAT)?;
            return Ok(Value::Null);
        }
        for _ in 0..count {
            let at = reader.at();
            let text = reader.blob(WHAT)?;
            if is_vocabulary {
                self.token(text, at)?;
            }
        }
        Ok(Value::Null)
    }

    /// Takes note of a token of the vocabulary. llama.cpp ends the process over one that is there twice, empty ones excepted.
    fn token(&mut self, token: &[u8], at: u64) -> Result<(), Error> {
        if !token.is_empty() && !self.tokens.insert(self.hasher.hash_one(token)) {
            let what = format!("token {:?} for the second time", String::from_utf8_lossy(token));
            return Err(Error::Corrupt { at, what });
        }
        let known = FILL.iter().copied().flatten().find(|text| text.as_bytes() == token);
        self.fill.extend(known);
        Ok(())
    }
}

fn scalar(reader: &mut Reader<impl Read>, kind: u32) -> Result<Value, Error> {
    const WHAT: &str = "a value";
    let at = reader.at();
    Ok(match kind {
        kind::U8 => u8::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::I8 => i8::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::U16 => u16::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::I16 => i16::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::U32 => reader.u32(WHAT)?.into(),
        kind::I32 => i32::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::F32 => short(f32::from_le_bytes(reader.bytes(WHAT)?)),
        kind::BOOL => (reader.bytes::<1>(WHAT)? != [0]).into(),
        kind::STRING => reader.string(WHAT)?.into(),
        kind::U64 => reader.u64(WHAT)?.into(),
        kind::I64 => i64::from_le_bytes(reader.bytes(WHAT)?).into(),
        kind::F64 => f64::from_le_bytes(reader.bytes(WHAT)?).into(),
        other => return Err(Error::Corrupt { at, what: format!("a value of type {other}") }),
    })
}

/// A 32-bit float with the digits that it needs, so that 1e-5 does not become 9.999999747378752e-6. JSON has no NaN.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
