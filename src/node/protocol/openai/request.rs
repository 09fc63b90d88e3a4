//! Canonical requests for text as OpenAI's API takes them, with the fields that llama-server, vLLM and SGLang have beside it; those
//! are sent only if the client said something, for OpenAI itself refuses what it does not know.

use serde_json::{Map, Value, json};

use super::content::content;
use crate::generation::{Format, Generation, Input, Message, Options, Role, Think, ToolChoice, put_under};
use crate::node::protocol::Request;

/// `/v1/chat/completions` for what gets the model's template, `/v1/completions` for the rest; always a stream, with usage.
pub(super) fn generate(generation: &Generation, model: &str, begun: Option<&str>) -> Request {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    options(&generation.options, &mut body);
    format(&generation.format, &mut body);
    think(generation.think.as_ref(), &mut body);
    let is_chat = match &generation.input {
        Input::Chat { messages: turns, tools } => {
            body.insert("messages".into(), messages(turns).into());
            if !tools.is_empty() {
                body.insert("tools".into(), tools.clone().into());
                tool_choice(generation, &mut body);
            }
            true
        }
        Input::Prompt { prompt, system, images, .. } => {
            let system = system.as_ref().map(|system| json!({"role": "system", "content": system}));
            let user = json!({"role": "user", "content": content(prompt, images)});
            body.insert("messages".into(), system.into_iter().chain([user]).collect());
            true
        }
        Input::Raw { prompt, .. } => {
            body.insert("prompt".into(), (prompt.clone() + begun.unwrap_or_default()).into());
            false
        }
        Input::Infill { prefix, suffix, .. } => {
            body.insert("prompt".into(), prefix.as_str().into());
            body.insert("suffix".into(), suffix.as_str().into());
            false
        }
    };
    logprobs(generation.logprobs, is_chat, &mut body);
    if is_chat {
        go_on(begun, &mut body);
    }
    if let Some(unknown) = &generation.unknown {
        put_under(&mut body, &unknown.openai);
    }
    Request::post(if is_chat { "/v1/chat/completions" } else { "/v1/completions" }, &body)
}

/// Has the model go on with an assistant's turn: llama-server does so with any that has the last word, vLLM and SGLang when told.
fn go_on(begun: Option<&str>, body: &mut Map<String, Value>) {
    let Some(text) = begun else { return };
    if let Some(Value::Array(messages)) = body.get_mut("messages") {
        messages.push(json!({"role": "assistant", "content": text}));
    }
    body.insert("add_generation_prompt".into(), false.into());
    body.insert("continue_final_message".into(), true.into());
}

fn options(options: &Options, body: &mut Map<String, Value>) {
    // Canonical options have the names that llama-server has for them, with these exceptions.
    let Value::Object(mut fields) = json!(options) else { return };
    if let Some(limit) = fields.remove("num_predict").filter(|limit| limit.as_i64() >= Some(0)) {
        body.insert("max_tokens".into(), limit);
    }
    if let Some(Value::Array(biases)) = fields.remove("logit_bias") {
        let bias = |pair: Value| Some((pair.get(0)?.to_string(), pair.get(1)?.clone()));
        body.insert("logit_bias".into(), Value::Object(biases.into_iter().filter_map(bias).collect()));
    }
    if let Some(penalty) = fields.get("repeat_penalty").cloned() {
        // vLLM's and SGLang's name.
        body.insert("repetition_penalty".into(), penalty);
    }
    // Those of a server's context are its operator's.
    fields.retain(|name, _| name != "num_ctx" && name != "num_keep");
    body.append(&mut fields);
}

fn format(format: &Format, body: &mut Map<String, Value>) {
    match format {
        Format::Text => {}
        Format::Json => {
            body.insert("response_format".into(), json!({"type": "json_object"}));
        }
        Format::Schema(schema) => {
            let schema = json!({"name": "answer", "strict": true, "schema": schema});
            body.insert("response_format".into(), json!({"type": "json_schema", "json_schema": schema}));
        }
        Format::Grammar(grammar) => {
            body.insert("grammar".into(), grammar.as_str().into());
            // vLLM's older name, then its newer one.
            body.insert("guided_grammar".into(), grammar.as_str().into());
            body.insert("structured_outputs".into(), json!({"grammar": grammar}));
        }
    }
}

