//! [`Answer`]: OpenAI's server-sent events become canonical ones.
//!
//! The last choice ends with a `finish_reason`, a chunk with the usage follows, then `[DONE]`. Without a `finish_reason` an answer was
//! cut off, whatever follows; some servers leave out the rest.

use std::collections::VecDeque;
use std::time::Duration;

use super::calls::Calls;
use super::chunk::{Choice, Chunk, Timings, Usage};
use crate::generation::{Delta, Done, DoneReason, Event, Failure, FailureCode};
use crate::node::protocol::{Decode, Garbled, Lines, refusal};

/// Reads a stream.
#[derive(Default)]
pub(super) struct Answer {
    /// Read, and not asked for yet.
    events: VecDeque<Event>,
    calls: Calls,
    reason: Option<DoneReason>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    /// Pieces of text and thinking: about as many tokens, if nobody counts them.
    pieces: u64,
}

impl Answer {
    fn line(&mut self, line: &[u8]) -> Result<(), Garbled> {
        let line = line.trim_ascii();
        // Blank lines end an event, which here is always one line; a colon begins a comment.
        let field = match line.iter().position(|&byte| byte == b':') {
            None if line.is_empty() => return Ok(()),
            None => return Err(Garbled("a line that is no field of an event".to_owned())),
            Some(0) => return Ok(()),
            Some(at) => &line[..at],
        };
        let value = line[field.len() + 1..].trim_ascii();
        match field {
            b"data" if value == b"[DONE]" => self.done(),
            b"data" => self.chunk(serde_json::from_slice(value)?),
            // llama-server's older way to fail.
            b"error" => {
                self.events.push_back(Event::Error(refusal::in_band(&serde_json::from_slice(value)?)));
                Ok(())
            }
            b"event" | b"id" | b"retry" => Ok(()),
            _ => Err(Garbled("a line that is no field of an event".to_owned())),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), Garbled> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            self.events.push_back(Event::Error(refusal::in_band(&error)));
            return Ok(());
        }
        self.usage = chunk.usage.or(self.usage.take());
        self.timings = chunk.timings.or(self.timings.take());
        // One choice was asked for.
        chunk.choices.unwrap_or_default().into_iter().next().map_or(Ok(()), |choice| self.choice(choice))
    }

    fn choice(&mut self, choice: Choice) -> Result<(), Garbled> {
        let told = choice.delta.unwrap_or_default();
        let delta = Delta {
            text: told.content.or(choice.text).unwrap_or_default() + &told.refusal.unwrap_or_default(),
            thinking: told.reasoning_content.or(told.reasoning).unwrap_or_default(),
            tokens: Vec::new(),
            logprobs: choice.logprobs.map(|logprobs| logprobs.canonical()).unwrap_or_default(),
        };
        if delta != Delta::default() {
            self.pieces += 1;
            self.events.push_back(Event::Delta(delta));
        }
        for piece in told.tool_calls.unwrap_or_default() {
            self.pieces += 1;
            self.events.extend(self.calls.add(piece));
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => return Ok(()),
            Some("length") => self.reason = Some(DoneReason::Length),
            // How vLLM and SGLang end what they gave up.
            Some(word @ ("abort" | "error")) => {
                let message = format!("the node gave the answer up ({word})");
                self.events.push_back(Event::Error(Failure { code: FailureCode::Internal, message }));
            }
            Some(_) => self.reason = Some(DoneReason::Stop),
        }
        self.events.extend(self.calls.finish());
        Ok(())
    }

    /// The end of the stream, which is the end of the answer only if the choice has ended.
    fn done(&mut self) -> Result<(), Garbled> {
        let reason = self.reason.ok_or_else(|| Garbled("[DONE] before a finish_reason".to_owned()))?;
        let usage = self.usage.take();
        let timings = self.timings.take().unwrap_or_default();
        let cached = usage.as_ref().and_then(|usage| usage.prompt_tokens_details.as_ref()?.cached_tokens);
        let counted = (timings.prompt_n + timings.cache_n, timings.predicted_n.max(self.pieces));
        let (prompt_tokens, completion_tokens) =
            usage.map_or(counted, |usage| (usage.prompt_tokens, usage.completion_tokens));
        self.events.push_back(Event::Done(Done {
            reason,
            prompt_tokens,
            cached_tokens: cached.unwrap_or(timings.cache_n).min(prompt_tokens),
            completion_tokens,
            guessed_tokens: timings.draft_n,
            accepted_tokens: timings.draft_n_accepted.min(timings.draft_n),
            prompt_duration: nanoseconds(timings.prompt_ms),
            completion_duration: nanoseconds(timings.predicted_ms),
            context: Vec::new(),
        }));
        Ok(())
    }
}

