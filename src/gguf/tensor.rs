//! [`Tensor`]: the descriptions of tensors, and whether their data is where they say.

use std::collections::HashSet;
use std::io::Read;
use std::ops::Range;

use super::Error;
use super::reader::Reader;

/// Bytes of the shortest description (a scalar with an empty name).
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;
const F32: u32 = 0;
/// ggml has tensors of up to four dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// Bytes of a name, as in ggml, which also needs one for the end.
const MAX_NAME: usize = 63;

/// The description of one tensor.
#[derive(Debug, Default, PartialEq)]
pub struct Tensor {
    /// Such as `blk.0.attn_q.weight`.
    pub name: String,
    /// ggml's number of the element type, one of [`TYPES`].
    pub kind: u32,
    /// Fastest-running dimension first. The product fits `i64`.
    pub shape: Vec<u64>,
    /// Where its data is in the file.
    pub place: Range<u64>,
}

impl Tensor {
    /// Whether its elements are 32-bit floats.
    pub fn is_float(&self) -> bool {
        self.kind == F32
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A type of elements.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// ggml's number.
    pub number: u32,
    /// ggml's name.
    pub name: &'static str,
    /// Elements in a block; rows consist of whole blocks.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

/// Every type that ggml knows today (`ggml.h`, `enum ggml_type`; blocks are in `ggml-common.h`).
pub const TYPES: [Type; 35] = [
    of(F32, "F32", 1, 4),
    of(1, "F16", 1, 2),
    of(2, "Q4_0", 32, 18),
    of(3, "Q4_1", 32, 20),
    of(6, "Q5_0", 32, 22),
    of(7, "Q5_1", 32, 24),
    of(8, "Q8_0", 32, 34),
    of(9, "Q8_1", 32, 36),
    of(10, "Q2_K", 256, 84),
    of(11, "Q3_K", 256, 110),
    of(12, "Q4_K", 256, 144),
    of(13, "Q5_K", 256, 176),
    of(14, "Q6_K", 256, 210),
    of(15, "Q8_K", 256, 292),
    of(16, "IQ2_XXS", 256, 66),
    of(17, "IQ2_XS", 256, 74),
    of(18, "IQ3_XXS", 256, 98),
    of(19, "IQ1_S", 256, 50),
    of(20, "IQ4_NL", 32, 18),
    of(21, "IQ3_S", 256, 110),
    of(22, "IQ2_S", 256, 82),
    of(23, "IQ4_XS", 256, 136),
    of(24, "I8", 1, 1),
    of(25, "I16", 1, 2),
    of(26, "I32", 1, 4),
    of(27, "I64", 1, 8),
    of(28, "F64", 1, 8),
    of(29, "IQ1_M", 256, 56),
    of(30, "BF16", 1, 2),
    of(34, "TQ1_0", 256, 54),
    of(35, "TQ2_0", 256, 66),
    of(39, "MXFP4", 32, 17),
    of(40, "NVFP4", 64, 36),
    of(41, "Q1_0", 128, 18),
    of(42, "Q2_0", 64, 18),
];

const fn of(number: u32, name: &'static str, block: u64, bytes: u64) -> Type {
    Type { number, name, block, bytes }
}

impl Type {
    /// The type of this number.
    pub fn find(number: u32) -> Option<Self> {
        TYPES.into_iter().find(|known| known.number == number)
    }

    /// Bytes of a tensor; `None`: its rows are no whole blocks, or there are more than fit `i64`, which is what ggml counts in.
    fn size(self, shape: &[u64]) -> Option<u64> {
        let elements = shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n))?;
        let row = shape.first().copied().unwrap_or(1);
        let bytes = (elements / self.block).checked_mul(self.bytes)?;
        let fits = i64::try_from(elements).is_ok() && i64::try_from(bytes).is_ok();
        (fits && row.is_multiple_of(self.block)).then_some(bytes)
    }
}

/// Reads `count` descriptions. The data of the first begins at the next multiple of `alignment` behind them, that of each other one at
/// the next behind the one before it.
pub(super) fn read_all(
    reader: &mut Reader<impl Read>,
    count: u64,
    alignment: u64,
) -> Result<Vec<Tensor>, Error> {
    reader.check_count(count, MIN_TENSOR, "the tensor descriptions")?;
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    let mut next = 0;
    for _ in 0..count {
        let at = reader.at();
        let tensor = read(reader, next)?;
        if !names.insert(tensor.name.clone()) {
            return Err(Error::Corrupt {
                at,
                what: format!("tensor {} for the second time", tensor.name.escape_debug()),
            });
        }
        // Both are below 2^63.
        next = tensor.place.end.next_multiple_of(alignment);
        tensors.push(tensor);
    }
    let start = reader.at().next_multiple_of(alignment);
    for tensor in &mut tensors {
        tensor.place.start = tensor.place.start.saturating_add(start);
        tensor.place.end = tensor.place.end.saturating_add(start);
    }
    Ok(tensors)
}

/// Reads one description; `next` is where its data has to begin. Its place counts from the first tensor's.
fn read(reader: &mut Reader<impl Read>, next: u64) -> Result<Tensor, Error> {
    const WHAT: &str = "a tensor description";
    let at = reader.at();
    let corrupt = |what| Err(Error::Corrupt { at, what });
    let name = reader.string(WHAT)?;
    let shown = name.escape_debug();
    if name.len() > MAX_NAME || name.contains('\0') {
        return corrupt(format!("a tensor's name of {} bytes, or with a NUL", name.len()));
    }
    let dimensions = reader.u32(WHAT)?;
    if dimensions > MAX_DIMENSIONS {
        return corrupt(format!("tensor {shown} has {dimensions} dimensions"));
    }
    let shape = (0..dimensions).map(|_| reader.u64(WHAT)).collect::<Result<Vec<_>, _>>()?;
    let kind = reader.u32(WHAT)?;
    let Some(of) = Type::find(kind) else {
        return corrupt(format!("tensor {shown} has elements of the unknown type {kind}"));
    };
    let size = of.size(&shape).filter(|size| *size > 0);
    let Some(size) = size else {
        return corrupt(format!("tensor {shown} has an impossible size: {shape:?} of type {}", of.name));
    };
    let offset = reader.u64(WHAT)?;
    if offset != next {
        return corrupt(format!("tensor {shown} begins at byte {offset} of the data instead of {next}"));
    }
    match offset.checked_add(size).filter(|end| *end < 1 << 62) {
        Some(end) => Ok(Tensor { name, kind, shape, place: offset..end }),
        None => corrupt(format!("tensor {shown} ends beyond any file")),
    }
}

/// Whether all data is inside a file of `length` bytes.
pub(super) fn check_data(tensors: &[Tensor], length: u64) -> Result<(), Error> {
    match tensors.iter().find(|tensor| tensor.place.end > length) {
        Some(Tensor { name, place, .. }) => {
            Err(Error::Data { name: name.escape_debug().to_string(), end: place.end, length })
        }
        None => Ok(()),
    }
}
