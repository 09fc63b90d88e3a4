//! `POST /v1/chat/completions`: parsing.

use serde_json::{Map, Value};

use super::chat_answer::ChatAnswer;
use super::messages::{self, MessageBody};
use super::sampling::{Sampling, Task, top_logprobs};
use super::tool_choice;
use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::{Format, Input, Think};

object! {
    struct Body {
        "messages" => messages: Vec<MessageBody>,
        "tools" => tools: Vec<Map<String, Value>>,
        "tool_choice" => tool_choice: Value,
        "parallel_tool_calls" => parallel_tool_calls: bool,
        "max_completion_tokens" => max_completion_tokens: Integer,
        "response_format" => response_format: ResponseFormat,
        "logprobs" => logprobs: bool,
        "top_logprobs" => top_logprobs: Integer,
        "reasoning_effort" => reasoning_effort: String,
        "reasoning" => reasoning: Reasoning,
        ..sampling: Sampling,
    }
}

object! {
    struct ResponseFormat {
        "type" => kind: String,
        "json_schema" => json_schema: JsonSchema,
    }
}

object! {
    struct JsonSchema {
        "schema" => schema: Map<String, Value>,
    }
}

object! {
    struct Reasoning {
        "effort" => effort: String,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let bodies = body.messages.unwrap_or_default();
    if bodies.is_empty() {
        return Err(Error::invalid_param("messages", "[] is too short - 'messages'"));
    }
    let mut settings = body.sampling.check()?;
    if let Some(Integer(limit)) = body.max_completion_tokens {
        settings.options.num_predict = Some(limit);
    }
    let (messages, images) = messages::canonical(bodies)?;
    let top = body.top_logprobs.map(|top| top_logprobs("top_logprobs", top)).transpose()?;
    let effort = body.reasoning.and_then(|reasoning| reasoning.effort).or(body.reasoning_effort);
    let tools: Vec<_> = body.tools.unwrap_or_default().into_iter().map(Value::Object).collect();
    let (tool_choice, tools) = tool_choice::parse(body.tool_choice, tools)?;
    if settings.model.is_empty() {
        return Err(Error::invalid_param("model", "model is required"));
    }

