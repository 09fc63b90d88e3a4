//! `POST /api/chat`: parsing.

use serde_json::{Map, Value};

use super::answer::Shape;
use super::request::Shared;
use crate::dialect::image::{self, Image};
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Capability, tool_call};
use crate::error::Error;
use crate::generation::{Input, Message, Role};

object! {
    struct Body {
        "messages" => messages: Vec<MessageBody>,
        "tools" => tools: Vec<Map<String, Value>>,
        ..shared: Shared,
    }
}

object! {
    struct MessageBody {
        "role" => role: String,
        "content" => content: String,
        "thinking" => thinking: String,
        "images" => images: Vec<Image>,
        "tool_calls" => tool_calls: Vec<ToolCallBody>,
        "tool_name" => tool_name: String,
        "tool_call_id" => tool_call_id: String,
    }
}

object! {
    struct ToolCallBody {
        "id" => id: String,
        "function" => function: FunctionBody,
    }
}

object! {
    struct FunctionBody {
        "name" => name: String,
        "arguments" => arguments: Map<String, Value>,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let settings = body.shared.check()?;
    if settings.model.is_empty() {
        return Err(Error::invalid_param("model", "model is required"));
    }
    let messages = body.messages.unwrap_or_default();
    let tools: Vec<_> = body.tools.unwrap_or_default().into_iter().map(Value::Object).collect();

    let mut needs = Vec::new();
    if settings.thinks {
        needs.push(settings.need(Capability::Thinking, "thinking"));
    }
    needs.push(settings.need(Capability::Completion, "chat"));
    if !tools.is_empty() {
        needs.push(settings.need(Capability::Tools, "tools"));
    }
    if messages.iter().any(|message| message.images.as_ref().is_some_and(|images| !images.is_empty())) {
        needs.push(settings.need(Capability::Vision, "vision"));
    }

