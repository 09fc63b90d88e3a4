//! [`Sampling`]: the request fields that chat and text completions have in common, and what they mean.

use serde_json::{Map, Value};

use super::extras::{self, Extras};
use crate::dialect::json::{Integer, Rest, object};
use crate::dialect::lora::{self, Lora};
use crate::dialect::{Call, Capability, Render, Work};
use crate::error::Error;
use crate::generation::{
    Adaptation, Format, Generation, Input, NoPriority, Options, Priority, Think, ToolChoice, Unknown,
};

object! {
    /// The fields, as they come.
    pub(super) struct Sampling {
        "model" => model: String,
        "stream" => stream: bool,
        "stream_options" => stream_options: StreamOptions,
        "max_tokens" => max_tokens: Integer,
        "temperature" => temperature: f64,
        "top_p" => top_p: f64,
        "frequency_penalty" => frequency_penalty: f64,
        "presence_penalty" => presence_penalty: f64,
        "seed" => seed: Integer,
        "stop" => stop: Value,
        "n" => n: Integer,
        "priority" => priority: Integer,
        "logit_bias" => logit_bias: Map<String, Value>,
        "grammar" => grammar: String,
        "guided_grammar" => guided_grammar: String,
        "lora" => lora: Vec<Lora>,
        ..extras: Extras,
        ..rest: Rest,
    }
}

object! {
    pub(super) struct StreamOptions {
        "include_usage" => include_usage: bool,
    }
}

/// What says nothing of an answer. It stays here, or else requests that ask for the same would look different.
const ABOUT_THE_CLIENT: [&str; 5] = ["user", "metadata", "store", "safety_identifier", "prompt_cache_key"];

/// The most choices one request may ask for.
const MAX_CHOICES: usize = 16;

/// The same fields, checked.
pub(super) struct Settings {
    /// As the client wrote it; may be empty.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) options: Options,
    /// llama-server's `grammar`, vLLM's `guided_grammar`.
    grammar: Option<String>,
    adaptation: Adaptation,
    /// How many are generated.
    pub(super) choices: usize,
    unknown: Unknown,
    /// vLLM's `priority`.
    priority: Priority,
}

/// What differs between the endpoints.
pub(super) struct Task {
    pub(super) input: Input,
    pub(super) format: Format,
    pub(super) logprobs: Option<u8>,
    pub(super) think: Option<Think>,
    pub(super) tool_choice: ToolChoice,
    pub(super) parallel_tool_calls: bool,
}

impl Sampling {
    pub(super) fn check(self) -> Result<Settings, Error> {
        let choices = self.n.map_or(Ok(1), |n| choices("n", n))?;
        Ok(Settings {
            model: self.model.unwrap_or_default(),
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            options: Options {
                num_predict: self.max_tokens.map(|Integer(n)| n),
                // OpenAI's defaults, not Ollama's, and they win over the model's own.
                temperature: Some(float("temperature", self.temperature.unwrap_or(1.0))?),
                top_p: Some(float("top_p", self.top_p.unwrap_or(1.0))?),
                frequency_penalty: self
                    .frequency_penalty
                    .map(|value| float("frequency_penalty", value))
                    .transpose()?,
                presence_penalty: self
                    .presence_penalty
                    .map(|value| float("presence_penalty", value))
                    .transpose()?,
                // Negative is the same as none: one is drawn.
                seed: self.seed.map(|Integer(seed)| seed).filter(|seed| *seed >= 0),
                stop: self.stop.map(stop).transpose()?,
                logit_bias: self
                    .logit_bias
                    .filter(|map| !map.is_empty())
                    .map(extras::logit_bias)
                    .transpose()?,
                ..self.extras.options()?
            },
            grammar: self.grammar.or(self.guided_grammar).filter(|grammar| !grammar.is_empty()),
            adaptation: lora::adaptation(self.lora)?,
            choices,
            unknown: unknown(self.rest),
            priority: self.priority.map_or(Ok(Priority::NORMAL), priority)?,
        })
    }
}

