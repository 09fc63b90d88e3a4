//! [`CompletionAnswer`]: what `/completion` and `/infill` send back. `generation_settings` and numbers of slots are left out.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use crate::dialect::sse::EVENT_STREAM;
use crate::dialect::{Render, Spent, Whole, json, logprob};
use crate::error::Error;
use crate::generation::{Delta, Done, DoneReason, Event, TokenLogprob};

/// Renders the answer of one request.
pub(super) struct CompletionAnswer {
    model: String,
    /// Repeated at the end.
    prompt: Option<String>,
    /// Most tokens, where the request says.
    limit: Option<i64>,
    probabilities: bool,
    /// Tokens sent.
    predicted: usize,
    has_new_line: bool,
}

impl CompletionAnswer {
    pub(super) fn new(model: &str, prompt: Option<String>, limit: Option<i64>, probabilities: bool) -> Self {
        let model = model.to_owned();
        Self { model, prompt, limit, probabilities, predicted: 0, has_new_line: false }
    }

    fn chunk(&mut self, delta: &Delta, out: &mut BytesMut) {
        self.predicted += delta.tokens.len();
        self.has_new_line |= delta.text.contains('\n');
        out.put_slice(b"data: ");
        content(&delta.text, &delta.tokens, out);
        out.put_slice(b"\"stop\":false,\"tokens_predicted\":");
        json::number(out, self.predicted);
        self.probabilities(&delta.logprobs, out);
        out.put_slice(b"}\n\n");
    }

    /// Appends the rest of the last object. llama-server knows which stop sequence ended an answer; a node does not tell.
    fn end(&self, done: &Done, has_new_line: bool, logprobs: &[TokenLogprob], out: &mut BytesMut) {
        let is_cut = done.reason == DoneReason::Length;
        let limit = self.limit.and_then(|limit| u64::try_from(limit).ok());
        out.put_slice(b"\"stop\":true,\"model\":");
        json::string(out, &self.model);
        out.put_slice(b",\"tokens_predicted\":");
        json::number(out, done.completion_tokens);
        out.put_slice(b",\"tokens_evaluated\":");
        json::number(out, done.prompt_tokens);
        if let Some(prompt) = &self.prompt {
            out.put_slice(b",\"prompt\":");
            json::string(out, prompt);
        }
        out.put_slice(b",\"has_new_line\":");
        json::value(out, &has_new_line);
        out.put_slice(b",\"truncated\":");
        // By the context, not by the request.
        json::value(out, &(is_cut && limit.is_none_or(|limit| done.completion_tokens < limit)));
        out.put_slice(b",\"stop_type\":");
        json::string(out, if is_cut { "limit" } else { "eos" });
        out.put_slice(b",\"stopping_word\":\"\",\"tokens_cached\":");
        json::number(out, (done.prompt_tokens + done.completion_tokens).saturating_sub(1));
        timings(done, out);
        self.probabilities(logprobs, out);
        out.put_u8(b'}');
    }

    fn probabilities(&self, logprobs: &[TokenLogprob], out: &mut BytesMut) {
        if self.probabilities && !logprobs.is_empty() {
            out.put_slice(b",\"completion_probabilities\":");
            logprob::list(out, logprobs, true);
        }
    }
}

/// Appends `{"index":0,"content","tokens",`.
fn content(text: &str, tokens: &[u32], out: &mut BytesMut) {
    out.put_slice(b"{\"index\":0,\"content\":");
    json::string(out, text);
    out.put_slice(b",\"tokens\":");
    json::numbers(out, tokens);
    out.put_u8(b',');
}

/// Appends `,"timings":{…}`.
fn timings(done: &Done, out: &mut BytesMut) {
    out.put_slice(b",\"timings\":{\"cache_n\":");
    json::number(out, done.cached_tokens);
    let read = done.prompt_tokens.saturating_sub(done.cached_tokens);
    for (name, count, nanoseconds) in [
        ("prompt", read, done.prompt_duration),
        ("predicted", done.completion_tokens, done.completion_duration),
    ] {
        let (count_or_one, milliseconds) = (count.max(1) as f64, nanoseconds.max(1) as f64 / 1e6);
        let (per_token, per_second) = (milliseconds / count_or_one, count as f64 * 1e3 / milliseconds);
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            ",\"{name}_n\":{count},\"{name}_ms\":{milliseconds},\"{name}_per_token_ms\":{per_token},\
             \"{name}_per_second\":{per_second}"
        );
    }
    out.put_u8(b'}');
}

