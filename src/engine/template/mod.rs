//! Placeholder; replaced on merge.

use serde_json::Value;

use crate::generation::{Message, Think};

/// Why a template failed.
#[derive(Debug)]
pub struct TemplateError(String);

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Jinja chat template.
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Parses.
    pub fn jinja(_source: &str, _bos: &str, _eos: &str) -> Result<Self, TemplateError> {
        Ok(Self {})
    }

    /// Renders.
    pub fn render_chat(
        &self,
        messages: &[Message],
        _tools: &[Value],
        _think: Option<&Think>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let mut text = String::new();
        for message in messages {
            text += &format!("<|im_start|>{}\n{}<|im_end|>\n", message.role.as_str(), message.content);
        }
        if add_generation_prompt {
            text += "<|im_start|>assistant\n";
        }
        Ok(text)
    }
}

/// A Go template.
pub struct GoTemplate {}

/// What a Go template is rendered over.
#[derive(Clone, Copy, Default)]
pub struct PromptData<'a> {
    /// System text.
    pub system: &'a str,
    /// The user's text where there are no messages.
    pub prompt: &'a str,
    /// What follows the gap.
    pub suffix: &'a str,
    /// Messages.
    pub messages: &'a [Message],
    /// Tools.
    pub tools: &'a [Value],
    /// Whether to think.
    pub think: Option<&'a Think>,
}

impl GoTemplate {
    /// Parses.
    pub fn parse(_source: &str) -> Result<Self, TemplateError> {
        Ok(Self {})
    }

    /// Renders.
    pub fn render_prompt(&self, data: &PromptData<'_>) -> Result<String, TemplateError> {
        Ok(data.prompt.to_owned())
    }
}