/// A level is OpenAI's own; on and off are what the templates of most models that think call it.
fn think(think: Option<&Think>, body: &mut Map<String, Value>) {
    match think {
        None => {}
        Some(Think::Switch(on)) => {
            body.insert("chat_template_kwargs".into(), json!({"enable_thinking": on}));
        }
        Some(Think::Level(level)) => {
            let level = if level == "max" { "high" } else { level };
            body.insert("reasoning_effort".into(), level.into());
        }
    }
}

fn tool_choice(generation: &Generation, body: &mut Map<String, Value>) {
    let choice = match &generation.tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Function(name) => Some(json!({"type": "function", "function": {"name": name}})),
    };
    if let Some(choice) = choice {
        body.insert("tool_choice".into(), choice);
    }
    if !generation.parallel_tool_calls {
        body.insert("parallel_tool_calls".into(), false.into());
    }
}

fn logprobs(top: Option<u8>, is_chat: bool, body: &mut Map<String, Value>) {
    match top {
        None => {}
        Some(top) if is_chat => {
            body.insert("logprobs".into(), true.into());
            body.insert("top_logprobs".into(), top.into());
        }
        Some(top) => {
            body.insert("logprobs".into(), top.into());
        }
    }
}

/// Messages with the ids that this API insists on: where a client sent none, a result gets that of the first open call of its function.
fn messages(turns: &[Message]) -> Vec<Value> {
    let mut open: Vec<(String, String)> = Vec::new();
    let mut made = 0;
    let mut messages = Vec::with_capacity(turns.len());
    for turn in turns {
        let mut body = Map::new();
        body.insert("role".into(), turn.role.as_str().into());
        body.insert("content".into(), content(&turn.content, &turn.images));
        if let Some(thinking) = &turn.thinking {
            body.insert("reasoning_content".into(), thinking.as_str().into());
        }
        if !turn.tool_calls.is_empty() {
            let calls = turn.tool_calls.iter().map(|call| {
                let (id, name, call) = self::call(call, &mut made);
                open.push((id, name));
                call
            });
            body.insert("tool_calls".into(), calls.collect());
        }
        if turn.role == Role::Tool {
            body.insert("tool_call_id".into(), answered(turn, &mut open).into());
            if let Some(name) = &turn.tool_name {
                body.insert("name".into(), name.as_str().into());
            }
        }
        messages.push(body.into());
    }
    messages
}

/// A call's id, its function's name, and the call with arguments as text. `made` counts the ids that were made up.
fn call(call: &Value, made: &mut usize) -> (String, String, Value) {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name")).and_then(Value::as_str).unwrap_or_default();
    let arguments = function.and_then(|function| function.get("arguments"));
    let arguments = arguments.map_or_else(|| "{}".to_owned(), Value::to_string);
    let id = call.get("id").and_then(Value::as_str).map_or_else(
        || {
            *made += 1;
            format!("call_{made}")
        },
        str::to_owned,
    );
    let body = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    (id, name.to_owned(), body)
}

