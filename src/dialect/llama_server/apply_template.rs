//! `POST /apply-template`: `{"messages":[…]}` to `{"prompt"}`, the text that the model's chat template makes of them.

use serde_json::{Map, Value};

use super::{TextField, ask, required};
use crate::dialect::json::{self, object};
use crate::dialect::openai::messages::{self, MessageBody};
use crate::dialect::{Call, Question};
use crate::error::Error;
use crate::generation::{Generation, Input};

object! {
    struct Body {
        "model" => model: String,
        "messages" => messages: Vec<MessageBody>,
        "tools" => tools: Vec<Map<String, Value>>,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let (messages, _) = messages::canonical(body.messages.ok_or_else(|| required("messages"))?)?;
    let tools = body.tools.unwrap_or_default().into_iter().map(Value::Object).collect();
    let model = body.model.clone().unwrap_or_default();
    let conversation = Generation::new(model, Input::Chat { messages, tools });
    Ok(ask(body.model, Question::Render(Box::new(conversation)), TextField("prompt")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::testing::{call, refused};
    use crate::dialect::{Endpoint, Reply, Work};
    use crate::generation::seam::Text;

    #[test]
    fn messages_are_those_of_a_chat() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let mut call = call(Endpoint::ApplyTemplate, json!({"messages": messages}));
        let Work::Ask(Question::Render(conversation)) = &call.work else { panic!() };
        assert!(matches!(&conversation.input, Input::Chat { messages, .. } if messages[0].content == "hi"));
        assert_eq!(call.render.reply(&Reply::Text(Text { text: "p".into() })), br#"{"prompt":"p"}"#);
        assert_eq!(refused(Endpoint::ApplyTemplate, json!({})).to_string(), "messages is required");
    }
}