impl Settings {
    /// Generates `best_of` choices; of those as many are to be sent as were asked for, which it returns.
    pub(super) fn generate_best_of(&mut self, best_of: Option<Integer>) -> Result<usize, Error> {
        let wanted = self.choices;
        let Some(best_of) = best_of.map(|best_of| choices("best_of", best_of)).transpose()? else {
            return Ok(wanted);
        };
        if best_of < wanted {
            let message = format!(
                "You requested that the server return more choices than it will generate (HINT: you must set 'n' \
                 (currently {wanted}) to be at most 'best_of' (currently {best_of}), or omit either parameter if you \
                 don't specifically want to use them.)"
            );
            return Err(Error::invalid_param("best_of", message));
        }
        if best_of > wanted && self.stream {
            return Err(Error::invalid_param("best_of", "best_of cannot be used with stream"));
        }
        self.choices = best_of;
        Ok(wanted)
    }

    /// The format by the grammar, or by what the endpoint itself asks for.
    pub(super) fn format(&mut self, asked: Option<Format>) -> Result<Format, Error> {
        match (self.grammar.take(), asked.unwrap_or_default()) {
            (None, asked) => Ok(asked),
            (Some(grammar), Format::Text) => Ok(Format::Grammar(grammar)),
            (Some(_), _) => {
                Err(Error::invalid_param("grammar", "grammar and response_format cannot be used together"))
            }
        }
    }

    /// A capability the model must have for this request, and the error if it has not.
    pub(super) fn need(&self, capability: Capability, words: &'static str) -> (Capability, Error) {
        (capability, capability.missing(&self.model, words))
    }

    /// One generation per choice. With a seed each choice gets its own, so that choices differ and yet repeat.
    pub(super) fn call(self, task: Task, needs: Vec<(Capability, Error)>, render: Box<dyn Render>) -> Call {
        let unknown = self.unknown.some();
        let generation = Generation {
            model: self.model.clone(),
            input: task.input,
            options: self.options,
            adaptation: self.adaptation,
            format: task.format,
            logprobs: task.logprobs,
            think: task.think,
            tool_choice: task.tool_choice,
            parallel_tool_calls: task.parallel_tool_calls,
            truncate: true,
            shift: true,
            resume: None,
            unknown,
            priority: self.priority,
        };
        let mut generations = vec![generation; self.choices];
        for (choice, generation) in (0..).zip(&mut generations) {
            if let Some(seed) = &mut generation.options.seed {
                *seed = seed.saturating_add(choice);
            }
        }
        Call {
            model: self.model,
            keep_alive: None,
            work: Work::Generate(generations),
            needs,
            objection: None,
            stream: self.stream,
            render,
        }
    }
}

/// A number of choices, if it is one that can be had.
fn choices(param: &'static str, Integer(choices): Integer) -> Result<usize, Error> {
    usize::try_from(choices)
        .ok()
        .filter(|choices| (1..=MAX_CHOICES).contains(choices))
        .ok_or_else(|| Error::invalid_param(param, format!("{param} must be between 1 and {MAX_CHOICES}")))
}

fn unknown(rest: Rest) -> Unknown {
    let mut openai = rest.fields;
    openai.retain(|name, _| !ABOUT_THE_CLIENT.contains(&name.as_str()));
    Unknown { openai, ..Unknown::default() }
}

fn priority(Integer(priority): Integer) -> Result<Priority, Error> {
    let wrong = |fault: NoPriority| Error::invalid_param("priority", format!("priority {fault}"));
    priority.try_into().map_err(wrong)
}

/// The number of alternatives per token, if it is one that can be had.
pub(in crate::dialect) fn top_logprobs(param: &'static str, Integer(top): Integer) -> Result<u8, Error> {
    u8::try_from(top)
        .ok()
        .filter(|top| *top <= 20)
        .ok_or_else(|| Error::invalid_param(param, format!("{param} must be between 0 and 20")))
}

pub(in crate::dialect) fn float(param: &'static str, value: f64) -> Result<f32, Error> {
    let float = value as f32;
    if float.is_finite() {
        Ok(float)
    } else {
        Err(Error::invalid_param(param, format!("{param} is out of range")))
    }
}

/// One string or a list of strings. Empty strings are dropped: they would match at once.
pub(in crate::dialect) fn stop(value: Value) -> Result<Vec<String>, Error> {
    let items = match value {
        Value::Array(items) => items,
        single => vec![single],
    };
    let text = |item| match item {
        Value::String(text) => Ok(text),
        _ => Err(Error::invalid_param("stop", "stop must be a string or a list of strings")),
    };
    items.into_iter().map(text).filter(|text| text.as_deref() != Ok("")).collect()
}
