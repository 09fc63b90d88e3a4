//! [`Generation`]: one canonical request for text.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Adaptation, Image, Options, Priority, Resume, Unknown};

/// One canonical request for text. Serialises to the body of the worker's `POST /generate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The configured model name, aliases and tags already resolved. What the client wrote stays in the dialect.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// Sampling and limits; absent fields take the model's, then the engine's defaults ([`Options`]).
    #[serde(default)]
    pub options: Options,
    /// The adapter that the model is changed by.
    #[serde(default, skip_serializing_if = "Adaptation::is_default")]
    pub adaptation: Adaptation,
    /// Constraint on the output.
    #[serde(default)]
    pub format: Format,
    /// `Some(n)`: report the log probability of each token and of its `n` best alternatives (0 to 20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u8>,
    /// Whether the model shall think first; only for models that can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// Whether the model shall call the tools of its input.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Whether it may make more than one call; else the answer ends after the first.
    #[serde(default = "yes")]
    pub parallel_tool_calls: bool,
    /// A prompt that does not fit: cut it (true) or refuse it (false).
    #[serde(default = "yes")]
    pub truncate: bool,
    /// The context is full while generating: discard the oldest half (true) or stop with `length` (false).
    #[serde(default = "yes")]
    pub shift: bool,
    /// What the caller has of the answer already, from a node that was lost: the answer goes on behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// What the client said and this program does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Box<Unknown>>,
    /// Which of those that wait goes first. Says nothing about the answer, so it is no part of an [`Identity`](super::Identity).
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
}

fn yes() -> bool {
    true
}

impl Generation {
    /// A request that says nothing but what to continue.
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            options: Options::default(),
            adaptation: Adaptation::Default,
            format: Format::Text,
            logprobs: None,
            think: None,
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            truncate: true,
            shift: true,
            resume: None,
            unknown: None,
            priority: Priority::NORMAL,
        }
    }
}

/// What a generation continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Chat {
        /// Oldest first.
        messages: Vec<Message>,
        /// Tool definitions as the client sent them (`{"type":"function","function":{…}}`), key order kept.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tools: Vec<Value>,
    },
    /// A single prompt, wrapped in the model's template as one user turn.
    Prompt {
        /// The user's text.
        prompt: String,
        /// Replaces the model's system text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// Replaces the model's template; Go `text/template` syntax, as Ollama's `template` field has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String>,
        /// Token ids of an earlier turn (prompt and answer), put before the newly rendered prompt.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        context: Vec<u32>,
        /// What the user shows.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<Image>,
    },
    /// The prompt as it is: no template, no system text.
    Raw {
        /// The exact text; special tokens in it are recognised.
        prompt: String,
        /// Pictures in it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<Image>,
    },
    /// Fill in the middle, for models that have the tokens for it.
    Infill {
        /// Text before the gap.
        prefix: String,
        /// Text after the gap.
        suffix: String,
        /// What other files hold, the nearest last.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        extra: Vec<Snippet>,
    },
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snippet {
    /// The file's name.
    pub file: String,
    /// The piece.
    pub text: String,
}

/// One turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; empty if there is none.
    #[serde(default)]
    pub content: String,
    /// Pictures in it, in the order in which they stand there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// The assistant's earlier thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Calls the assistant made: `{"id"?, "function":{"name","arguments":{…}}}`, arguments as an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Value>,
    /// For role `tool`: the function whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// For role `tool`: the call that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// Who speaks in a [`Message`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The person or program asking.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A constraint on the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "schema", rename_all = "snake_case")]
pub enum Format {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    Json,
    /// JSON that obeys this JSON Schema.
    Schema(Value),
    /// What llama.cpp's grammar (GBNF) describes; rules that contain themselves are not supported.
    Grammar(String),
}

/// Whether the model shall call tools. A request that forbids it brings none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// It must make a call: the answer is constrained to calls.
    Required,
    /// It must call this tool, once.
    Function(String),
}

/// How much the model shall think.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Think {
    /// On or off.
    Switch(bool),
    /// `low`, `medium`, `high` or `max`.
    Level(String),
}
