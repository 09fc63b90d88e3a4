//! [`GoTemplate`]: the Go `text/template` of an Ollama model, with the rules by which Ollama puts a conversation into it
//! (<https://github.com/ollama/ollama/blob/main/template/template.go>).

mod ast;
mod exec;
mod functions;
mod lexer;
mod parse;
mod printf;
mod value;

use ast::{Node, Operand, Pipeline, cut_after_response, mentions};
use parse::Templates;
use value::Value;

use super::TemplateError;
use crate::generation::{Message, Role, Think};

/// What a Go template is rendered over. A request's own template gets a system text, a prompt and the wish to think; the rest is
/// for models whose template is written in Go, which the engine does not load yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct PromptData<'a> {
    /// The system text, unless the first message is one. Empty: none.
    pub system: &'a str,
    /// The user's text where there are no messages.
    pub prompt: &'a str,
    /// What follows the gap that the model shall fill; empty: no gap. With it only `prompt` and `suffix` are rendered.
    pub suffix: &'a str,
    /// The conversation, oldest first.
    pub messages: &'a [Message],
    /// Tool definitions as clients send them.
    pub tools: &'a [serde_json::Value],
    /// Whether the model shall think.
    pub think: Option<&'a Think>,
}

/// A parsed Go template.
#[derive(Debug)]
pub struct GoTemplate {
    templates: Templates,
    /// It ranges over the conversation itself; else it renders one turn at a time.
    takes_messages: bool,
    /// The last turn of a template that renders turns: nothing after `.Response`, which the model is to write.
    last_turn: Vec<Node>,
}

impl GoTemplate {
    /// Parses `source`.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let mut templates = parse::parse(source)?;
        let mentioned = |templates: &Templates, name| {
            mentions(&templates.root, name) || templates.named.values().any(|nodes| mentions(nodes, name))
        };
        let takes_messages = mentioned(&templates, "Messages");
        if !takes_messages && !mentioned(&templates, "Response") {
            templates.root.push(Node::Action(Pipeline {
                line: 1,
                variables: Vec::new(),
                declares: false,
                commands: vec![vec![Operand::Field(vec!["Response".into()])]],
            }));
        }
        let mut last_turn = templates.root.clone();
        cut_after_response(&mut last_turn);
        Ok(Self { templates, takes_messages, last_turn })
    }

    /// The prompt for `data`.
    pub fn render_prompt(&self, data: &PromptData<'_>) -> Result<String, TemplateError> {
        if !data.suffix.is_empty() {
            let turn = Turn { prompt: data.prompt.into(), ..Turn::default() };
            return exec::execute(&self.templates, &self.templates.root, turn.variables(data));
        }
        let messages = conversation(data);
        if self.takes_messages {
            return exec::execute(&self.templates, &self.templates.root, whole(data, &messages));
        }
        self.render_turns(data, merged(&messages))
    }

    fn render_turns(&self, data: &PromptData<'_>, messages: Vec<Message>) -> Result<String, TemplateError> {
        let mut output = String::new();
        let mut turn = Turn::default();
        for message in messages {
            let complete = match message.role {
                Role::System => !turn.prompt.is_empty() || !turn.response.is_empty(),
                Role::User => !turn.response.is_empty(),
                Role::Assistant | Role::Tool => false,
            };
            if complete {
                let turn = std::mem::take(&mut turn);
                output += &exec::execute(&self.templates, &self.templates.root, turn.variables(data))?;
            }
            match message.role {
                Role::System => turn.system = message.content,
                Role::User => turn.prompt = message.content,
                Role::Assistant => turn.response = message.content,
                // A template of single turns has no place for a tool's result.
                Role::Tool => {}
            }
        }
        Ok(output + &exec::execute(&self.templates, &self.last_turn, turn.variables(data))?)
    }
}

/// One turn of a template that does not know messages.
#[derive(Default)]
struct Turn {
    system: String,
    prompt: String,
    response: String,
}

impl Turn {
    fn variables(self, data: &PromptData<'_>) -> Value {
        variables(
            data,
            [
                ("System", self.system.into()),
                ("Prompt", self.prompt.into()),
                ("Response", self.response.into()),
                ("Messages", Value::Nil),
                ("Tools", Value::Nil),
            ],
        )
    }
}

/// The variables of a template that ranges over messages.
fn whole(data: &PromptData<'_>, messages: &[Message]) -> Value {
    let system: Vec<_> =
        messages.iter().filter(|m| m.role == Role::System).map(|m| m.content.as_str()).collect();
    variables(
        data,
        [
            ("System", system.join("\n\n").into()),
            ("Prompt", "".into()),
            ("Response", "".into()),
            ("Messages", merged(messages).iter().map(message).collect()),
            ("Tools", data.tools.iter().map(Value::from).collect()),
        ],
    )
}

fn variables<const N: usize>(data: &PromptData<'_>, fields: [(&str, Value); N]) -> Value {
    let level = match data.think {
        Some(Think::Level(level)) => level.as_str(),
        _ => "",
    };
    let think = [
        ("Suffix", data.suffix.into()),
        ("Think", matches!(data.think, Some(Think::Switch(true) | Think::Level(_))).into()),
        ("ThinkLevel", level.into()),
        ("IsThinkSet", data.think.is_some().into()),
    ];
    fields.into_iter().chain(think).collect()
}

/// The messages to render: the given ones, else the prompt as the user's; in front the system text, unless they bring one.
fn conversation(data: &PromptData<'_>) -> Vec<Message> {
    let text = |role, content: &str| Message { role, content: content.into(), ..Message::default() };
    let mut messages = data.messages.to_vec();
    if messages.is_empty() {
        messages.push(text(Role::User, data.prompt));
    }
    let own = messages.first().is_some_and(|first| first.role == Role::System);
    if !own && !data.system.is_empty() {
        messages.insert(0, text(Role::System, data.system));
    }
    messages
}

/// Consecutive messages of one role become one, a blank line between their texts; each tool's result stays by itself.
fn merged(messages: &[Message]) -> Vec<Message> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match merged.last_mut() {
            Some(last) if last.role == message.role && message.role != Role::Tool => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
                last.tool_calls.extend_from_slice(&message.tool_calls);
            }
            _ => merged.push(message.clone()),
        }
    }
    merged
}

fn message(message: &Message) -> Value {
    let text = |text: &Option<String>| Value::from(text.as_deref().unwrap_or_default());
    [
        ("Role", message.role.as_str().into()),
        ("Content", message.content.as_str().into()),
        ("Thinking", text(&message.thinking)),
        ("Images", Value::Nil),
        ("ToolCalls", message.tool_calls.iter().map(Value::from).collect()),
        ("ToolName", text(&message.tool_name)),
        ("ToolCallID", text(&message.tool_call_id)),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests;
