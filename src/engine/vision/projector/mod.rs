//! [`Projector`]: llama.cpp's multimodal library, mtmd. It turns an image file into chunks, a chunk into vectors, and puts vectors into
//! a context in place of tokens.
//!
//! llama-cpp-2 wraps of it what encodes and decodes in one go, on the thread that computes. So this is by the bindings below it; the two
//! pointers that it takes and llama-cpp-2 keeps to itself come from [`model`] and [`context`].
#![expect(
    unsafe_code,
    reason = "llama-cpp-2 gives out neither the vectors of an image nor batches of vectors"
)]

mod batch;
mod chunk;
mod trap;

use std::ffi::CString;
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

pub use chunk::{Chunk, Piece};

use super::Undecoded;
use crate::engine::log;
use crate::engine::model::why;
use batch::{AXES, Acausal, Batch};
use chunk::{Bitmap, Chunks};
use trap::Trap;

/// llama-cpp-2 describes a context in another way than the version that Cargo.toml allows.
const HIDDEN: &str = "llama-cpp-2 hides its context";

/// The projector of a model.
pub struct Projector {
    context: NonNull<sys::mtmd_context>,
    /// Which file a crash would be the fault of.
    heading: String,
    /// Numbers in a vector.
    width: usize,
    /// Held while something is encoded: it uses buffers of the context.
    encoding: Mutex<()>,
}

// SAFETY: the context is bound to no thread.
unsafe impl Send for Projector {}
// SAFETY: what goes on at the same time are questions about what never changes, dividing images, which mtmd has safe for any
// number of threads, and under the lock one encoding.
unsafe impl Sync for Projector {}

/// Takes mtmd's log over, for the whole process.
pub fn capture_log() {
    // SAFETY: `on_line` is a function, so it outlives every use, and it ignores its data pointer.
    unsafe { sys::mtmd_helper_log_set(Some(log::on_line), ptr::null_mut()) }
}