    let messages = messages.into_iter().map(MessageBody::canonical).collect::<Result<Vec<_>, _>>()?;
    let input = (!messages.is_empty()).then_some(Input::Chat { messages, tools });
    Ok(settings.call(input, needs, None, Shape::Chat))
}

impl MessageBody {
    fn canonical(self) -> Result<Message, Error> {
        Ok(Message {
            role: role(self.role.as_deref().unwrap_or_default())?,
            content: self.content.unwrap_or_default(),
            images: image::in_front(self.images),
            thinking: self.thinking.filter(|text| !text.is_empty()),
            tool_calls: self
                .tool_calls
                .unwrap_or_default()
                .into_iter()
                .map(ToolCallBody::canonical)
                .collect(),
            tool_name: self.tool_name.filter(|text| !text.is_empty()),
            tool_call_id: self.tool_call_id.filter(|text| !text.is_empty()),
        })
    }
}

impl ToolCallBody {
    fn canonical(self) -> Value {
        let function = self.function.unwrap_or_default();
        tool_call::canonical(
            self.id,
            function.name.unwrap_or_default(),
            function.arguments.unwrap_or_default(),
        )
    }
}

/// The role of a name in any case. Ollama passes other roles on to the template, which mostly drops such messages without
/// a word; here they are an error.
fn role(name: &str) -> Result<Role, Error> {
    [Role::System, Role::User, Role::Assistant, Role::Tool]
        .into_iter()
        .find(|role| role.as_str().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            let message = format!("invalid role {name:?}: must be system, user, assistant or tool");
            Error::invalid_param("messages", message)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::testing::{
        call, chunks, done, event, generation, lines, needs, refused, stream, text,
    };
    use crate::dialect::{Endpoint, Work};
    use crate::generation::Event;

    #[test]
    fn messages_become_canonical() {
        let call = call(
            Endpoint::Chat,
            json!({"model": "m", "messages": [
                {"role": "SYSTEM", "content": "s"},
                {"role": "user", "content": null},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                    {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"z": 1, "a": 2}}},
                    {"function": {"name": "g"}}
                ]},
                {"role": "tool", "tool_name": "f", "tool_call_id": "c1", "content": "r"}
            ]}),
        );
        let Input::Chat { messages, tools } = &generation(&call).input else { panic!() };
        assert!(tools.is_empty());
        assert_eq!(messages[0], Message { role: Role::System, content: "s".into(), ..Message::default() });
        assert_eq!(messages[1], Message::default());
        assert_eq!(messages[2].thinking.as_deref(), Some("hm"));
        assert_eq!(
            serde_json::to_string(&messages[2].tool_calls).unwrap(),
            r#"[{"id":"c1","function":{"name":"f","arguments":{"z":1,"a":2}}},{"function":{"name":"g","arguments":{}}}]"#
        );
        assert_eq!(
            (messages[3].tool_name.as_deref(), messages[3].tool_call_id.as_deref()),
            (Some("f"), Some("c1"))
        );
    }

    #[test]
    fn tools_keep_the_order_of_their_properties() {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"zebra": {"type": ["string", "null"]}, "apple": {"anyOf": []}}}}});
        let body = json!({"model": "m", "tools": [tool], "messages": [{"role": "user", "content": "x"}]});
        let call = call(Endpoint::Chat, body);
        let Input::Chat { tools, .. } = &generation(&call).input else { panic!() };
        assert_eq!(tools[0].to_string(), tool.to_string());
        assert!(needs(&call).contains(&(
            Capability::Tools,
            "registry.ollama.ai/library/m:latest does not support tools".into()
        )));
    }

    #[test]
    fn an_empty_list_of_tools_needs_nothing() {
        let body = json!({"model": "m", "tools": [], "messages": [{"role": "user", "content": "x"}]});
        assert_eq!(
            needs(&call(Endpoint::Chat, body)),
            [(Capability::Completion, "\"m\" does not support chat".into())]
        );
    }

    #[test]
    fn images_need_a_model_that_sees() {
        let message = json!({"role": "user", "content": "x", "images": ["aGk="]});
        let call = call(Endpoint::Chat, json!({"model": "m", "messages": [message]}));
        assert!(needs(&call).contains(&(
            Capability::Vision,
            "registry.ollama.ai/library/m:latest does not support vision".into()
        )));
    }

    #[test]
    fn bad_messages_say_what_is_wrong() {
        for (messages, text) in [
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "json: cannot unmarshal messages[0].content: invalid type: sequence, expected a string",
            ),
            (
                json!([{"role": "robot", "content": "x"}]),
                "invalid role \"robot\": must be system, user, assistant or tool",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
                "json: cannot unmarshal messages[0].tool_calls[0].function.arguments: invalid type: string \"{}\", expected a map",
            ),
        ] {
            let error = refused(Endpoint::Chat, json!({"model": "m", "messages": messages}));
            assert_eq!((error.to_string().as_str(), error.status().as_u16()), (text, 400));
        }
        let error = refused(Endpoint::Chat, json!({"messages": []}));
        assert_eq!((error.to_string().as_str(), error.status().as_u16()), ("model is required", 400));
    }

    #[test]
    fn no_messages_load_the_model() {
        for body in [json!({"model": "m"}), json!({"model": "m", "messages": []})] {
            let mut call = call(Endpoint::Chat, body);
            assert!(matches!(call.work, Work::Load));
            let answer = call.render.loaded(true, &crate::dialect::testing::spent());
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["message"], json!({"role": "assistant", "content": ""}));
        }
    }

    #[test]
    fn tool_calls_are_numbered_through_a_stream() {
        let user = json!([{"role": "user", "content": "x"}]);
        let mut call = call(Endpoint::Chat, json!({"model": "m", "messages": user}));
        let made =
            Event::ToolCall { call: json!({"function": {"name": "f", "arguments": {}}}), tokens: Vec::new() };
        let lines = lines(&stream(&mut *call.render, &[made.clone(), made, Event::Done(done())]));
        let index = |line: &Value| line.pointer("/message/tool_calls/0/function/index").cloned();
        assert_eq!((index(&lines[0]), index(&lines[1])), (Some(json!(0)), Some(json!(1))));
        assert_eq!(lines[2]["done_reason"], "stop");
    }

    #[test]
    fn the_same_answer_takes_the_form_of_each_dialect() {
        let user = json!([{"role": "user", "content": "x"}]);
        let body = json!({"model": "m", "messages": user});
        let native = event(&mut *call(Endpoint::Chat, body.clone()).render, 0, &text("hi"));
        assert_eq!(lines(&native)[0]["message"], json!({"role": "assistant", "content": "hi"}));
        let mut openai = call(Endpoint::ChatCompletions, body);
        let chunks = chunks(&stream(&mut *openai.render, &[text("hi"), Event::Done(done())]));
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "hi"}));
    }
}
