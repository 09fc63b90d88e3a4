//! [`Answer`]: what generate and chat send back. Every line of a stream, the whole answer and the answer to a load have one
//! shape, so one writer makes them all.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use crate::dialect::tool_call::ToolCall;
use crate::dialect::{Render, Spent, Whole, json, logprob};
use crate::error::Error;
use crate::generation::{Delta, Done, DoneReason, Event, TokenLogprob};

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// In `response`, with the `context` at the end.
    Generate,
    /// In `message`, with tool calls.
    Chat,
}

/// Bytes of a whole answer besides its texts, more or less.
const WHOLE: usize = 320;

/// Renders the answer of one request.
pub(super) struct Answer {
    shape: Shape,
    /// The line up to its time, the same on every one.
    head: BytesMut,
    /// Tool calls sent so far.
    calls: usize,
}

/// What a line says.
#[derive(Default)]
struct Line<'a> {
    text: &'a str,
    thinking: &'a str,
    tool_calls: &'a [Value],
    logprobs: &'a [TokenLogprob],
    end: Option<End<'a>>,
}

/// How an answer ends.
enum End<'a> {
    Done(&'a Done),
    /// Nothing was generated: the reason, and no statistics.
    Nothing(&'static str),
}

impl Answer {
    pub(super) fn new(model: &str, shape: Shape) -> Self {
        let mut head = BytesMut::new();
        head.put_slice(b"{\"model\":");
        json::string(&mut head, model);
        head.put_slice(b",\"created_at\":\"");
        Self { shape, head, calls: 0 }
    }

    fn line(&mut self, line: &Line<'_>, spent: &Spent, out: &mut BytesMut) {
        out.put_slice(&self.head);
        json::time(out, spent.now);
        match self.shape {
            Shape::Generate => {
                out.put_slice(b"\",\"response\":");
                json::string(out, line.text);
                thinking(line.thinking, out);
            }
            Shape::Chat => {
                out.put_slice(b"\",\"message\":{\"role\":\"assistant\",\"content\":");
                json::string(out, line.text);
                thinking(line.thinking, out);
                self.tool_calls(line.tool_calls, out);
                out.put_u8(b'}');
            }
        }
        match &line.end {
            None => out.put_slice(b",\"done\":false"),
            Some(End::Nothing(reason)) => done(reason, out),
            Some(End::Done(end)) => self.statistics(end, spent, out),
        }
        if !line.logprobs.is_empty() {
            out.put_slice(b",\"logprobs\":");
            logprob::list(out, line.logprobs, false);
        }
        out.put_u8(b'}');
    }

    fn tool_calls(&mut self, calls: &[Value], out: &mut BytesMut) {
        if calls.is_empty() {
            return;
        }
        out.put_slice(b",\"tool_calls\":");
        json::list(out, calls, |out, call| {
            ToolCall::of(call).ollama(self.calls, out);
            self.calls += 1;
        });
    }

    fn statistics(&self, end: &Done, spent: &Spent, out: &mut BytesMut) {
        done(
            match end.reason {
                DoneReason::Stop => "stop",
                DoneReason::Length => "length",
            },
            out,
        );
        if self.shape == Shape::Generate && !end.context.is_empty() {
            out.put_slice(b",\"context\":");
            json::numbers(out, &end.context);
        }
        for (name, count) in [
            (&b",\"total_duration\":"[..], spent.total),
            (b",\"load_duration\":", spent.load.max(1)),
            (b",\"prompt_eval_count\":", end.prompt_tokens),
            (b",\"prompt_eval_duration\":", end.prompt_duration),
            (b",\"eval_count\":", end.completion_tokens),
            (b",\"eval_duration\":", end.completion_duration),
        ] {
            out.put_slice(name);
            json::number(out, count);
        }
    }
}

fn thinking(text: &str, out: &mut BytesMut) {
    if !text.is_empty() {
        out.put_slice(b",\"thinking\":");
        json::string(out, text);
    }
}

fn done(reason: &str, out: &mut BytesMut) {
    out.put_slice(b",\"done\":true,\"done_reason\":\"");
    out.put_slice(reason.as_bytes());
    out.put_u8(b'"');
}

impl Render for Answer {
    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn event(&mut self, _choice: usize, event: &Event, spent: &Spent, out: &mut BytesMut) {
        let line = match event {
            // Text is being held back: nothing to tell yet.
            Event::Delta(Delta { text, thinking, logprobs, .. })
                if text.is_empty() && thinking.is_empty() && logprobs.is_empty() =>
            {
                return;
            }
            Event::Delta(Delta { text, thinking, logprobs, .. }) => {
                Line { text, thinking, logprobs, ..Line::default() }
            }
            Event::ToolCall { call, .. } if self.shape == Shape::Chat => {
                Line { tool_calls: std::slice::from_ref(call), ..Line::default() }
            }
            Event::Done(end) => Line { end: Some(End::Done(end)), ..Line::default() },
            // Generate has no place for tool calls, and failures do not come this way.
            Event::ToolCall { .. } | Event::Error(_) => return,
        };
        self.line(&line, spent, out);
        out.put_u8(b'\n');
    }

    fn failure(&mut self, error: &Error, out: &mut BytesMut) {
        super::error(error, None, out);
        out.put_u8(b'\n');
    }

    fn whole(&mut self, choices: &[Whole], spent: &Spent) -> Vec<u8> {
        let mut out = BytesMut::new();
        if let [Whole { text, thinking, tool_calls, logprobs, done }, ..] = choices {
            out.reserve(WHOLE + self.head.len() + text.len() + thinking.len());
            let line = Line { text, thinking, tool_calls, logprobs, end: Some(End::Done(done)) };
            self.line(&line, spent, &mut out);
        }
        out.into()
    }

    fn loaded(&mut self, loaded: bool, spent: &Spent) -> Vec<u8> {
        let reason = if loaded { "load" } else { "unload" };
        let mut out = BytesMut::new();
        self.line(&Line { end: Some(End::Nothing(reason)), ..Line::default() }, spent, &mut out);
        out.into()
    }
}
