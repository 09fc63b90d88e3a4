//! `POST /api/chat`: parsing.

use serde_json::{Map, Value};

use super::answer::Shape;
use super::request::Shared;
use crate::dialect::image::Image;
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
