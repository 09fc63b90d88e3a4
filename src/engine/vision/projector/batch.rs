//! [`Batch`]: vectors in place of tokens, and how they see each other.
#![expect(unsafe_code, reason = "llama-cpp-2 has batches of tokens only")]

use std::num::NonZeroI32;
use std::ptr::NonNull;

use llama_cpp_2::DecodeError;
use llama_cpp_sys_2 as sys;

/// Positions that a vector has that stands in a plane.
pub const AXES: usize = 4;

/// A batch of vectors.
pub struct Batch(*mut sys::llama_batch_ext);

impl Batch {
    /// An empty one for a context.
    pub fn new(context: NonNull<sys::llama_context>) -> Self {
        // SAFETY: the context is valid.
        Self(unsafe { sys::llama_batch_ext_init(context.as_ptr()) })
    }

    /// Adds a vector, which must live until the batch is processed; llama.cpp's error code if it takes none of the kind.
    pub fn add(&self, sequence: i32, vector: &[f32], place: &[i32; AXES]) -> Result<(), i32> {
        let vector = sys::llama_embd { data: vector.as_ptr(), n_rows: 1, n_embd: vector.len() };
        // SAFETY: the batch is valid; the vector is as long as it says.
        let index = unsafe { sys::llama_batch_ext_add_embd(self.0, sequence, vector) };
        // SAFETY: as above, and there are as many positions as any model has for a vector.
        match index >= 0 && unsafe { sys::llama_batch_ext_set_pos(self.0, index, place.as_ptr()) } {
            true => Ok(()),
            false => Err(index),
        }
    }

    /// Computes what was added, and empties the batch.
    pub fn process(&self, context: NonNull<sys::llama_context>) -> Result<(), DecodeError> {
        // SAFETY: both are valid, and the batch was made for the context.
        let code = unsafe { sys::llama_process(context.as_ptr(), sys::LLAMA_PROCESS_TYPE_DECODE, self.0) };
        // SAFETY: the batch is valid.
        unsafe { sys::llama_batch_ext_clear(self.0) };
        NonZeroI32::new(code).map_or(Ok(()), |code| Err(DecodeError::from(code)))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: it is valid until here.
        unsafe { sys::llama_batch_ext_free(self.0) }
    }
}

/// While it lives, what the context computes sees also what comes after it.
pub struct Acausal(NonNull<sys::llama_context>);

impl Acausal {
    /// From now on.
    pub fn set(context: NonNull<sys::llama_context>) -> Self {
        // SAFETY: the context is valid.
        unsafe { sys::llama_set_causal_attn(context.as_ptr(), false) };
        Self(context)
    }
}

impl Drop for Acausal {
    fn drop(&mut self) {
        // SAFETY: the context is valid: it is borrowed for longer than this lives.
        unsafe { sys::llama_set_causal_attn(self.0.as_ptr(), true) }
    }
}
