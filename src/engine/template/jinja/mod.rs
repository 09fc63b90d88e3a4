//! [`ChatTemplate`]: a Hugging Face chat template, in the Jinja environment that `transformers` gives it
//! (`utils/chat_template_utils.py`): blocks trimmed, Python's methods and JSON, `raise_exception`, `strftime_now`,
//! `break`/`continue` and `{% generation %}`. One leniency: a field of something undefined is undefined, not an error.
//!
//! Instructions, depth and output are limited by the engine or here, and exceeding them is an error. The values that a template
//! builds on its way are limited by [`limited`], which ends the worker. Only model files and the configuration bring such templates;
//! what clients send is a [`GoTemplate`](super::GoTemplate), where that is an error too.

mod conversation;
mod json;

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use time::OffsetDateTime;
use time::format_description::parse_strftime_owned;

use super::memory::limited;
use super::{Limit, MAX_OUTPUT, MAX_SOURCE, TemplateError};
use crate::generation::{Message, Think};
use conversation::{Shape, context, size};

/// Instructions a rendering may take: some two seconds of work, and a hundred times what a thousand turns need.
const FUEL: u64 = 50_000_000;
/// Nested blocks, macros and loops. Keeps the interpreter within half a thread's usual stack.
const MAX_DEPTH: usize = 200;
/// Bytes of memory that a template may hold on its way, and so many times the conversation on top.
const MEMORY: usize = 256 << 20;
const MEMORY_FACTOR: usize = 64;
/// The name the template has within its environment.
const NAME: &str = "chat";

/// A parsed Hugging Face chat template. Cheap to use from many threads, costly to make: keep it.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    shape: Shape,
}

impl ChatTemplate {
    /// Parses `source`. `bos` and `eos` are the texts of the model's special tokens, seen as `bos_token` and `eos_token`.
    pub fn jinja(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::Limit(Limit::Source));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| rejected(&error))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_global("bos_token", bos);
        environment.add_global("eos_token", eos);
        // Constant expressions are computed when it is parsed.
        limited(MEMORY, || environment.add_template_owned(NAME, without_generation_tags(source)))
            .map_err(|error| rejected(&error))?;
        let mut template = Self { environment, shape: Shape::default() };
        let parts = Shape { content_parts: true, ..template.shape };
        if !template.shows_content(template.shape) && template.shows_content(parts) {
            template.shape = parts;
        }
        Ok(template)
    }

    /// The prompt for `messages`, oldest first. `tools` are definitions as clients send them. `think` becomes
    /// `enable_thinking` (and `thinking`, as Granite calls it), a level also `reasoning_effort`; templates that know none
    /// of these ignore it.
    pub fn render_chat(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        think: Option<&Think>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let allowance = MEMORY.saturating_add(size(messages, tools).saturating_mul(MEMORY_FACTOR));
        let render = |shape| {
            let context = context(messages, tools, think, add_generation_prompt, shape);
            limited(allowance, || self.render(context))
        };
        match render(self.shape) {
            // Some templates (DeepSeek's) append a call's arguments to a string, so they need them as text.
            Err(error @ TemplateError::Render { .. })
                if messages.iter().any(|m| !m.tool_calls.is_empty()) =>
            {
                render(Shape { text_arguments: true, ..self.shape }).map_err(|_| error)
            }
            result => result,
        }
    }

    /// Whether a message's text comes through. Templates of models that see images may drop a content that is a string.
    fn shows_content(&self, shape: Shape) -> bool {
        const PROBE: &str = "arriero-probe";
        let probe = [Message { content: PROBE.into(), ..Message::default() }];
        let context = context(&probe, &[], None, true, shape);
        let prompt = limited(MEMORY, || self.render(context));
        prompt.is_ok_and(|prompt| prompt.contains(PROBE))
    }

    fn render(&self, context: Value) -> Result<String, TemplateError> {
        let mut output = Capped(Vec::new());
        let template = self.environment.get_template(NAME).map_err(failed)?;
        template.render_captured_to(context, &mut output).map_err(failed)?;
        String::from_utf8(output.0)
            .map_err(|_| TemplateError::Render { line: 1, message: "the output is not UTF-8".into() })
    }
}

/// A buffer that takes [`MAX_OUTPUT`] bytes and then fails.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_OUTPUT - self.0.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template said when it called `raise_exception`; travels as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let raised = Raised(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

/// The time now, in UTC, by a C `strftime` format.
fn strftime_now(format: &str) -> Result<String, Error> {
    let invalid = |error: String| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"));
    let format = parse_strftime_owned(format).map_err(|error| invalid(error.to_string()))?;
    OffsetDateTime::now_utc().format(&format).map_err(|error| invalid(error.to_string()))
}

fn rejected(error: &Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(1), message: describe(error) }
}

/// Translates an error of rendering; the cause that counts may lie anywhere in its chain.
fn failed(error: Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        if current.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return TemplateError::Limit(Limit::Output);
        }
        if current.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::Limit(Limit::Steps);
        }
        cause = current.source();
    }
    TemplateError::Render { line: error.line().unwrap_or(1), message: describe(&error) }
}

/// Kind and detail; the engine's own text repeats the line and names a file that does not exist.
fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// `transformers` marks what the assistant said with `{% generation %}` for training. Here it is a scope like any other:
/// the tags become `with`, whitespace control and line numbers untouched.
fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        output.push_str(before);
        let name_at = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let (marker, name) = tag.split_at(name_at);
        let scope =
            [("generation", "with"), ("endgeneration", "endwith")].into_iter().find_map(|(tag, scope)| {
                let after = name.strip_prefix(tag)?;
                let end = after.trim_start().trim_start_matches(['-', '+']);
                end.starts_with("%}").then_some((scope, after))
            });
        rest = match scope {
            Some((scope, after)) => {
                output.push_str(marker);
                output.push_str(scope);
                after
            }
            None => tag,
        };
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests;
