//! [`Answer`]: Ollama's NDJSON becomes events. A line may hold text, thinking, calls and the end at once.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use crate::generation::{Delta, Done, DoneReason, Event};
use crate::node::protocol::logprob::Logprob;
use crate::node::protocol::{Decode, Garbled, Lines, refusal};

/// One line of `/api/chat` or `/api/generate`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    message: Option<Message>,
    response: Option<String>,
    thinking: Option<String>,
    logprobs: Option<Vec<Logprob>>,
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: u64,
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
    context: Option<Vec<u32>>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<Value>>,
}

/// Reads a stream.
pub(super) struct Answer {
    /// Read, and not asked for yet.
    events: VecDeque<Event>,
    parallel_calls: bool,
    calls: usize,
}

impl Answer {
    /// Without `parallel_calls` what comes after the first call is left out: Ollama cannot be told to stop there.
    pub(super) fn new(parallel_calls: bool) -> Self {
        Self { events: VecDeque::new(), parallel_calls, calls: 0 }
    }

    fn read(&mut self, line: Line) -> Result<(), Garbled> {
        if let Some(error) = line.error.filter(|error| !error.is_null()) {
            self.events.push_back(Event::Error(refusal::in_band(&error)));
            return Ok(());
        }
        let message = line.message.unwrap_or_default();
        let delta = Delta {
            text: message.content.or(line.response).unwrap_or_default(),
            thinking: message.thinking.or(line.thinking).unwrap_or_default(),
            tokens: Vec::new(),
            logprobs: line.logprobs.unwrap_or_default().into_iter().map(Logprob::canonical).collect(),
        };
        if delta != Delta::default() {
            self.events.push_back(Event::Delta(delta));
        }
        for call in message.tool_calls.unwrap_or_default() {
            self.calls += 1;
            if self.parallel_calls || self.calls == 1 {
                self.events.push_back(Event::ToolCall { call: canonical(&call)?, tokens: Vec::new() });
            }
        }
        if line.done {
            self.events.push_back(Event::Done(Done {
                reason: match line.done_reason.as_deref() {
                    Some("length") => DoneReason::Length,
                    _ => DoneReason::Stop,
                },
                prompt_tokens: line.prompt_eval_count,
                completion_tokens: line.eval_count,
                prompt_duration: line.prompt_eval_duration,
                completion_duration: line.eval_duration,
                context: line.context.unwrap_or_default(),
                ..Done::default()
            }));
        }
        Ok(())
    }
}

/// `{"id"?,"function":{"index"?,"name","arguments"}}` without what is not canonical.
fn canonical(call: &Value) -> Result<Value, Garbled> {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name")).and_then(Value::as_str);
    let name = name.ok_or_else(|| Garbled("a tool call without a name".to_owned()))?;
    let arguments = function.and_then(|function| function.get("arguments"));
    let arguments = arguments.filter(|arguments| arguments.is_object()).cloned();
    let function =
        serde_json::json!({"name": name, "arguments": arguments.unwrap_or_else(|| serde_json::json!({}))});
    Ok(match call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        Some(id) => serde_json::json!({"id": id, "function": function}),
        None => serde_json::json!({"function": function}),
    })
}

impl Decode for Answer {
    fn next(&mut self, lines: &mut Lines) -> Result<Option<Event>, Garbled> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match lines.pop() {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => self.read(serde_json::from_slice(&line)?)?,
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Ollama;
    use super::*;
    use crate::generation::FailureCode;
    use crate::node::protocol::testing::{decoded, every_cut, generation, said};

    const CHAT: &str = concat!(
        r#"{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"h\u00e9🦙"},"done":false,"logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"x","logprob":-1.5,"bytes":[120]}]}]}"#,
        "\n",
        r#"{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"c1","function":{"index":0,"name":"f","arguments":{"x":1}}},{"function":{"name":"g","arguments":{}}}]},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","total_duration":9,"load_duration":1,"prompt_eval_count":3,"prompt_eval_duration":4,"eval_count":5,"eval_duration":6}"#,
        "\n",
    );

    fn chat() -> Vec<Event> {
        let first = json!({"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}});
        let second = json!({"function": {"name": "g", "arguments": {}}});
        let calls = [first, second].map(|call| Event::ToolCall { call, tokens: Vec::new() });
        let done = Done {
            reason: DoneReason::Length,
            prompt_tokens: 3,
            prompt_duration: 4,
            completion_tokens: 5,
            completion_duration: 6,
            ..Done::default()
        };
        said().into_iter().chain(calls).chain([Event::Done(done)]).collect()
    }

    #[test]
    fn a_chat_is_read_however_it_is_cut() {
        every_cut(&Ollama, &generation(json!({})), CHAT.as_bytes(), &chat());
    }

    #[test]
    fn who_wants_one_call_gets_the_first() {
        let one = generation(json!({"parallel_tool_calls": false}));
        let mut expected = chat();
        expected.remove(3);
        assert_eq!(decoded(&Ollama, &one, [CHAT.as_bytes()]).unwrap(), expected);
    }

    #[test]
    fn a_completion_ends_with_its_context() {
        let wire = concat!(
            r#"{"response":"a","thinking":"b","done":false}"#,
            "\n",
            r#"{"response":"c","done":true,"done_reason":"stop","context":[1,2],"eval_count":2}"#,
            "\n",
        );
        let events = [
            Event::Delta(Delta { text: "a".into(), thinking: "b".into(), ..Delta::default() }),
            Event::Delta(Delta { text: "c".into(), ..Delta::default() }),
            Event::Done(Done { completion_tokens: 2, context: vec![1, 2], ..Done::default() }),
        ];
        every_cut(&Ollama, &generation(json!({})), wire.as_bytes(), &events);
    }

    #[test]
    fn an_error_in_the_stream_ends_it() {
        let wire = "{\"response\":\"a\",\"done\":false}\n{\"error\":\"boom\"}\n";
        let events = decoded(&Ollama, &generation(json!({})), [wire.as_bytes()]).unwrap();
        let Some(Event::Error(failure)) = events.last() else { panic!("{events:?}") };
        assert_eq!((failure.code, failure.message.as_str()), (FailureCode::Internal, "boom"));
    }

    #[test]
    fn what_ends_without_done_is_cut_off_wherever_it_was_cut() {
        for length in 0..CHAT.len() {
            let read = decoded(&Ollama, &generation(json!({})), [&CHAT.as_bytes()[..length]]).unwrap();
            assert!(!matches!(read.last(), Some(Event::Done(_))), "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_answer_is_garbled() {
        for wire in ["<html>\n", "3\n", "{\"done\":3}\n", "{\"message\":{\"tool_calls\":[{}]}}\n"] {
            assert!(decoded(&Ollama, &generation(json!({})), [wire.as_bytes()]).is_err(), "{wire}");
        }
    }
}
