//! [`Speech`]: how a model marks thinking and tool calls, and [`Reading`]: how an answer of it will be read and constrained.

use serde_json::Value;

use super::grammar::{Constraint, Grammars, prepared, schema};
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
        let is_read = |mark: &&str| match model.speech.thinking {
            Some(marks) if [marks.open, marks.close].contains(mark) => thinking.is_some(),
            _ => tools.is_some(),
        };
        Ok(Self {
            parser,
            shown: special.iter().filter(|(mark, _)| is_read(mark)).map(|(_, token)| *token).collect(),
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

/// Free text, unless a format is asked for or a call is forced. With a format an answer may still be a call instead.
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
    let is_grammar = matches!(generation.format, Format::Grammar(_)) && !is_forced;
    if is_grammar || (thinking.is_none() && tools.is_none()) {
        return grammars.constraint(&generation.format);
    }
    let content = schema(&generation.format).filter(|_| !is_forced).map(prepared);
    let calls = tools.map(|tools| outline::Calls {
        frame: &model.speech.family.frame,
        tools: tools.offered.iter().map(|tool| (tool.name, prepared(tool.parameters()))).collect(),
        several: tools.several,
    });
    let outline = Outline { special: &model.speech.special, thinking, calls, content: content.as_ref() };
    let refused = |reason: String| {
        let of_format = || grammars.mistake(content.as_ref()?, "format");
        let mistake = tools.and_then(|tools| tools.mistake(grammars)).or_else(of_format);
        mistake.unwrap_or_else(|| invalid(&format!("no grammar can be made of the request: {reason}")))
    };
    grammars.lark(outline.lark()).map(Some).map_err(refused)
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
    fn mistake(&self, grammars: &Grammars) -> Option<Failure> {
        self.offered.iter().find_map(|tool| {
            let place = format!("tools[{}].function.parameters", tool.index);
            grammars.mistake(&tool.parameters(), &place)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn generation(choice: &Value, tools: &Value) -> Generation {
        let input = json!({"kind": "chat", "messages": [], "tools": tools});
        serde_json::from_value(json!({"model": "m", "input": input, "tool_choice": choice})).unwrap()
    }

    fn tools() -> Value {
        let schema = json!({"properties": {"a": {"type": "string"}}});
        let nameless = json!({"type": "function", "function": {}});
        json!([nameless, {"function": {"name": "f", "parameters": schema}}, {"function": {"name": "g"}}])
    }

    #[test]
    fn a_choice_narrows_the_tools_and_the_number_of_calls() {
        let offered = |choice: Value| {
            let generation = generation(&choice, &tools());
            let tools = Tools::of(&generation).unwrap().unwrap();
            let names: String = tools.offered.iter().map(|tool| tool.name).collect();
            (names, tools.offered[0].index, tools.is_forced, tools.several)
        };
        assert_eq!(offered(json!({"kind": "auto"})), ("fg".into(), 1, false, true));
        assert_eq!(offered(json!({"kind": "required"})), ("fg".into(), 1, true, true));
        assert_eq!(offered(json!({"kind": "function", "name": "g"})), ("g".into(), 2, true, false));
        let unknown = generation(&json!({"kind": "function", "name": "h"}), &tools());
        assert!(Tools::of(&unknown).is_err());
        assert!(Tools::of(&generation(&json!({"kind": "auto"}), &json!([]))).unwrap().is_none());
    }

    #[test]
    fn arguments_are_an_object_whatever_the_schema_leaves_out() {
        let generation = generation(&json!({"kind": "auto"}), &tools());
        let tools = Tools::of(&generation).unwrap().unwrap();
        let schema = json!({"properties": {"a": {"type": "string"}}, "type": "object"});
        assert_eq!(tools.offered[0].parameters(), schema);
        assert_eq!(tools.offered[1].parameters(), json!({"type": "object"}));
    }

    #[test]
    fn a_model_that_can_think_does_unless_told_otherwise() {
        let mut asked = generation(&json!({"kind": "auto"}), &json!([]));
        let thinker = Speech::of("<think></think><tool_call>", |mark| (mark == "</think>").then_some(7));
        assert_eq!(thinker.special, [("</think>", 7)]);
        assert_eq!(thinker.think(&asked), Some(Think::Switch(true)));
        assert_eq!(Speech::default().think(&asked), None);
        asked.think = Some(Think::Switch(false));
        assert_eq!(thinker.think(&asked), Some(Think::Switch(false)));
    }
}