    let mut needs = vec![settings.need(Capability::Completion, "chat")];
    if !tools.is_empty() {
        needs.push(settings.need(Capability::Tools, "tools"));
    }
    if images {
        needs.push(settings.need(Capability::Vision, "vision"));
    }
    let task = Task {
        input: Input::Chat { messages, tools },
        format: settings.format(body.response_format.map(format).transpose()?)?,
        logprobs: (body.logprobs == Some(true)).then_some(top.unwrap_or(0)),
        // Clients send an effort by default, and a model that cannot think must not fail for it. What the model can do is
        // not known here, so an effort leaves the model's own default, and only "none", which is always fine, is passed on.
        think: effort.filter(|effort| effort == "none").map(|_| Think::Switch(false)),
        tool_choice,
        parallel_tool_calls: body.parallel_tool_calls.unwrap_or(true),
    };
    let render = Box::new(ChatAnswer::new(&settings.model, settings.include_usage));
    Ok(settings.call(task, needs, render))
}

fn format(format: ResponseFormat) -> Result<Format, Error> {
    let wrong = |message| Error::invalid_param("response_format", message);
    match format.kind.as_deref().unwrap_or_default() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => format
            .json_schema
            .and_then(|wrapper| wrapper.schema)
            .map(|schema| Format::Schema(Value::Object(schema)))
            .ok_or_else(|| wrong("response_format.json_schema.schema is required".to_owned())),
        other => Err(wrong(format!(
            "invalid response_format type {other:?}: must be text, json_object or json_schema"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::testing::{
        call, chunks, done, event, generation, logprob, refused, stream, text, whole,
    };
    use crate::dialect::{Endpoint, Whole, Work};
    use crate::generation::{Delta, Event, Generation, ToolChoice};

    fn with(more: Value) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn chat(more: Value) -> Call {
        call(Endpoint::ChatCompletions, with(more))
    }

    fn parsed(more: Value) -> Generation {
        generation(&chat(more)).clone()
    }

    fn refusal(more: Value) -> String {
        let error = refused(Endpoint::ChatCompletions, with(more));
        assert_eq!(error.status(), 400);
        error.to_string()
    }

    #[test]
    fn what_is_not_known_is_kept_for_nodes_of_this_api_but_not_who_asks() {
        let more = json!({"min_tokens": 3, "chat_template_kwargs": {"a": 1}, "user": "u", "metadata": {}, "max_tokens": 2});
        let unknown = parsed(more).unknown.expect("some");
        assert_eq!(
            serde_json::to_value(unknown).unwrap(),
            json!({"openai": {"min_tokens": 3, "chat_template_kwargs": {"a": 1}}})
        );
        assert_eq!(parsed(json!({"user": "u", "temperature": 0.5})).unknown, None);
    }

    #[test]
    fn vllms_priority_is_taken_over_where_it_is_one() {
        assert_eq!(parsed(json!({"priority": -3})).priority, (-3).try_into().unwrap());
        assert!(parsed(json!({})).priority.is_normal());
        assert!(refusal(json!({"priority": 1000})).starts_with("priority must be"));
    }

    #[test]
    fn sampling_fields_become_options() {
        let options = parsed(json!({
            "max_tokens": 5, "temperature": 0, "top_p": 0.5, "frequency_penalty": 0.25, "presence_penalty": -1,
            "seed": 7, "stop": "x", "logit_bias": {}, "user": "u", "tool_choice": "auto"
        }))
        .options;
        let expected = json!({
            "num_predict": 5, "temperature": 0.0, "top_p": 0.5, "frequency_penalty": 0.25, "presence_penalty": -1.0,
            "seed": 7, "stop": ["x"]
        });
        assert_eq!(serde_json::to_value(options).unwrap(), expected);
        assert_eq!(parsed(json!({"stop": ["a", "", "b"]})).options.stop, Some(vec!["a".into(), "b".into()]));
        assert_eq!(refusal(json!({"stop": [1]})), "stop must be a string or a list of strings");
        assert_eq!(refusal(json!({"temperature": 1e300})), "temperature is out of range");
    }

    #[test]
    fn a_logit_bias_is_a_sorted_list_and_its_mistakes_are_named() {
        let bias = |map: Value| parsed(json!({"logit_bias": map})).options.logit_bias;
        assert_eq!(bias(json!({"10": -100, "9": 1.5, "09": 2})), Some(vec![(9, 2.0), (10, -100.0)]));
        assert_eq!(bias(json!({"10": 1, "9": 2})), bias(json!({"9": 2, "10": 1})));
        for (map, text) in [
            (json!({"x": 1}), "invalid key in 'logit_bias': \"x\" is not a token id"),
            (json!({"-1": 1}), "invalid key in 'logit_bias': \"-1\" is not a token id"),
            (json!({"1": 101}), "invalid value for 'logit_bias.1': must be a number between -100 and 100"),
            (json!({"1": "2"}), "invalid value for 'logit_bias.1': must be a number between -100 and 100"),
        ] {
            assert_eq!(refusal(json!({"logit_bias": map})), text);
        }
    }

    #[test]
    fn what_llama_server_and_vllm_have_beyond_openai_is_taken() {
        let sent = json!({
            "top_k": 3, "min_p": 0.25, "typical_p": 0.5, "repeat_last_n": -1, "top_n_sigma": 1.5, "dry_multiplier": 0.75,
            "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9, "dry_sequence_breakers": ["a"],
            "xtc_probability": 0.5, "xtc_threshold": 0.125
        });
        let mut expected = sent.clone();
        expected.as_object_mut().unwrap().extend([
            ("dry_base".to_owned(), json!(2.0)),
            ("repeat_penalty".to_owned(), json!(1.5)),
            ("temperature".to_owned(), json!(1.0)),
            ("top_p".to_owned(), json!(1.0)),
        ]);
        let mut sent = sent;
        sent["repetition_penalty"] = json!(1.5);
        assert_eq!(serde_json::to_value(parsed(sent).options).unwrap(), expected);
        assert_eq!(refusal(json!({"xtc_threshold": 1e300})), "xtc_threshold is out of range");
        assert!(refusal(json!({"dry_sequence_breakers": "x"})).contains("dry_sequence_breakers"));
    }

    #[test]
    fn the_newer_name_of_the_token_limit_wins() {
        let limits = json!({"max_tokens": 5, "max_completion_tokens": 6});
        assert_eq!(parsed(limits).options.num_predict, Some(6));
    }

    #[test]
    fn each_choice_gets_its_own_seed() {
        let seeds = |more: Value| match chat(more).work {
            Work::Generate(generations) => {
                generations.iter().map(|each| each.options.seed).collect::<Vec<_>>()
            }
            _ => panic!(),
        };
        assert_eq!(seeds(json!({"n": 3, "seed": 5})), [Some(5), Some(6), Some(7)]);
        assert_eq!(seeds(json!({"n": 2})), [None, None]);
        assert_eq!(seeds(json!({"n": 2, "seed": -1})), [None, None]);
        for n in [0, -1, 17] {
            assert_eq!(refusal(json!({"n": n})), "n must be between 1 and 16");
        }
    }

    #[test]
    fn response_formats_are_text_json_or_a_schema() {
        let format = |value: Value| parsed(json!({"response_format": value})).format;
        assert_eq!(format(json!({"type": "text"})), Format::Text);
        assert_eq!(format(json!({"type": "json_object"})), Format::Json);
        let schema = json!({"type": "object"});
        let wrapped =
            json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
        assert_eq!(format(wrapped), Format::Schema(schema));
        assert_eq!(
            refusal(json!({"response_format": {"type": "json_schema"}})),
            "response_format.json_schema.schema is required"
        );
        assert_eq!(
            refusal(json!({"response_format": {"type": "xml"}})),
            "invalid response_format type \"xml\": must be text, json_object or json_schema"
        );
    }

    #[test]
    fn a_grammar_is_a_format_of_its_own() {
        for name in ["grammar", "guided_grammar"] {
            let grammar = Format::Grammar("root ::= \"a\"".into());
            assert_eq!(parsed(json!({name: "root ::= \"a\""})).format, grammar);
        }
        assert_eq!(parsed(json!({"grammar": ""})).format, Format::Text);
        let text = json!({"grammar": "root ::= \"a\"", "response_format": {"type": "text"}});
        assert!(matches!(parsed(text).format, Format::Grammar(_)));
        let both = json!({"grammar": "root ::= \"a\"", "response_format": {"type": "json_object"}});
        assert_eq!(refusal(both), "grammar and response_format cannot be used together");
    }

    #[test]
    fn logprobs_are_a_switch_and_a_number() {
        assert_eq!(parsed(json!({"logprobs": true})).logprobs, Some(0));
        assert_eq!(parsed(json!({"logprobs": true, "top_logprobs": 5})).logprobs, Some(5));
        assert_eq!(parsed(json!({"logprobs": false, "top_logprobs": 5})).logprobs, None);
        assert_eq!(refusal(json!({"top_logprobs": 21})), "top_logprobs must be between 0 and 20");
    }

    #[test]
    fn tools_and_the_choice_among_them_become_canonical() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let call =
            |choice: &str| chat(json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false}));
        let required = call("required");
        let generation = generation(&required);
        assert_eq!(generation.tool_choice, ToolChoice::Required);
        assert!(!generation.parallel_tool_calls && parsed(json!({})).parallel_tool_calls);
        assert!(required.needs.iter().any(|(capability, _)| *capability == Capability::Tools));
        assert_eq!(call("none").needs.len(), 1, "no tools, nothing needed");
    }

    #[test]
    fn an_effort_never_fails_a_model_that_cannot_think() {
        for effort in ["minimal", "low", "medium", "high", "xhigh"] {
            let call = chat(json!({"reasoning_effort": effort}));
            assert_eq!(generation(&call).think, None);
            assert_eq!(call.needs.len(), 1);
        }
        assert_eq!(parsed(json!({"reasoning_effort": "none"})).think, Some(Think::Switch(false)));
        assert_eq!(parsed(json!({"reasoning": {"effort": "none"}})).think, Some(Think::Switch(false)));
    }

    #[test]
    fn no_messages_and_no_model_are_errors() {
        let error = refused(Endpoint::ChatCompletions, json!({"model": "m", "messages": []}));
        assert_eq!(error.to_string(), "[] is too short - 'messages'");
        assert_eq!(refusal(json!({"model": ""})), "model is required");
    }

    #[test]
    fn a_stream_opens_each_choice_with_the_role_and_keeps_id_and_time() {
        let mut call = chat(json!({"n": 2, "stream": true}));
        let mut stream = String::new();
        for (choice, what) in [
            (0, text("a")),
            (1, text("b")),
            (0, text("c")),
            (0, text("")),
            (1, Event::Done(done())),
            (0, Event::Done(done())),
        ] {
            stream.push_str(&event(&mut *call.render, choice, &what));
        }
        stream.push_str("data: [DONE]\n\n");
        let chunks = chunks(&stream);
        let first = |key: &str| chunks[0][key].clone();
        assert!(first("id").as_str().unwrap().starts_with("chatcmpl-"));
        assert_eq!(first("object"), "chat.completion.chunk");
        assert!(
            chunks.iter().all(|chunk| chunk["id"] == first("id") && chunk["created"] == first("created"))
        );
        let choices: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0].clone()).collect();
        assert_eq!(
            choices,
            [
                json!({"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": null}),
                json!({"index": 1, "delta": {"role": "assistant", "content": "b"}, "finish_reason": null}),
                json!({"index": 0, "delta": {"content": "c"}, "finish_reason": null}),
                json!({"index": 1, "delta": {}, "finish_reason": "stop"}),
                json!({"index": 0, "delta": {}, "finish_reason": "stop"}),
            ]
        );
    }

    #[test]
    fn an_answer_without_a_word_still_opens_with_the_role() {
        let mut call = chat(json!({"stream": true}));
        let chunks = chunks(&stream(&mut *call.render, &[Event::Done(done())]));
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(chunks[1]["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn logprobs_and_reasoning_are_in_the_delta() {
        let mut call = chat(json!({"stream": true, "logprobs": true}));
        let mut entry = logprob("a");
        entry.top.clear();
        let delta = Delta { thinking: "hm".into(), logprobs: vec![entry], ..Delta::default() };
        let chunks = chunks(&stream(&mut *call.render, &[Event::Delta(delta)]));
        let choice = &chunks[0]["choices"][0];
        assert_eq!(
            choice["delta"],
            json!({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm"})
        );
        assert_eq!(
            choice["logprobs"],
            json!({"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]})
        );
    }

    #[test]
    fn a_whole_answer_has_every_choice_and_counts_the_prompt_once() {
        let mut call = chat(json!({"n": 2}));
        let made = json!({"function": {"name": "f", "arguments": {}}});
        let mut second = done();
        second.cached_tokens = 7;
        second.reason = crate::generation::DoneReason::Length;
        let answer = whole(
            &mut *call.render,
            &[
                Whole { text: "a".into(), tool_calls: vec![made], done: done(), ..Whole::default() },
                Whole { text: "b".into(), thinking: "hm".into(), done: second, ..Whole::default() },
            ],
        );
        assert_eq!(
            answer["choices"],
            json!([
                {"index": 0, "message": {"role": "assistant", "content": "a", "tool_calls": [
                    {"id": "call_0", "index": 0, "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                    "finish_reason": "tool_calls"},
                {"index": 1, "message": {"role": "assistant", "content": "b", "reasoning": "hm", "reasoning_content": "hm"},
                    "finish_reason": "length"}
            ])
        );
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 3}})
        );
        assert_eq!((&answer["object"], &answer["created"]), (&json!("chat.completion"), &json!(1735787045)));
    }
}
