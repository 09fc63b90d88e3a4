//! [`ChatAnswer`]: what `/v1/chat/completions` sends back.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::envelope::{self, Envelope, Names};
use crate::dialect::sse::EVENT_STREAM;
use crate::dialect::tool_call::ToolCall;
use crate::dialect::{Render, Spent, Whole, json, logprob};
use crate::error::Error;
use crate::generation::{Delta, Done, Event, TokenLogprob};

/// Renders the answer of one request.
pub(super) struct ChatAnswer {
    envelope: Envelope,
    /// By index.
    choices: Vec<Choice>,
}

/// How far the stream of one choice has come.
#[derive(Clone, Default)]
struct Choice {
    /// The role has been sent; it comes once.
    begun: bool,
    /// Tool calls sent so far.
    calls: usize,
}

/// What a message or a delta says.
#[derive(Default)]
struct Message<'a> {
    text: &'a str,
    thinking: &'a str,
    tool_calls: &'a [Value],
    logprobs: &'a [TokenLogprob],
}

impl ChatAnswer {
    pub(super) fn new(model: &str, include_usage: bool) -> Self {
        let names = Names { id: "chatcmpl", whole: "chat.completion", chunk: "chat.completion.chunk" };
        Self { envelope: Envelope::new(names, model, include_usage), choices: Vec::new() }
    }

    fn choice(&mut self, index: usize) -> &mut Choice {
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Choice::default());
        }
        &mut self.choices[index]
    }

    fn delta(&mut self, index: usize, message: &Message<'_>, spent: &Spent, out: &mut BytesMut) {
        let choice = self.choice(index);
        let first = !std::mem::replace(&mut choice.begun, true);
        let calls = choice.calls;
        choice.calls += message.tool_calls.len();
        self.envelope.chunk(index, spent, out, |out| {
            out.put_slice(b"\"delta\":{");
            if first {
                out.put_slice(b"\"role\":\"assistant\",");
            }
            message.write(calls, out);
            out.put_slice(b"},");
            message.write_logprobs(out);
            envelope::finish_reason(None, out);
        });
    }

    fn end(&mut self, index: usize, done: &Done, spent: &Spent, out: &mut BytesMut) {
        let choice = self.choice(index);
        let reason = reason(choice.calls, done);
        if !choice.begun {
            // An answer without a word still opens with the role.
            self.delta(index, &Message::default(), spent, out);
        }
        self.envelope.count(done);
        self.envelope.chunk(index, spent, out, |out| {
            out.put_slice(b"\"delta\":{},");
            envelope::finish_reason(Some(reason), out);
        });
    }
}

/// A run that ended by itself after calling tools waits for their results.
fn reason(calls: usize, done: &Done) -> &'static str {
    match envelope::reason(done) {
        "stop" if calls > 0 => "tool_calls",
        reason => reason,
    }
}

impl Message<'_> {
    /// Appends the fields of a message; `calls` tool calls came before.
    fn write(&self, calls: usize, out: &mut BytesMut) {
        out.put_slice(b"\"content\":");
        json::string(out, self.text);
        if !self.thinking.is_empty() {
            // Ollama's name, and the one of llama-server and most others: clients know either.
            for name in [&b",\"reasoning\":"[..], b",\"reasoning_content\":"] {
                out.put_slice(name);
                json::string(out, self.thinking);
            }
        }
        if !self.tool_calls.is_empty() {
            out.put_slice(b",\"tool_calls\":");
            json::list(out, self.tool_calls.iter().enumerate(), |out, (index, call)| {
                ToolCall::of(call).openai(calls + index, out);
            });
        }
    }

    fn write_logprobs(&self, out: &mut BytesMut) {
        if !self.logprobs.is_empty() {
            out.put_slice(b"\"logprobs\":{\"content\":");
            logprob::list(out, self.logprobs, true);
            out.put_slice(b"},");
        }
    }
}

impl Render for ChatAnswer {
    fn stream_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, choice: usize, event: &Event, spent: &Spent, out: &mut BytesMut) {
        match event {
            // Text is being held back: nothing to tell yet.
            Event::Delta(Delta { text, thinking, logprobs, .. })
                if text.is_empty() && thinking.is_empty() && logprobs.is_empty() => {}
            Event::Delta(Delta { text, thinking, logprobs, .. }) => {
                self.delta(choice, &Message { text, thinking, logprobs, tool_calls: &[] }, spent, out);
            }
            Event::ToolCall { call, .. } => {
                let tool_calls = std::slice::from_ref(call);
                self.delta(choice, &Message { tool_calls, ..Message::default() }, spent, out);
            }
            Event::Done(done) => self.end(choice, done, spent, out),
            Event::Error(_) => {}
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
        self.envelope.whole(spent, |out| {
            json::list(out, choices.iter().enumerate(), |out, (index, choice)| {
                let Whole { text, thinking, tool_calls, logprobs, done } = choice;
                let message = Message { text, thinking, tool_calls, logprobs };
                envelope::choice(index, out, |out| {
                    out.put_slice(b"\"message\":{\"role\":\"assistant\",");
                    message.write(0, out);
                    out.put_slice(b"},");
                    message.write_logprobs(out);
                    envelope::finish_reason(Some(reason(tool_calls.len(), done)), out);
                });
            });
        })
    }
}
