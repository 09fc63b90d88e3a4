//! Log probabilities as both dialects write them: Ollama copied OpenAI's chat form.

use bytes::{BufMut, BytesMut};

use super::json;
use crate::generation::TokenLogprob;

/// Appends `{"token","logprob","bytes","top_logprobs"}` per entry, as a list. An empty `top_logprobs` is left out unless
/// `always_top`.
pub(super) fn list(out: &mut BytesMut, entries: &[TokenLogprob], always_top: bool) {
    json::list(out, entries, |out, entry| {
        out.put_u8(b'{');
        fields(out, &entry.token, entry.logprob, &entry.bytes);
        if always_top || !entry.top.is_empty() {
            out.put_slice(b",\"top_logprobs\":");
            json::list(out, &entry.top, |out, top| {
                out.put_u8(b'{');
                fields(out, &top.token, top.logprob, &top.bytes);
                out.put_u8(b'}');
            });
        }
        out.put_u8(b'}');
    });
}

fn fields(out: &mut BytesMut, token: &str, logprob: f32, bytes: &[u8]) {
    out.put_slice(b"\"token\":");
    json::string(out, token);
    out.put_slice(b",\"logprob\":");
    json::finite(out, logprob);
    out.put_slice(b",\"bytes\":");
    json::numbers(out, bytes);
}