impl Render for CompletionAnswer {
    fn stream_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, _choice: usize, event: &Event, _spent: &Spent, out: &mut BytesMut) {
        match event {
            Event::Delta(delta) if !delta.text.is_empty() || !delta.tokens.is_empty() => {
                self.chunk(delta, out)
            }
            Event::Done(done) => {
                out.put_slice(b"data: ");
                content("", &[], out);
                self.end(done, self.has_new_line, &[], out);
                out.put_slice(b"\n\n");
            }
            Event::Delta(_) | Event::ToolCall { .. } | Event::Error(_) => {}
        }
    }

    fn failure(&mut self, error: &Error, out: &mut BytesMut) {
        out.put_slice(b"data: ");
        super::error(error, None, out);
        out.put_slice(b"\n\n");
    }

    fn whole(&mut self, choices: &[Whole], _spent: &Spent) -> Vec<u8> {
        let [choice, ..] = choices else { return Vec::new() };
        let mut out = BytesMut::new();
        content(&choice.text, &[], &mut out);
        self.end(&choice.done, choice.text.contains('\n'), &choice.logprobs, &mut out);
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, done, joined, logprob, stream, whole};

    fn events() -> Vec<Event> {
        let delta = |text: &str, token| Delta {
            text: text.into(),
            tokens: vec![token],
            logprobs: vec![logprob(text)],
            ..Delta::default()
        };
        vec![Event::Delta(delta("a\n", 7)), Event::Delta(delta("b", 8)), Event::Done(done())]
    }

    fn ask(more: Value) -> crate::dialect::Call {
        let mut body = json!({ "model": "m", "prompt": "p" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(Endpoint::Completion, body)
    }

    #[test]
    fn a_whole_answer_has_llama_servers_fields() {
        let answer = whole(&mut *ask(json!({})).render, &[joined(&events())]);
        let timings = json!({
            "cache_n": 3, "prompt_n": 4, "prompt_ms": 2e-5, "prompt_per_token_ms": 5e-6, "prompt_per_second": 4e3 / 2e-5,
            "predicted_n": 2, "predicted_ms": 3e-5, "predicted_per_token_ms": 1.5e-5, "predicted_per_second": 2e3 / 3e-5,
        });
        let expected = json!({
            "index": 0, "content": "a\nb", "tokens": [], "stop": true, "model": "m", "tokens_predicted": 2,
            "tokens_evaluated": 7, "prompt": "p", "has_new_line": true, "truncated": false, "stop_type": "eos",
            "stopping_word": "", "tokens_cached": 8, "timings": timings,
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_stream_has_an_object_per_piece_and_one_at_the_end_without_an_end_mark() {
        let text = stream(&mut *ask(json!({ "stream": true, "n_probs": 1 })).render, &events());
        let objects: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|chunk| serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        assert_eq!(objects.len(), 3);
        assert_eq!(
            (
                &objects[1]["content"],
                &objects[1]["tokens"],
                &objects[1]["stop"],
                &objects[1]["tokens_predicted"]
            ),
            (&json!("b"), &json!([8]), &json!(false), &json!(2))
        );
        assert_eq!(objects[0]["completion_probabilities"][0]["token"], "a\n");
        assert_eq!((&objects[2]["content"], &objects[2]["stop"]), (&json!(""), &json!(true)));
        assert_eq!(objects[2]["has_new_line"], true);
    }

    #[test]
    fn an_answer_that_ends_before_its_limit_was_cut_by_the_context() {
        let cut = |limit: Value| {
            let mut ended = joined(&events());
            ended.done.reason = DoneReason::Length;
            let answer = whole(&mut *ask(json!({ "n_predict": limit })).render, &[ended]);
            (answer["stop_type"].clone(), answer["truncated"].clone())
        };
        assert_eq!(cut(json!(2)), (json!("limit"), json!(false)));
        assert_eq!(cut(json!(3)), (json!("limit"), json!(true)));
        assert_eq!(cut(json!(-1)), (json!("limit"), json!(true)));
    }
}
