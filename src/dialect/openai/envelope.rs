//! [`Envelope`]: what wraps every chunk and every whole answer of chat and text completions, and counts the usage.

use bytes::{BufMut, BytesMut};
use time::OffsetDateTime;

use crate::dialect::{Spent, json};
use crate::error::Error;
use crate::generation::{Done, DoneReason};

/// The outside of one request's answer. One id and one `created` for all of its chunks.
pub(super) struct Envelope {
    names: Names,
    id: String,
    model: String,
    include_usage: bool,
    /// A chunk up to its choices; written when the first one shows the time.
    head: Option<BytesMut>,
    usage: Usage,
}

/// The words that differ between the endpoints.
pub(super) struct Names {
    /// What ids begin with.
    pub(super) id: &'static str,
    /// `object` of a whole answer.
    pub(super) whole: &'static str,
    /// `object` of a chunk.
    pub(super) chunk: &'static str,
}

impl Envelope {
    pub(super) fn new(names: Names, model: &str, include_usage: bool) -> Self {
        let id = format!("{}-{:016x}", names.id, rand::random::<u64>());
        Self { names, id, model: model.to_owned(), include_usage, head: None, usage: Usage::default() }
    }

    /// Appends a chunk with one choice, whose fields after `index` `fields` writes.
    pub(super) fn chunk(
        &mut self,
        choice: usize,
        spent: &Spent,
        out: &mut BytesMut,
        fields: impl FnOnce(&mut BytesMut),
    ) {
        self.open(spent, out);
        self::choice(choice, out, fields);
        out.put_slice(b"]}\n\n");
    }

    /// Counts the end of a choice.
    pub(super) fn count(&mut self, done: &Done) {
        self.usage.add(done);
    }

    /// Appends the usage chunk, if asked for, and the end mark.
    pub(super) fn finish(&mut self, spent: &Spent, out: &mut BytesMut) {
        if self.include_usage {
            self.open(spent, out);
            out.put_slice(b"],");
            self.usage.write(out);
            out.put_slice(b"}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    /// The whole answer; `choices` writes the choices, each with [`choice`].
    pub(super) fn whole(&mut self, spent: &Spent, choices: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.fields(self.names.whole, spent.now, &mut out);
        choices(&mut out);
        out.put_u8(b',');
        self.usage.write(&mut out);
        out.put_u8(b'}');
        out.into()
    }

    /// Appends a chunk up to the opening bracket of its choices.
    fn open(&mut self, spent: &Spent, out: &mut BytesMut) {
        if let Some(head) = &self.head {
            return out.put_slice(head);
        }
        let mut head = BytesMut::from(&b"data: "[..]);
        self.fields(self.names.chunk, spent.now, &mut head);
        head.put_u8(b'[');
        out.put_slice(&head);
        self.head = Some(head);
    }

    /// Appends `{"id",…,"choices":`.
    fn fields(&self, object: &str, now: OffsetDateTime, out: &mut BytesMut) {
        out.put_slice(b"{\"id\":");
        json::string(out, &self.id);
        out.put_slice(b",\"object\":");
        json::string(out, object);
        out.put_slice(b",\"created\":");
        json::number(out, now.unix_timestamp());
        out.put_slice(b",\"model\":");
        json::string(out, &self.model);
        out.put_slice(b",\"system_fingerprint\":\"fp_ollama\",\"choices\":");
    }
}

/// Appends `{"index":…,` and the fields that `fields` writes, and `}`.
pub(super) fn choice(index: usize, out: &mut BytesMut, fields: impl FnOnce(&mut BytesMut)) {
    out.put_slice(b"{\"index\":");
    json::number(out, index);
    out.put_u8(b',');
    fields(out);
    out.put_u8(b'}');
}

/// Appends the in-band form of an error. There is no end mark after it, so nobody takes the answer for whole.
pub(super) fn failure(error: &Error, out: &mut BytesMut) {
    out.put_slice(b"data: ");
    super::error(error, None, out);
    out.put_slice(b"\n\n");
}

/// Appends `"finish_reason":…`.
pub(super) fn finish_reason(reason: Option<&str>, out: &mut BytesMut) {
    out.put_slice(b"\"finish_reason\":");
    json::value(out, &reason);
}

/// OpenAI's word for the end of an answer.
pub(super) fn reason(done: &Done) -> &'static str {
    match done.reason {
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
    }
}

/// Tokens of all choices. Their prompt is one and the same, so it counts once.
#[derive(Default)]
struct Usage {
    prompt: u64,
    cached: Option<u64>,
    completion: u64,
}

impl Usage {
    fn add(&mut self, done: &Done) {
        self.prompt = self.prompt.max(done.prompt_tokens);
        // Later choices may find in the cache what the first one computed.
        self.cached = Some(self.cached.map_or(done.cached_tokens, |cached| cached.min(done.cached_tokens)));
        self.completion = self.completion.saturating_add(done.completion_tokens);
    }

    fn write(&self, out: &mut BytesMut) {
        for (name, count) in [
            (&b"\"usage\":{\"prompt_tokens\":"[..], self.prompt),
            (b",\"completion_tokens\":", self.completion),
            (b",\"total_tokens\":", self.prompt.saturating_add(self.completion)),
            (b",\"prompt_tokens_details\":{\"cached_tokens\":", self.cached.unwrap_or(0)),
        ] {
            out.put_slice(name);
            json::number(out, count);
        }
        out.put_slice(b"}}");
    }
}
