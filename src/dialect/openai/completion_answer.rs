//! [`CompletionAnswer`]: what `/v1/completions` sends back.

use bytes::{BufMut, BytesMut};

use super::envelope::{self, Envelope, Names};
use crate::dialect::sse::EVENT_STREAM;
use crate::dialect::{Render, Spent, Whole, json};
use crate::error::Error;
use crate::generation::{Delta, Event, TokenLogprob};

/// Renders the answer of one request.
pub(super) struct CompletionAnswer {
    envelope: Envelope,
    logprobs: bool,
    /// Choices that a whole answer has at most: the best of those there are.
    wanted: usize,
    /// By choice: characters in the tokens reported so far.
    offsets: Vec<usize>,
}

impl CompletionAnswer {
    pub(super) fn new(model: &str, include_usage: bool, logprobs: bool) -> Self {
        let names = Names { id: "cmpl", whole: "text_completion", chunk: "text_completion" };
        let envelope = Envelope::new(names, model, include_usage);
        Self { envelope, logprobs, wanted: usize::MAX, offsets: Vec::new() }
    }

    /// Leaves out all but the best `wanted` choices.
    pub(super) fn with_best(self, wanted: usize) -> Self {
        Self { wanted, ..self }
    }

    fn chunk(
        &mut self,
        choice: usize,
        delta: &Delta,
        reason: Option<&str>,
        spent: &Spent,
        out: &mut BytesMut,
    ) {
        if self.offsets.len() <= choice {
            self.offsets.resize(choice + 1, 0);
        }
        let offset = &mut self.offsets[choice];
        let logprobs = (self.logprobs && !delta.logprobs.is_empty()).then_some(delta.logprobs.as_slice());
        self.envelope.chunk(choice, spent, out, |out| fields(&delta.text, logprobs, offset, reason, out));
    }
}

/// Appends the fields of a choice. `offset` is where the first token stands in the choice's text, and moves on.
fn fields(
    text: &str,
    logprobs: Option<&[TokenLogprob]>,
    offset: &mut usize,
    reason: Option<&str>,
    out: &mut BytesMut,
) {
    out.put_slice(b"\"text\":");
    json::string(out, text);
    out.put_slice(b",\"logprobs\":");
    match logprobs {
        Some(entries) => columns(entries, offset, out),
        None => out.put_slice(b"null"),
    }
    out.put_u8(b',');
    envelope::finish_reason(reason, out);
}

/// Appends log probabilities in this endpoint's form: a list per property instead of an object per token.
fn columns(entries: &[TokenLogprob], offset: &mut usize, out: &mut BytesMut) {
    out.put_slice(b"{\"tokens\":");
    json::list(out, entries, |out, entry| json::string(out, &entry.token));
    out.put_slice(b",\"token_logprobs\":");
    json::list(out, entries, |out, entry| json::finite(out, entry.logprob));
    out.put_slice(b",\"top_logprobs\":");
    json::list(out, entries, |out, entry| {
        out.put_u8(b'{');
        for (index, top) in entry.top.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            json::string(out, &top.token);
            out.put_u8(b':');
            json::finite(out, top.logprob);
        }
        out.put_u8(b'}');
    });
    out.put_slice(b",\"text_offset\":");
    json::list(out, entries, |out, entry| {
        json::number(out, *offset);
        *offset += entry.token.chars().count();
    });
    out.put_u8(b'}');
}

/// The `wanted` choices with the highest mean log probability per token, best first; all as they are if there are no more.
fn best(choices: &[Whole], wanted: usize) -> Vec<&Whole> {
    let mut best: Vec<&Whole> = choices.iter().collect();
    if wanted < best.len() {
        let mean = |choice: &Whole| match choice.logprobs.len() {
            0 => f32::NEG_INFINITY,
            count => choice.logprobs.iter().map(|entry| entry.logprob).sum::<f32>() / count as f32,
        };
        best.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        best.truncate(wanted);
    }
    best
}

impl Render for CompletionAnswer {
    fn stream_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, choice: usize, event: &Event, spent: &Spent, out: &mut BytesMut) {
        match event {
            Event::Delta(delta) if !delta.text.is_empty() || !delta.logprobs.is_empty() => {
                self.chunk(choice, delta, None, spent, out);
            }
            Event::Done(done) => {
                self.envelope.count(done);
                self.chunk(choice, &Delta::default(), Some(envelope::reason(done)), spent, out);
            }
            // This endpoint has no place for thinking and tool calls; text that is held back comes later.
            Event::Delta(_) | Event::ToolCall { .. } | Event::Error(_) => {}
        }
    }

    fn finish(&mut self, spent: &Spent, out: &mut BytesMut) {
        self.envelope.finish(spent, out);
    }

    fn failure(&mut self, error: &Error, out: &mut BytesMut) {
        envelope::failure(error, out);
    }

    fn whole(&mut self, choices: &[Whole], spent: &Spent) -> Vec<u8> {
        choices.iter().for_each(|choice| self.envelope.count(&choice.done));
        let logprobs = self.logprobs;
        let best = best(choices, self.wanted);
        self.envelope.whole(spent, |out| {
            json::list(out, best.into_iter().enumerate(), |out, (index, choice)| {
                let logprobs = logprobs.then_some(choice.logprobs.as_slice());
                let reason = Some(envelope::reason(&choice.done));
                envelope::choice(index, out, |out| fields(&choice.text, logprobs, &mut 0, reason, out));
            });
        })
    }
}
