//! [`Shared`]: the request fields that generate and chat have in common, and what they mean.

use serde_json::{Map, Value};

use super::answer::{Answer, Shape};
use super::options;
use crate::dialect::json::{Integer, Rest, object};
use crate::dialect::{Call, Capability, Work};
use crate::error::Error;
use crate::generation::{Adaptation, Format, Generation, Input, Priority, Think, ToolChoice, Unknown};
use crate::units::KeepAlive;

object! {
    /// The fields, as they come.
    pub(super) struct Shared {
        "model" => model: String,
        "stream" => stream: bool,
        "format" => format: Value,
        "options" => options: Map<String, Value>,
        "keep_alive" => keep_alive: Value,
        "think" => think: Value,
        "truncate" => truncate: bool,
        "shift" => shift: bool,
        "logprobs" => logprobs: bool,
        "top_logprobs" => top_logprobs: Integer,
        ..rest: Rest,
    }
}

/// The same fields, checked.
pub(super) struct Settings {
    /// As the client wrote it; may be empty.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) keep_alive: Option<KeepAlive>,
    /// Needs [`Capability::Thinking`].
    pub(super) thinks: bool,
    generation: Generation,
}

impl Shared {
    pub(super) fn check(self) -> Result<Settings, Error> {
        let model = self.model.unwrap_or_default();
        let top = self.top_logprobs.map_or(0, |Integer(top)| top);
        let top = u8::try_from(top)
            .ok()
            .filter(|top| *top <= 20)
            .ok_or_else(|| Error::invalid_param("top_logprobs", "top_logprobs must be between 0 and 20"))?;
        let think = self.think.map(think).transpose()?;
        let (options, ollama_options) = options::parse(self.options)?;
        let unknown = Unknown { ollama: self.rest.fields, ollama_options, ..Unknown::default() };
        Ok(Settings {
            stream: self.stream.unwrap_or(true),
            keep_alive: keep_alive(self.keep_alive)?,
            thinks: !matches!(think, None | Some(Think::Switch(false))),
            generation: Generation {
                model: model.clone(),
                input: Input::Raw { prompt: String::new(), images: Vec::new() },
                options,
                adaptation: Adaptation::Default,
                format: format(self.format)?,
                logprobs: (self.logprobs == Some(true)).then_some(top),
                think,
                tool_choice: ToolChoice::Auto,
                parallel_tool_calls: true,
                truncate: self.truncate.unwrap_or(true),
                shift: self.shift.unwrap_or(true),
                resume: None,
                unknown: unknown.some(),
                priority: Priority::NORMAL,
            },
            model,
        })
    }
}

impl Settings {
    /// A capability the model must have for this request, and the error if it has not.
    pub(super) fn need(&self, capability: Capability, words: &'static str) -> (Capability, Error) {
        (capability, capability.missing(&self.model, words))
    }

    /// The call: to run `input`, or without one to load the model or to unload it. A request to unload is served whatever
    /// the model can do and whatever else it says.
    pub(super) fn call(
        self,
        input: Option<Input>,
        needs: Vec<(Capability, Error)>,
        objection: Option<Error>,
        shape: Shape,
    ) -> Call {
        let (work, needs, objection) = match input {
            Some(input) => (Work::Generate(vec![Generation { input, ..self.generation }]), needs, objection),
            None if self.keep_alive == Some(KeepAlive::Unload) => (Work::Unload, Vec::new(), None),
            None => (Work::Load, needs, objection),
        };
        let render = Box::new(Answer::new(&self.model, shape));
        let (keep_alive, stream) = (self.keep_alive, self.stream);
        Call { model: self.model, keep_alive, work, needs, objection, stream, render }
    }
}

/// `keep_alive`: a number of seconds or a Go duration.
pub(super) fn keep_alive(value: Option<Value>) -> Result<Option<KeepAlive>, Error> {
    let wrong = |message: String| Error::invalid_param("keep_alive", message);
    match value {
        None => Ok(None),
        Some(Value::Number(seconds)) => Ok(seconds.as_f64().map(KeepAlive::from_seconds)),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|error| wrong(format!("{error}"))),
        Some(_) => Err(wrong("keep_alive must be a number of seconds or a duration such as \"5m\"".into())),
    }
}

/// `format`: nothing, `"json"` or a JSON Schema.
fn format(value: Option<Value>) -> Result<Format, Error> {
    match value {
        None => Ok(Format::Text),
        Some(Value::String(text)) if text.is_empty() => Ok(Format::Text),
        Some(Value::String(text)) if text == "json" => Ok(Format::Json),
        Some(schema @ Value::Object(_)) => Ok(Format::Schema(schema)),
        Some(other) => Err(Error::invalid_param(
            "format",
            format!("invalid format: {other}; expected \"json\" or a valid JSON Schema object"),
        )),
    }
}

/// `think`: on, off or a level.
fn think(value: Value) -> Result<Think, Error> {
    const VALID: &str = r#""high", "medium", "low", "max", true, or false"#;
    match value {
        Value::Bool(on) => Ok(Think::Switch(on)),
        Value::String(level) if matches!(level.as_str(), "low" | "medium" | "high" | "max") => {
            Ok(Think::Level(level))
        }
        Value::String(other) => {
            Err(Error::invalid_param("think", format!("invalid think value: {other:?} (must be {VALID})")))
        }
        _ => Err(Error::invalid_param("think", format!("think must be a boolean or string ({VALID})"))),
    }
}
