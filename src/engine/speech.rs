//! [`Speech`]: how a model marks thinking and tool calls, and [`Reading`]: how an answer of it will be read and constrained.

use serde_json::Value;

use super::grammar::{Constraint, Grammars};
use super::model::Model;
use super::parse::outline::{self, Outline};
use super::parse::{Calls, Family, Offer, Parser, Thinking};
use super::prompt::Prompt;
use super::sampling::Token;
use crate::generation::ability::{self, ThinkingMarks};
use crate::generation::{Failure, FailureCode, Format, Generation, Input, Think, ToolChoice};

/// What a model's chat template tells of its answers.
#[derive(Debug)]
pub struct Speech {
    family: &'static Family,
    thinking: Option<ThinkingMarks>,
    /// Marks that are special tokens: they have no text, unless asked for.
    special: Vec<(&'static str, Token)>,
}

impl Speech {
    /// `special` finds the special token that a text is.
    pub fn of(template: &str, special: impl Fn(&str) -> Option<Token>) -> Self {
        let family = Family::of(template);
        let thinking = ability::thinking(template);
        let marks = family.openings.iter().chain(family.marks).copied();
        let marks = marks.chain(thinking.into_iter().flat_map(|marks| [marks.open, marks.close]));
        let special = marks.filter_map(|mark| Some((mark, special(mark)?))).collect();
        Self { family, thinking, special }
    }

    /// Whether the model shall think: what the request says; else it does if it can, as in Ollama. Not before a grammar of the
    /// caller's own, which says what the whole answer is.
    pub fn think(&self, generation: &Generation) -> Option<Think> {
        let is_free = !matches!(generation.format, Format::Grammar(_));
        generation.think.clone().or_else(|| self.thinking.map(|_| Think::Switch(is_free)))
    }
}

impl Default for Speech {
    /// That of a model without a template.
    fn default() -> Self {
        Self::of("", |_| None)
    }
}

/// How one answer is read, and what it may be.
pub struct Reading {
    /// From text to events.
    pub parser: Parser,
    /// Special tokens whose text the parser has to see.
    pub shown: Vec<Token>,
    /// What the answer is confined to.
    pub constraint: Option<Constraint>,
}

impl Reading {
    /// For the answer to `prompt`.
    pub fn of(model: &Model, generation: &Generation, prompt: &Prompt, seed: u64) -> Result<Self, Failure> {
        let Speech { family, special, .. } = &model.speech;
        let thinking = thinking(model, generation, prompt);
        let tools = Tools::of(generation)?;
        let offer = |tools: &Tools<'_>| Offer {
            names: tools.offered.iter().map(|tool| tool.name.to_owned()).collect(),
            most: if tools.several { usize::MAX } else { 1 },
            seed,
        };
        let parser = Parser::new(
            thinking.map(|(marks, opened)| Thinking::new(marks, opened)),
            tools.as_ref().map(|tools| Calls::new(family, offer(tools))),
        );
        let is_read = thinking.is_some() || tools.is_some();
        Ok(Self {
            parser,
            shown: special.iter().filter(|_| is_read).map(|(_, token)| *token).collect(),
            constraint: constraint(model, generation, thinking, tools.as_ref())?,
        })
    }
}

/// The marks of the thinking to separate, if any, and whether the prompt ends with the opening one.
fn thinking(model: &Model, generation: &Generation, prompt: &Prompt) -> Option<(ThinkingMarks, bool)> {
    let off = Some(Think::Switch(false));
    let separates =
        !matches!(generation.input, Input::Infill { .. }) && model.speech.think(generation) != off;
    let marks = model.speech.thinking.filter(|_| separates)?;
    // As many tokens as bytes, and some for the white space that may follow.
    let tail = &prompt.tokens[prompt.tokens.len().saturating_sub(marks.open.len() + 4)..];
    Some((marks, model.detokenize(tail).trim_end().ends_with(marks.open)))
}

fn constraint(
    model: &Model,
    generation: &Generation,
    thinking: Option<(ThinkingMarks, bool)>,
    tools: Option<&Tools<'_>>,
) -> Result<Option<Constraint>, Failure> {
    let is_forced = tools.is_some_and(|tools| tools.is_forced);
    if generation.format == Format::Text && !is_forced {
        return Ok(None);
    }
    let grammars = model.grammars()?;
    if matches!(generation.format, Format::Grammar(_)) && !is_forced {
        return grammars.constraint(&generation.format);
    }
    let content = if is_forced { None } else { grammars.schema(&generation.format)? };
    let Some(tools) = tools else {
        if thinking.is_none() {
            return grammars.constraint(&generation.format);
        }
        let outline =
            Outline { special: &model.speech.special, thinking, calls: None, content: content.as_ref() };
        return grammars.lark(outline.lark()).map(Some).map_err(|reason| invalid(&reason));
    };
    let calls = outline::Calls {
        frame: &model.speech.family.frame,
        tools: tools.offered.iter().map(|tool| (tool.name, grammars.spaced(tool.parameters()))).collect(),
        several: tools.several,
    };
    let outline =
        Outline { special: &model.speech.special, thinking, calls: Some(calls), content: content.as_ref() };
    let made = grammars.lark(outline.lark());
    made.map(Some).map_err(|reason| tools.blame(grammars).unwrap_or_else(|| invalid(&reason)))
}

/// The tools of a request, as far as it lets the model call them.
struct Tools<'a> {
    offered: Vec<Tool<'a>>,
    /// The answer has to be a call.
    is_forced: bool,
    several: bool,
}

struct Tool<'a> {
    /// Its place in the request.
    index: usize,
    name: &'a str,
    parameters: Option<&'a Value>,
}

impl<'a> Tools<'a> {
    fn of(generation: &'a Generation) -> Result<Option<Self>, Failure> {
        let tools = match &generation.input {
            Input::Chat { tools, .. } => tools.as_slice(),
            _ => &[],
        };
        let mut offered: Vec<Tool<'_>> = tools.iter().enumerate().filter_map(Tool::of).collect();
        if let ToolChoice::Function(chosen) = &generation.tool_choice {
            offered.retain(|tool| tool.name == chosen);
        }
        let is_forced = generation.tool_choice != ToolChoice::Auto;
        match offered.is_empty() {
            true if is_forced => Err(invalid("tool_choice asks for a tool that is not among the tools")),
            true => Ok(None),
            false => {
                let is_one = matches!(generation.tool_choice, ToolChoice::Function(_));
                Ok(Some(Self { offered, is_forced, several: generation.parallel_tool_calls && !is_one }))
            }
        }
    }

    /// What is wrong with the first schema that cannot be used.
    fn blame(&self, grammars: &Grammars) -> Option<Failure> {
        self.offered.iter().find_map(|tool| {
            let place = format!("tools[{}].function.parameters", tool.index);
            grammars.check(&tool.parameters(), &place).err()
        })
    }
}

impl<'a> Tool<'a> {
    fn of((index, tool): (usize, &'a Value)) -> Option<Self> {
        let function = tool.get("function")?;
        let name = function.get("name")?.as_str()?;
        Some(Self { index, name, parameters: function.get("parameters").filter(|schema| !schema.is_null()) })
    }

    /// The schema of its arguments, which are an object whether it says so or not.
    fn parameters(&self) -> Value {
        let mut schema = self.parameters.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(fields) = &mut schema {
            fields.entry("type").or_insert_with(|| "object".into());
        }
        schema
    }
}

fn invalid(message: &str) -> Failure {
    Failure { code: FailureCode::InvalidRequest, message: message.to_owned() }
}