impl Projector {
    /// Loads the file for `llama`, which must outlive it. The error says in words what is wrong.
    pub fn load(path: &Path, llama: &LlamaModel, threads: u32, on_gpu: bool) -> Result<Self, String> {
        let heading = format!("bad projector: {}", path.display());
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|error| format!("{heading}: {error}"))?;
        // What the file says is checked as far as it goes for all kinds of projectors, of which each has its own tensors; mtmd takes
        // their shapes for granted.
        let trap = Trap::set(&heading);
        // SAFETY: the parameters are mtmd's own, with its own marker in them; name and model are valid throughout the call.
        let context = unsafe {
            let mut params = sys::mtmd_context_params_default();
            params.use_gpu = on_gpu;
            params.print_timings = false;
            params.n_threads = i32::try_from(threads).unwrap_or(i32::MAX);
            sys::mtmd_init_from_file(name.as_ptr(), model(llama), params)
        };
        drop(trap);
        let context = NonNull::new(context).ok_or_else(|| why(&heading, &"llama.cpp cannot load it"))?;
        // SAFETY: the model is valid.
        let width = unsafe { sys::llama_model_n_embd_inp(model(llama)) };
        let width = width.try_into().unwrap_or(0);
        let projector = Self { context, heading, width, encoding: Mutex::default() };
        // SAFETY: the context is valid.
        match unsafe { sys::mtmd_support_vision(context.as_ptr()) } {
            true => Ok(projector),
            false => Err(format!("{}: not for images", projector.heading)),
        }
    }

    /// What the model reads for the image in `file`. The error says in words what is wrong with it.
    pub fn divide(&self, file: &[u8]) -> Result<Vec<Piece>, String> {
        let bitmap =
            Bitmap::unpack(self.context, file).ok_or("damaged, or of a kind that is not supported")?;
        let chunks = Chunks::of(self.context, &bitmap).ok_or("the projector cannot take it")?;
        let pieces: Option<Vec<Piece>> = (0..chunks.len()).map(|index| chunks.piece(index)).collect();
        pieces.ok_or_else(|| "the projector makes of it what is no image".to_owned())
    }

    /// The vectors of a chunk, one after the other. The error says in words why there are none.
    pub fn encode(&self, chunk: &Chunk) -> Result<Vec<f32>, String> {
        let _alone = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        let trap = Trap::set(&self.heading);
        // SAFETY: both are valid, and nobody else encodes meanwhile.
        let code = unsafe { sys::mtmd_encode_chunk(self.context.as_ptr(), chunk.0.as_ptr()) };
        drop(trap);
        // SAFETY: the context is valid.
        let vectors = unsafe { sys::mtmd_get_output_embd(self.context.as_ptr()) };
        if code != 0 || vectors.is_null() {
            return Err(why("the image cannot be encoded", &code));
        }
        // SAFETY: after an encoding there are as many vectors there as the chunk has rows, until the next, which waits for the lock.
        Ok(unsafe { std::slice::from_raw_parts(vectors, chunk.rows() * self.width) }.to_vec())
    }

    /// Checks, once for each context of `llama`, that its pointer is found. The error says in words what is wrong.
    pub fn check(&self, context: &mut LlamaContext, llama: &LlamaModel) -> Result<(), String> {
        let context = self::context(context).ok_or_else(|| format!("{}: {HIDDEN}", self.heading))?;
        // SAFETY: what is read off the description as a context is looked at here first; nothing is written through it before.
        let found = unsafe { sys::llama_get_model(context.as_ptr()) };
        if ptr::eq(found, model(llama)) { Ok(()) } else { Err(format!("{}: {HIDDEN}", self.heading)) }
    }

    /// Whether each part of a picture sees only those before it, as text does.
    pub fn is_causal(&self) -> bool {
        // SAFETY: the context is valid; no chunk means an image.
        unsafe { !sys::mtmd_decode_use_non_causal(self.context.as_ptr(), ptr::null()) }
    }

    /// Whether the parts of a picture stand in a plane (M-RoPE), and not in a row.
    pub fn is_plane(&self) -> bool {
        // SAFETY: the context is valid.
        unsafe { sys::mtmd_decode_use_mrope(self.context.as_ptr()) }
    }

    /// Computes the `rows` of a chunk in the cells of `sequence`, the first of all its rows at `position`.
    pub fn decode(
        &self,
        context: &mut LlamaContext,
        sequence: i32,
        position: usize,
        chunk: &Chunk,
        vectors: &[f32],
        rows: Range<usize>,
    ) -> Result<(), Undecoded> {
        let most = (context.n_batch() as usize).max(1);
        let context = self::context(context).ok_or_else(|| refused(&HIDDEN))?;
        let _causality = (!self.is_causal()).then(|| Acausal::set(context));
        let batch = Batch::new(context);
        for from in rows.clone().step_by(most) {
            let piece = from..rows.end.min(from + most);
            for row in piece {
                let vector = vectors.get(row * self.width..(row + 1) * self.width);
                let vector = vector.ok_or_else(|| refused(&"a picture has fewer vectors than parts"))?;
                let place =
                    self.place(chunk, position, row).ok_or_else(|| refused(&"a position beyond 31 bits"))?;
                batch.add(sequence, vector, &place).map_err(|code| refused(&code))?;
            }
            match batch.process(context) {
                Ok(()) => {}
                Err(DecodeError::NoKvCacheSlot) => return Err(refused(&"no room in the KV cache")),
                // Which is any batch that does not fit what the context holds.
                Err(error @ DecodeError::NTokensZero) => return Err(refused(&why("bad batch", &error))),
                Err(error) => return Err(Undecoded::Broken(error.to_string())),
            }
        }
        Ok(())
    }

    /// Where a row stands: in a sequence behind the one before it, in a plane by mtmd's rule.
    fn place(&self, chunk: &Chunk, position: usize, row: usize) -> Option<[i32; AXES]> {
        if !self.is_plane() {
            return Some([i32::try_from(position + row).ok()?; AXES]);
        }
        let first = i32::try_from(position).ok()?;
        // SAFETY: the chunk is valid, of an image, and has that row.
        let place = unsafe {
            let image = sys::mtmd_input_chunk_get_tokens_image(chunk.0.as_ptr());
            sys::mtmd_image_tokens_get_decoder_pos(image, first, row)
        };
        // Their order in a batch (`decode_embd_batch::set_position_mrope_2d`).
        let axes = [place.t, place.y, place.x, place.z].map(|axis| i32::try_from(axis).ok());
        Some([axes[0]?, axes[1]?, axes[2]?, axes[3]?])
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        // SAFETY: it is valid, and nobody has it any more.
        unsafe { sys::mtmd_free(self.context.as_ptr()) }
    }
}

fn refused(reason: &dyn std::fmt::Display) -> Undecoded {
    Undecoded::Refused(format!("llama.cpp cannot decode the image: {reason}"))
}

/// llama.cpp's own pointer to a model, valid as long as that is.
fn model(llama: &LlamaModel) -> *const sys::llama_model {
    // SAFETY: `LlamaModel` is `repr(transparent)` over a non-null pointer to the model, in the one version that Cargo.toml allows.
    unsafe { *ptr::from_ref(llama).cast::<*const sys::llama_model>() }
}

/// llama.cpp's own pointer to a context, valid as long as that is borrowed. llama-cpp-2 has no other way to it than that it writes
/// the address where it is asked to describe itself, which exposes it. `None` if that ever changes; see [`Projector::check`].
fn context(context: &mut LlamaContext) -> Option<NonNull<sys::llama_context>> {
    address(&format!("{context:?}"))
        .and_then(|address| NonNull::new(ptr::with_exposed_provenance_mut(address)))
}

/// The only address in a description.
fn address(description: &str) -> Option<usize> {
    let (_, from) = description.split_once("context: 0x")?;
    let end = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
    usize::from_str_radix(&from[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_off_a_description_and_nothing_else_taken_for_it() {
        assert_eq!(address("LlamaContext { context: 0x7f3a10 }"), Some(0x7f_3a10));
        for other in ["LlamaContext { .. }", "LlamaContext { context: 0xzz }", "LlamaContext { model: 0x10 }"]
        {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