fn nanoseconds(milliseconds: f64) -> u64 {
    let duration = Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default();
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Decode for Answer {
    fn next(&mut self, lines: &mut Lines) -> Result<Option<Event>, Garbled> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match lines.pop() {
                Some(line) => self.line(&line)?,
                None => return Ok(None),
            }
        }
    }

    fn end(&mut self, lines: &mut Lines) -> Result<Option<Event>, Garbled> {
        // A body that is complete may lack the end of its last line.
        let rest = lines.rest();
        self.line(&rest)?;
        if self.events.is_empty() && self.reason.is_some() {
            self.done()?;
        }
        Ok(self.events.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Openai;
    use super::*;
    use crate::generation::{Alternative, TokenLogprob};
    use crate::node::protocol::testing::{decoded, every_cut, generation, said};

    const CHAT: &str = concat!(
        ": ping\n\n",
        r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}],"usage":null}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"},"finish_reason":null}]}"#,
        "\r\n\r\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"h\u00e9🦙"},"logprobs":{"content":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"x","logprob":-1.5,"bytes":null}]}]},"finish_reason":null}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]},"finish_reason":null}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":null}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":null}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        "\n\n",
        r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}},"timings":{"prompt_n":5,"cache_n":4,"prompt_ms":1.5,"predicted_n":5,"predicted_ms":2.5}}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );

    fn chat() -> Vec<Event> {
        let call = |id: &str, name: &str, arguments| Event::ToolCall {
            call: json!({"id": id, "function": {"name": name, "arguments": arguments}}),
            tokens: Vec::new(),
        };
        let calls = [call("c1", "f", json!({"x": 1})), call("c2", "g", json!({}))];
        let done = Done {
            prompt_tokens: 9,
            cached_tokens: 4,
            completion_tokens: 5,
            prompt_duration: 1_500_000,
            completion_duration: 2_500_000,
            ..Done::default()
        };
        said().into_iter().chain(calls).chain([Event::Done(done)]).collect()
    }

    fn read(wire: &str) -> Result<Vec<Event>, Garbled> {
        decoded(&Openai, &generation(json!({})), [wire.as_bytes()])
    }

    #[test]
    fn a_chat_is_read_however_it_is_cut() {
        every_cut(&Openai, &generation(json!({})), CHAT.as_bytes(), &chat());
    }

    #[test]
    fn a_completion_has_its_text_and_lists_of_logprobs() {
        let wire = concat!(
            r#"data: {"object":"text_completion","choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[-0.5,null],"top_logprobs":[{"y":-2.0,"a":-0.5},null],"text_offset":[0,1]},"finish_reason":null}]}"#,
            "\n\n",
            r#"data: {"choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            "\n\n",
            "data: [DONE]\n\n",
        );
        let alternative = |token: &str, logprob| Alternative {
            token: token.into(),
            logprob,
            bytes: token.as_bytes().to_vec(),
        };
        let logprob = |token: &str, logprob, top| TokenLogprob {
            token: token.into(),
            logprob,
            bytes: token.as_bytes().to_vec(),
            top,
        };
        let logprobs = vec![
            logprob("a", -0.5, vec![alternative("a", -0.5), alternative("y", -2.0)]),
            logprob("b", f32::MIN, Vec::new()),
        ];
        let events = [
            Event::Delta(Delta { text: "ab".into(), logprobs, ..Delta::default() }),
            Event::Done(Done {
                reason: DoneReason::Length,
                prompt_tokens: 1,
                completion_tokens: 2,
                ..Done::default()
            }),
        ];
        every_cut(&Openai, &generation(json!({})), wire.as_bytes(), &events);
    }

    #[test]
    fn what_ends_without_a_finish_reason_is_cut_off_wherever_it_was_cut() {
        let finished = CHAT.find("\"tool_calls\"}]}").unwrap() + "\"tool_calls\"}]}".len();
        for length in 0..CHAT.len() {
            let read = decoded(&Openai, &generation(json!({})), [&CHAT.as_bytes()[..length]]);
            let is_whole =
                matches!(read.as_ref().ok().and_then(|events| events.last()), Some(Event::Done(_)));
            assert!(!is_whole || length >= finished, "{length} bytes");
        }
        assert!(read("data: [DONE]\n\n").is_err());
    }

    #[test]
    fn a_finish_reason_is_enough_and_pieces_are_counted_where_nobody_counts() {
        let wire = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}";
        let Some(Event::Done(done)) = read(wire).unwrap().pop() else { panic!() };
        assert_eq!((done.reason, done.completion_tokens), (DoneReason::Stop, 1));
    }

    #[test]
    fn an_error_in_the_stream_ends_it() {
        for wire in [
            "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n",
            "event: error\ndata: {\"error\":\"boom\"}\n\n",
            "error: {\"message\":\"boom\"}\n\n",
        ] {
            let Some(Event::Error(failure)) = read(wire).unwrap().pop() else { panic!("{wire}") };
            assert_eq!((failure.code, failure.message.as_str()), (FailureCode::Internal, "boom"));
        }
        let aborted = read("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n").unwrap();
        assert!(matches!(aborted.last(), Some(Event::Error(_))));
    }

    #[test]
    fn a_call_that_does_not_parse_is_text() {
        let wire = concat!(
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n",
        );
        let Event::Delta(delta) = &read(wire).unwrap()[0] else { panic!() };
        assert_eq!(delta.text, "f{\"x");
    }

    #[test]
    fn what_is_no_event_stream_is_garbled() {
        for wire in ["<html>\n", "{\"choices\":[]}\n", "data: {\n\n", "data: 3\n\n", "nonsense\n"] {
            assert!(read(wire).is_err(), "{wire}");
        }
    }
}
