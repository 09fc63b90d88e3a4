//! Prompt templates: a conversation in, the exact text the model reads out.
//!
//! Two languages, one type each: [`ChatTemplate`] is the Jinja of Hugging Face chat templates (a GGUF's
//! `tokenizer.chat_template`), [`GoTemplate`] the Go `text/template` of Ollama models. Both come from model files, so both
//! are parsed once, run under limits on work, depth and output, and answer with a [`TemplateError`] whatever they contain.
//! Touches `generation` only.

mod float;
mod go;
mod jinja;
mod memory;

pub use go::{GoTemplate, PromptData};
pub use jinja::ChatTemplate;
pub use memory::STACK;

/// Most bytes a template may render.
const MAX_OUTPUT: usize = 64 << 20;

/// Longest source of a template. The longest known are some 30 KB. Chains (`a.b.b.b`, `1+1+1`) nest as deep as they are long, and
/// what walks over them takes stack for each link, and at times all of their length again.
const MAX_SOURCE: usize = 64 << 10;

/// Why a template cannot be used, or not with this conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The source is not a template.
    #[error("template syntax error on line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// It parsed, but failed while rendering.
    #[error("template error on line {line}: {message}")]
    Render {
        /// Counted from 1.
        line: usize,
        /// What went wrong there.
        message: String,
    },
    /// The template refuses this conversation with words of its own (`raise_exception`): the caller's mistake.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// It would run too long, nest too deep or render too much.
    #[error("the template exceeds the limit of {0}")]
    Limit(Limit),
}

/// What a template can have too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Instructions executed.
    Steps,
    /// Nested blocks, calls or values.
    Depth,
    /// Bytes rendered.
    Output,
    /// Bytes of its own.
    Source,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps => f.write_str("execution steps"),
            Self::Depth => f.write_str("nesting depth"),
            Self::Source => write!(f, "{} KiB of source", MAX_SOURCE >> 10),
            Self::Output => write!(f, "{} MiB of output", MAX_OUTPUT >> 20),
        }
    }
}
