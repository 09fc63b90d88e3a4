//! [`Outline`]: what an answer under constraint consists of, as a grammar in llguidance's dialect of Lark
//! (<https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>).

use std::fmt::Write;

use serde_json::Value;

use super::family::Frame;
use crate::engine::sampling::Token;
use crate::generation::ability::ThinkingMarks;

/// The parts of an answer: thinking, then calls or content.
#[derive(Debug)]
pub struct Outline<'a> {
    /// Marks that are special tokens of the vocabulary: a grammar names those by id.
    pub special: &'a [(&'static str, Token)],
    /// The model may think first; whether the prompt opened the block already.
    pub thinking: Option<(ThinkingMarks, bool)>,
    /// It may call these tools.
    pub calls: Option<Calls<'a>>,
    /// It may answer with JSON of this schema.
    pub content: Option<&'a Value>,
}

/// Calls in the syntax of a family.
#[derive(Debug)]
pub struct Calls<'a> {
    /// The text around them.
    pub frame: &'a Frame,
    /// Names, and schemas of the arguments.
    pub tools: Vec<(&'a str, Value)>,
    /// More than one may be made, where the family allows it.
    pub several: bool,
}

impl Outline<'_> {
    /// The grammar.
    pub fn lark(&self) -> String {
        let mut rules = String::new();
        let mut bodies = Vec::new();
        if let Some(calls) = &self.calls {
            bodies.push("calls");
            self.calls(calls, &mut rules);
        }
        if let Some(schema) = self.content {
            bodies.push("content");
            rule(&mut rules, "content", &format!("%json {schema}"));
        }
        let thought = self.thinking.map_or("", |(marks, opened)| self.thought(marks, opened, &mut rules));
        format!("start: {thought} ({})\n{rules}", bodies.join(" | "))
    }

    fn calls(&self, calls: &Calls<'_>, rules: &mut String) {
        let (before, between, after) = calls.frame.around;
        let more = between
            .filter(|_| calls.several)
            .map_or(String::new(), |between| format!("({} call)*", self.text(between)));
        rule(rules, "calls", &format!("{} call {more} {}", self.text(before), self.text(after)));
        let names: Vec<String> = (0..calls.tools.len()).map(|tool| format!("call_{tool}")).collect();
        rule(rules, "call", &names.join(" | "));
        let [before, between, after] = calls.frame.call;
        for (rule_name, (name, schema)) in names.iter().zip(&calls.tools) {
            // As inside of a JSON string, where most families have it; names of tools hardly ever need it.
            let name = Value::from(*name).to_string();
            let name = name.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
            let head = self.text(&format!("{before}{name}{between}"));
            rule(rules, rule_name, &format!("{head} %json {schema} {}", self.text(after)));
        }
    }

    /// The rules of a block of thinking, and how to refer to it.
    fn thought(&self, marks: ThinkingMarks, opened: bool, rules: &mut String) -> &'static str {
        let rest = r"/\n{1,4}/?";
        match self.special.iter().find(|(mark, _)| *mark == marks.close) {
            Some(_) => rule(rules, "thought", &format!("/(?s:.*)/ {} {rest}", self.text(marks.close))),
            None => {
                rule(rules, "thought", &format!("chunk {rest}"));
                writeln!(rules, "chunk[suffix={}]: /(?s:.*)/", Value::from(marks.close)).ok();
            }
        }
        if opened {
            return "thought";
        }
        rule(rules, "block", &format!("{} thought", self.text(marks.open)));
        "block?"
    }

    /// `text` as literals, and special tokens by id.
    fn text(&self, text: &str) -> String {
        let first = self.special.iter().filter_map(|(mark, id)| Some((text.find(mark)?, mark, id))).min();
        match first {
            Some((at, mark, id)) => {
                let (before, after) = (&text[..at], &text[at + mark.len()..]);
                format!("{} <[{id}]> {}", self.text(before), self.text(after))
            }
            None if text.is_empty() => String::new(),
            None => Value::from(text).to_string(),
        }
    }
}

fn rule(rules: &mut String, name: &str, body: &str) {
    // Writing to a string cannot fail.
    writeln!(rules, "{name}: {}", body.trim()).ok();
}
