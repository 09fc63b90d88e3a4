//! Builds small GGUF files.

use super::kind;
use super::tensor::Type;

#[derive(Default)]
pub(crate) struct Writer {
    pairs: Vec<u8>,
    pair_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    /// Bytes of tensor data.
    data: u64,
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

    pub(crate) fn strings(self, key: &str, values: &[impl AsRef<str>]) -> Self {
        let mut bytes = kind::STRING.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(&mut bytes, value.as_ref()));
        self.pair(key, kind::ARRAY, &bytes)
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.pair(key, kind::BOOL, &[value.into()])
    }

    pub(crate) fn u32s(self, key: &str, values: &[u32]) -> Self {
        let mut bytes = kind::U32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.pair(key, kind::ARRAY, &bytes)
    }

    /// A tensor of zeroes, behind those before it.
    pub(crate) fn tensor(self, name: &str, kind: u32, shape: &[u64]) -> Self {
        let of = Type::find(kind).unwrap();
        let size = shape.iter().product::<u64>() / of.block * of.bytes;
        let offset = self.data.next_multiple_of(32);
        let mut tensor = self.described(name, kind, shape, offset);
        tensor.data = offset + size;
        tensor
    }

    /// A tensor that says so, without data.
    pub(crate) fn described(mut self, name: &str, kind: u32, shape: &[u64], offset: u64) -> Self {
        text(&mut self.tensors, name);
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|n| self.tensors.extend(n.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let data = self.data;
        let mut file = self.head();
        if data > 0 {
            file.resize(file.len().next_multiple_of(32) + data as usize, 0);
        }
        file
    }

    /// The file up to where the data of its tensors begins.
    pub(crate) fn head(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.pair_count.to_le_bytes());
        file.extend(self.pairs);
        file.extend(self.tensors);
        file
    }
}
