//! OpenAI's chat messages and their canonical form.

use serde_json::{Map, Value};

use crate::dialect::image::Image;
use crate::dialect::json::object;
use crate::dialect::tool_call;
use crate::error::Error;
use crate::generation::{self, Message, Role};

object! {
    /// One message, as it comes.
    pub(in crate::dialect) struct MessageBody {
        "role" => role: String,
        "content" => content: Value,
        "reasoning" => reasoning: String,
        "reasoning_content" => reasoning_content: String,
        "name" => name: String,
        "tool_calls" => tool_calls: Vec<ToolCallBody>,
        "tool_call_id" => tool_call_id: String,
    }
}

object! {
    /// A call the assistant made, arguments as JSON text.
    pub(in crate::dialect) struct ToolCallBody {
        "id" => id: String,
        "function" => function: FunctionBody,
    }
}

object! {
    pub(in crate::dialect) struct FunctionBody {
        "name" => name: String,
        "arguments" => arguments: String,
    }
}

/// The canonical messages, and whether there are images among them.
pub(in crate::dialect) fn canonical(bodies: Vec<MessageBody>) -> Result<(Vec<Message>, bool), Error> {
    let mut has_images = false;
    let mut messages: Vec<Message> = Vec::with_capacity(bodies.len());
    for body in bodies {
        let role = role(body.role.as_deref().unwrap_or_default())?;
        let (content, images) = match body.content {
            Some(Value::String(text)) => (text, Vec::new()),
            Some(Value::Array(parts)) => join(parts)?,
            None if body.tool_calls.is_some() => (String::new(), Vec::new()),
            None => return Err(invalid("invalid message content type: null")),
            Some(_) => {
                return Err(invalid("invalid message content type: must be a string or a list of parts"));
            }
        };
        let tool_call_id = body.tool_call_id.filter(|id| !id.is_empty());
        let tool_name = match role {
            Role::Tool => body
                .name
                .filter(|name| !name.is_empty())
                .or_else(|| called(&messages, tool_call_id.as_deref()?)),
            _ => None,
        };
        let tool_calls = body.tool_calls.unwrap_or_default().into_iter().map(ToolCallBody::canonical);
        has_images |= !images.is_empty();
        messages.push(Message {
            role,
            content,
            images,
            thinking: body.reasoning.or(body.reasoning_content).filter(|text| !text.is_empty()),
            tool_calls: tool_calls.collect::<Result<_, _>>()?,
            tool_name,
            tool_call_id,
        });
    }
    Ok((messages, has_images))
}

impl ToolCallBody {
    fn canonical(self) -> Result<Value, Error> {
        let function = self.function.unwrap_or_default();
        let arguments: Option<Map<String, Value>> = match function.arguments.as_deref().map(str::trim) {
            // What some clients send for a function without parameters.
            None | Some("") => None,
            Some(text) => serde_json::from_str(text).map_err(|_| invalid("invalid tool call arguments"))?,
        };
        Ok(tool_call::canonical(self.id, function.name.unwrap_or_default(), arguments.unwrap_or_default()))
    }
}

/// The function that call `id` called; the latest, where ids repeat.
fn called(messages: &[Message], id: &str) -> Option<String> {
    let mut calls = messages.iter().rev().flat_map(|message| &message.tool_calls);
    let call = calls.find(|call| call.get("id").and_then(Value::as_str) == Some(id))?;
    Some(call.get("function")?.get("name")?.as_str()?.to_owned())
}

/// The text of a list of parts. Ollama makes each part a message and then joins messages of one role with a blank line;
/// joining them here is the same, and templates that insist on alternating roles do not trip over it. An image stands where its
/// part does.
fn join(parts: Vec<Value>) -> Result<(String, Vec<generation::Image>), Error> {
    let (mut joined, mut images, mut texts) = (String::new(), Vec::new(), 0);
    for mut part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text") => match part.get_mut("text").map(Value::take) {
                Some(Value::String(text)) => {
                    if texts > 0 {
                        joined += "\n\n";
                    }
                    texts += 1;
                    joined += &text;
                }
                _ => return Err(invalid("invalid message format")),
            },
            Some("image_url") => images.push(image(&part)?.canonical(joined.len())),
            Some("input_audio") => return Err(invalid("audio input is not supported")),
            _ => return Err(invalid("invalid message format")),
        }
    }
    Ok((joined, images))
}

/// `image_url` is a data URI, or an object with one in `url`.
fn image(part: &Value) -> Result<Image, Error> {
    let image = part.get("image_url").ok_or_else(|| invalid("invalid message format"))?;
    let url = image.get("url").unwrap_or(image).as_str().ok_or_else(|| invalid("invalid message format"))?;
    if url.starts_with("http://") || url.starts_with("https://") {
        return Err(invalid(
            "image URLs are not currently supported, please use base64 encoded data instead",
        ));
    }
    ["data:;base64,", "data:image/jpeg;base64,", "data:image/jpg;base64,", "data:image/png;base64,"]
        .into_iter()
        .chain(["data:image/webp;base64,"])
        .find_map(|prefix| url.strip_prefix(prefix))
        .and_then(|base64| Image::check(base64).ok())
        .ok_or_else(|| invalid("invalid image input"))
}

