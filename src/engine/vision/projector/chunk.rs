//! [`Chunks`]: an image file, unpacked and divided by mtmd into what is read as tokens and what is encoded.
#![expect(unsafe_code, reason = "calls mtmd")]

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::engine::sampling::Token;

/// A piece of what an image becomes.
pub enum Piece {
    /// Tokens.
    Text(Vec<Token>),
    /// What is encoded.
    Chunk(Chunk),
}

/// An image, or a tile of one, made ready to be encoded.
pub struct Chunk(pub(super) NonNull<sys::mtmd_input_chunk>);

// SAFETY: it is plain data of its own, and nothing changes it.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Vectors that it becomes.
    pub fn rows(&self) -> usize {
        // SAFETY: it is valid.
        unsafe { sys::mtmd_input_chunk_get_n_tokens(self.0.as_ptr()) }
    }

    /// Positions that these take in a sequence.
    pub fn positions(&self) -> usize {
        // SAFETY: it is valid.
        let count = unsafe { sys::mtmd_input_chunk_get_n_pos(self.0.as_ptr()) };
        count.try_into().unwrap_or(0)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it is a copy of its own, valid until here.
        unsafe { sys::mtmd_input_chunk_free(self.0.as_ptr()) }
    }
}

/// An unpacked image.
pub struct Bitmap(NonNull<sys::mtmd_bitmap>);

impl Bitmap {
    /// The image in `file`; `None` if that is damaged, or of a kind that is not supported.
    pub fn unpack(mtmd: NonNull<sys::mtmd_context>, file: &[u8]) -> Option<Self> {
        // SAFETY: mtmd reads no further than the bytes go. Without video, which is not built in, there is nothing but a bitmap to free.
        let unpacked = unsafe {
            let options = sys::mtmd_helper_init_opt_default();
            sys::mtmd_helper_bitmap_init_from_buf(mtmd.as_ptr(), file.as_ptr(), file.len(), false, options)
        };
        NonNull::new(unpacked.bitmap).map(Self)
    }
}

impl Drop for Bitmap {
    fn drop(&mut self) {
        // SAFETY: it is valid until here.
        unsafe { sys::mtmd_bitmap_free(self.0.as_ptr()) }
    }
}

/// What mtmd makes of a text with an image.
pub struct Chunks(NonNull<sys::mtmd_input_chunks>);

impl Chunks {
    /// Of an image without any text of ours; `None` if the projector cannot take it.
    pub fn of(mtmd: NonNull<sys::mtmd_context>, bitmap: &Bitmap) -> Option<Self> {
        // SAFETY: nothing is asked of the caller.
        let chunks = Self(NonNull::new(unsafe { sys::mtmd_input_chunks_init() })?);
        // SAFETY: nothing is asked of the caller; the marker is a constant.
        let marker = unsafe { std::ffi::CStr::from_ptr(sys::mtmd_default_marker()) };
        let text = sys::mtmd_input_text {
            text: marker.as_ptr(),
            text_len: marker.count_bytes(),
            add_special: false,
            parse_special: true,
        };
        let mut bitmaps = [bitmap.0.as_ptr().cast_const()];
        // SAFETY: all are valid, and there is one bitmap for one marker.
        let code = unsafe {
            sys::mtmd_tokenize(mtmd.as_ptr(), chunks.0.as_ptr(), &raw const text, bitmaps.as_mut_ptr(), 1)
        };
        (code == 0).then_some(chunks)
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        // SAFETY: it is valid.
        unsafe { sys::mtmd_input_chunks_size(self.0.as_ptr()) }
    }

    /// The piece at `index`, which must be less than [`Chunks::len`]; `None` if it is neither text nor image.
    pub fn piece(&self, index: usize) -> Option<Piece> {
        // SAFETY: there is one, and it lives as long as this.
        let chunk = unsafe { sys::mtmd_input_chunks_get(self.0.as_ptr(), index) };
        // SAFETY: as above.
        match unsafe { sys::mtmd_input_chunk_get_type(chunk) } {
            sys::MTMD_INPUT_CHUNK_TYPE_TEXT => {
                let mut count = 0;
                // SAFETY: as above.
                let tokens = unsafe { sys::mtmd_input_chunk_get_tokens_text(chunk, &raw mut count) };
                if tokens.is_null() || count == 0 {
                    return Some(Piece::Text(Vec::new()));
                }
                // SAFETY: there are as many tokens there as mtmd says, as long as the chunk lives.
                let tokens = unsafe { std::slice::from_raw_parts(tokens, count) };
                Some(Piece::Text(tokens.iter().map(|token| token.cast_unsigned()).collect()))
            }
            sys::MTMD_INPUT_CHUNK_TYPE_IMAGE => {
                // SAFETY: as above.
                let copy = unsafe { sys::mtmd_input_chunk_copy(chunk) };
                let chunk = Chunk(NonNull::new(copy)?);
                (chunk.rows() > 0 && chunk.positions() > 0).then_some(Piece::Chunk(chunk))
            }
            _ => None,
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: it is valid until here.
        unsafe { sys::mtmd_input_chunks_free(self.0.as_ptr()) }
    }
}
