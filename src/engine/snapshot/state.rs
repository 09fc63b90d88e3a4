//! The state of one sequence as bytes, out of a llama.cpp context and into one.
#![expect(unsafe_code, reason = "llama-cpp-2's safe form hides the bytes, and here they go to disk")]

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::LlamaStateSeqFlags;

/// The bytes of the sequence `id`; `None` if llama.cpp cannot say them.
pub fn take(context: &LlamaContext, id: i32) -> Option<Vec<u8>> {
    let size = context.state_seq_get_size_ext(id, LlamaStateSeqFlags::empty());
    let mut state = vec![0; size];
    // SAFETY: llama.cpp writes the `size` bytes that it counted a moment ago in the same way, and nothing has changed since: the
    // context is this thread's alone.
    let written =
        unsafe { context.state_seq_get_data_ext(state.as_mut_ptr(), id, LlamaStateSeqFlags::empty()) };
    (size > 0 && written == size).then_some(state)
}

/// Replaces what the sequence `id` holds; false: it holds nothing of use now. `state` must be what [`take`] gave, of the same
/// model under the same settings, to the last bit.
pub fn put(context: &mut LlamaContext, id: i32, state: &[u8]) -> bool {
    // SAFETY: llama.cpp reads no further than `state` goes, and refuses counts, types and row sizes that are not the context's.
    // What it would not notice, cells that were never computed, has been ruled out: the bytes are whole (`format::decode` has
    // checked their sum) and were taken by this version from an equal context (the key).
    unsafe { context.state_seq_set_data_ext(state, id, LlamaStateSeqFlags::empty()) }
}