/// The role of a name in any case; `developer` is what OpenAI now calls `system`.
fn role(name: &str) -> Result<Role, Error> {
    let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
    match name {
        name if name.eq_ignore_ascii_case("developer") => Ok(Role::System),
        name => roles.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(name)).ok_or_else(|| {
            invalid(format!("invalid role {name:?}: must be system, developer, user, assistant or tool"))
        }),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid_param("messages", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::testing::{call, generation, needs, refused};
    use crate::dialect::{Capability, Endpoint};
    use crate::generation::Input;

    fn messages(messages: Value) -> Vec<Message> {
        let call = call(Endpoint::ChatCompletions, json!({"model": "m", "messages": messages}));
        match &generation(&call).input {
            Input::Chat { messages, .. } => messages.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(message: Value) -> String {
        let error = refused(Endpoint::ChatCompletions, json!({"model": "m", "messages": [message]}));
        assert_eq!((error.status().as_u16(), error.param()), (400, Some("messages")));
        error.to_string()
    }

    #[test]
    fn developer_is_system() {
        assert_eq!(messages(json!([{"role": "developer", "content": "x"}]))[0].role, Role::System);
    }

    #[test]
    fn text_parts_are_joined_with_a_blank_line() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(messages(json!([{"role": "user", "content": parts}]))[0].content, "a\n\nb");
    }

    #[test]
    fn an_image_stands_where_its_part_does() {
        let image =
            |data: &str| json!({"type": "image_url", "image_url": {"url": format!("data:;base64,{data}")}});
        let text = |text: &str| json!({"type": "text", "text": text});
        let parts =
            json!([image("aaaa"), text("one"), image("bbbb"), image("cccc"), text("two"), image("dddd")]);
        let message = messages(json!([{"role": "user", "content": parts}])).remove(0);
        assert_eq!(message.content, "one\n\ntwo");
        let places: Vec<_> = message.images.iter().map(|image| (image.at, &*image.data)).collect();
        assert_eq!(places, [(0, "aaaa"), (3, "bbbb"), (3, "cccc"), (8, "dddd")]);
    }

    #[test]
    fn a_tool_result_finds_the_name_of_its_function() {
        let call =
            json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}});
        let messages = messages(json!([
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
            {"role": "tool", "tool_call_id": "c1", "name": "g", "content": "r"},
            {"role": "tool", "tool_call_id": "unknown", "content": "r"}
        ]));
        assert_eq!(
            messages[0].tool_calls,
            [json!({"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}})]
        );
        let names: Vec<_> = messages[1..].iter().map(|message| message.tool_name.as_deref()).collect();
        assert_eq!(names, [Some("f"), Some("g"), None]);
    }

    #[test]
    fn empty_tool_call_arguments_are_an_empty_object() {
        let calls = json!([{"id": "c", "function": {"name": "f", "arguments": ""}}]);
        let messages = messages(json!([{"role": "assistant", "tool_calls": calls}]));
        assert_eq!(messages[0].tool_calls[0]["function"]["arguments"], json!({}));
    }

    #[test]
    fn bad_messages_say_what_is_wrong() {
        let calls = |arguments: &str| {
            let call = json!({"function": {"name": "f", "arguments": arguments}});
            json!({"role": "assistant", "tool_calls": [call]})
        };
        let part = |part: Value| json!({"role": "user", "content": [part]});
        for (message, text) in [
            (json!({"role": "user"}), "invalid message content type: null"),
            (
                json!({"role": "user", "content": 1}),
                "invalid message content type: must be a string or a list of parts",
            ),
            (
                json!({"role": "", "content": "x"}),
                "invalid role \"\": must be system, developer, user, assistant or tool",
            ),
            (calls("{"), "invalid tool call arguments"),
            (calls("[1]"), "invalid tool call arguments"),
            (part(json!({"type": "text"})), "invalid message format"),
            (part(json!("x")), "invalid message format"),
            (part(json!({"type": "input_audio"})), "audio input is not supported"),
            (part(json!({"type": "image_url", "image_url": {}})), "invalid message format"),
            (
                part(json!({"type": "image_url", "image_url": "data:image/gif;base64,aGk="})),
                "invalid image input",
            ),
            (part(json!({"type": "image_url", "image_url": "data:;base64,%"})), "invalid image input"),
            (
                part(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
                "image URLs are not currently supported, please use base64 encoded data instead",
            ),
        ] {
            assert_eq!(refusal(message), text);
        }
    }

    #[test]
    fn images_as_data_uris_need_a_model_that_sees() {
        for url in ["data:image/png;base64,aGk=", "data:image/webp;base64,aGk=", "data:;base64,aGk="] {
            let part = json!({"type": "image_url", "image_url": {"url": url}});
            let message = json!({"role": "user", "content": [{"type": "text", "text": "t"}, part]});
            let call = call(Endpoint::ChatCompletions, json!({"model": "m", "messages": [message]}));
            assert!(needs(&call).iter().any(|(capability, _)| *capability == Capability::Vision), "{url}");
        }
    }
}