/// The id of the call that a result answers, which is open no more.
fn answered(turn: &Message, open: &mut Vec<(String, String)>) -> String {
    let is_it = |(id, name): &(String, String)| match (&turn.tool_call_id, &turn.tool_name) {
        (Some(wanted), _) => id == wanted,
        (None, Some(wanted)) => name == wanted,
        (None, None) => true,
    };
    let found = open.iter().position(is_it).map(|at| open.remove(at).0);
    turn.tool_call_id.clone().or(found).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Openai;
    use super::*;
    use crate::node::protocol::testing::{body, generation, goes_on};

    fn encoded(more: Value) -> (String, Value) {
        let (path, mut body) = body(&generate(&generation(more), "theirs", None));
        let fields = body.as_object_mut().unwrap();
        assert_eq!(fields.remove("model"), Some("theirs".into()));
        assert_eq!(fields.remove("stream"), Some(true.into()));
        assert_eq!(fields.remove("stream_options"), Some(json!({"include_usage": true})));
        (path, body)
    }

    #[test]
    fn prompts_go_where_they_get_the_template_or_none() {
        let prompt = json!({"kind": "prompt", "prompt": "p", "system": "s"});
        let (path, body) = encoded(json!({"input": prompt}));
        let messages = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]);
        assert_eq!((path.as_str(), body), ("/v1/chat/completions", json!({"messages": messages})));
        let raw = encoded(json!({"logprobs": 2}));
        assert_eq!((raw.0.as_str(), raw.1), ("/v1/completions", json!({"prompt": "p", "logprobs": 2})));
        let infill = encoded(json!({"input": {"kind": "infill", "prefix": "a", "suffix": "b"}})).1;
        assert_eq!(infill, json!({"prompt": "a", "suffix": "b"}));
    }

    #[test]
    fn what_only_this_api_may_know_travels_along_under_what_is_known() {
        let unknown = json!({"openai": {"min_tokens": 3, "temperature": 9}, "ollama": {"new": 1}});
        let body = encoded(json!({"unknown": unknown, "options": {"temperature": 0.5}})).1;
        assert_eq!(body, json!({"temperature": 0.5, "prompt": "p", "min_tokens": 3}));
    }

    #[test]
    fn calls_and_results_get_the_ids_that_they_lack() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let mut with_id = call("h");
        with_id["id"] = "own".into();
        let messages = json!([
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call("f"), call("g"), with_id]},
            {"role": "tool", "content": "r", "tool_name": "g"},
            {"role": "tool", "content": "r"},
            {"role": "tool", "content": "r", "tool_call_id": "own", "tool_name": "h"}
        ]);
        let body = encoded(json!({"input": {"kind": "chat", "messages": messages}})).1;
        let first = &body["messages"][0];
        assert_eq!(first["reasoning_content"], "hm");
        assert_eq!(
            first["tool_calls"][0],
            json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}})
        );
        let ids: Vec<_> = (1..4).map(|at| body["messages"][at]["tool_call_id"].clone()).collect();
        assert_eq!(ids, ["call_2", "call_1", "own"]);
    }

    #[test]
    fn options_have_this_apis_names() {
        let all = json!({
            "num_predict": 5, "temperature": 0.5, "top_k": 3, "repeat_penalty": 1.5, "seed": 7, "stop": ["x"],
            "logit_bias": [[9, 1.5]], "num_ctx": 8, "num_keep": 2
        });
        let mut body = encoded(json!({"options": all})).1;
        body.as_object_mut().unwrap().remove("prompt");
        assert_eq!(
            body,
            json!({
                "max_tokens": 5, "temperature": 0.5, "top_k": 3, "repeat_penalty": 1.5, "repetition_penalty": 1.5,
                "seed": 7, "stop": ["x"], "logit_bias": {"9": 1.5}
            })
        );
        assert_eq!(encoded(json!({"options": {"num_predict": -1}})).1, json!({"prompt": "p"}));
    }

    #[test]
    fn tools_formats_thinking_and_logprobs_are_said_this_apis_way() {
        let chat = json!({"kind": "chat", "messages": [], "tools": [{"type": "function", "function": {"name": "f"}}]});
        let body = encoded(json!({
            "input": chat, "tool_choice": {"kind": "function", "name": "f"}, "parallel_tool_calls": false,
            "format": {"kind": "schema", "schema": {"type": "object"}}, "think": "max", "logprobs": 0
        }))
        .1;
        assert_eq!(body["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
        assert_eq!(body["parallel_tool_calls"], false);
        assert_eq!(body["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
        assert_eq!(body["reasoning_effort"], "high");
        assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(0)));
        let off = encoded(json!({"think": false})).1;
        assert_eq!(off["chat_template_kwargs"], json!({"enable_thinking": false}));
    }

    #[test]
    fn an_answer_goes_on_as_the_assistants_turn_or_behind_the_raw_prompt() {
        let chat = goes_on(&Openai);
        assert_eq!(
            (&chat["continue_final_message"], &chat["add_generation_prompt"]),
            (&json!(true), &json!(false))
        );
    }
}
