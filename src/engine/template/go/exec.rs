//! Runs a parsed Go template over its data, within limits.

use super::ast::{Branch, BranchKind, Node, Operand, Pipeline};
use super::functions;
use super::parse::Templates;
use super::value::Value;
use crate::engine::template::{Limit, MAX_OUTPUT, TemplateError};

/// Nodes, operands and 16-byte pieces of text a run may handle: about a second of work, and 320 MB of text.
const MAX_STEPS: usize = 20_000_000;
/// Nested blocks, parentheses and template calls. Keeps the recursion within half a thread's usual stack.
const MAX_DEPTH: usize = 200;
/// Variables alive at once.
const MAX_VARIABLES: usize = 1000;

/// Runs `root`, one of `templates` or a part of it, with `data` as `.` and `$`.
pub(super) fn execute(templates: &Templates, root: &[Node], data: Value) -> Result<String, TemplateError> {
    let mut run = Run {
        templates,
        output: String::new(),
        variables: vec![("", data.clone())],
        steps: 0,
        depth: 0,
        line: 1,
    };
    run.body(root, &data)?;
    Ok(run.output)
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    templates: &'a Templates,
    output: String,
    /// Innermost last; the empty name is `$`.
    variables: Vec<(&'a str, Value)>,
    steps: usize,
    depth: usize,
    /// Of the pipeline at work, for messages.
    line: usize,
}

type Evaluated = Result<Value, TemplateError>;

impl<'a> Run<'a> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Render { line: self.line, message: message.into() })
    }

    fn spend(&mut self, bytes: usize) -> Result<(), TemplateError> {
        self.steps += 1 + bytes / 16;
        if self.steps > MAX_STEPS { Err(TemplateError::Limit(Limit::Steps)) } else { Ok(()) }
    }

    fn emit(&mut self, text: &str) -> Result<(), TemplateError> {
        self.spend(text.len())?;
        if text.len() > MAX_OUTPUT - self.output.len() {
            return Err(TemplateError::Limit(Limit::Output));
        }
        self.output.push_str(text);
        Ok(())
    }

    fn nested<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == MAX_DEPTH {
            return Err(TemplateError::Limit(Limit::Depth));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn body(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => self.emit(text).map(|()| Flow::Next)?,
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.emit(&value.print())?;
                    }
                    Flow::Next
                }
                Node::Branch(branch) => self.scoped(|run| run.branch(branch, dot))?,
                Node::Template { name, data, line } => {
                    self.call(name, data.as_ref(), *line, dot)?;
                    Flow::Next
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// One level deeper; variables declared there end with it.
    fn scoped<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        let outside = self.variables.len();
        let result = self.nested(work);
        self.variables.truncate(outside);
        result
    }

    fn branch(&mut self, branch: &'a Branch, dot: &Value) -> Result<Flow, TemplateError> {
        if branch.kind == BranchKind::Range {
            return self.range(branch, dot);
        }
        let value = self.pipeline(&branch.pipeline, dot)?;
        match (value.truth(), branch.kind) {
            (true, BranchKind::With) => self.body(&branch.body, &value),
            (true, _) => self.body(&branch.body, dot),
            (false, _) => self.body(&branch.otherwise, dot),
        }
    }

    fn range(&mut self, branch: &'a Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let over = self.commands(&branch.pipeline, dot)?;
        let mut ran = false;
        let mut iterate = |run: &mut Self, key: Value, item: Value| {
            ran = true;
            run.scoped(|run| {
                run.bind(&branch.pipeline, key, &item)?;
                run.body(&branch.body, &item)
            })
        };
        match &over {
            Value::Nil => {}
            Value::Int(count) => {
                for index in 0..*count {
                    if iterate(self, Value::Int(index), Value::Int(index))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for (index, item) in (0..).zip(list.items()) {
                    if iterate(self, Value::Int(index), item.clone())? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(fields) => {
                for (key, item) in fields.iter() {
                    if iterate(self, Value::String(key.clone()), item.clone())? == Flow::Break {
                        break;
                    }
                }
            }
            other => return self.error(format!("range can't iterate over a {}", other.kind())),
        }
        if ran { Ok(Flow::Next) } else { self.body(&branch.otherwise, dot) }
    }

    /// Sets the variables of a `range`: the last one is the item, one before it the key.
    fn bind(&mut self, pipeline: &'a Pipeline, key: Value, item: &Value) -> Result<(), TemplateError> {
        self.spend(0)?;
        match pipeline.variables.as_slice() {
            [] => Ok(()),
            [name] => self.set(name, pipeline.declares, item.clone()),
            [first, second, ..] => {
                self.set(first, pipeline.declares, key)?;
                self.set(second, pipeline.declares, item.clone())
            }
        }
    }

    fn call(
        &mut self,
        name: &str,
        data: Option<&'a Pipeline>,
        line: usize,
        dot: &Value,
    ) -> Result<(), TemplateError> {
        let data = match data {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        let Some(body) = self.templates.named.get(name) else {
            self.line = line;
            return self.error(format!("template {name:?} not defined"));
        };
        // A template sees its own `$` and none of its caller's variables.
        let outside = std::mem::replace(&mut self.variables, vec![("", data.clone())]);
        self.nested(|run| run.body(body, &data))?;
        self.variables = outside;
        Ok(())
    }

    fn set(&mut self, name: &'a str, declares: bool, value: Value) -> Result<(), TemplateError> {
        if declares {
            if self.variables.len() == MAX_VARIABLES {
                return self.error(format!("more than {MAX_VARIABLES} variables"));
            }
            self.variables.push((name, value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, variable)) => {
                *variable = value;
                Ok(())
            }
            None => self.error(format!("undefined variable ${name}")),
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Evaluated {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, pipeline.declares, value.clone())?;
        }
        Ok(value)
    }

    /// The value of a pipeline, its variables left alone.
    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Evaluated {
        self.line = pipeline.line;
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        self.line = pipeline.line;
        Ok(piped.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &'a [Operand], piped: Option<Value>, dot: &Value) -> Evaluated {
        let Some((first, arguments)) = command.split_first() else { return Ok(Value::Nil) };
        let Operand::Function(name) = first else {
            if !arguments.is_empty() {
                return self.error("can't give an argument to what is not a function");
            }
            return self.operand(first, dot);
        };
        if matches!(name.as_str(), "and" | "or") {
            return self.short_circuit(name == "or", arguments, piped, dot);
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(piped);
        self.spend(values.iter().map(Value::size).sum())?;
        let value = match functions::call(name, &values) {
            Ok(value) => value,
            Err(message) => return self.error(format!("{name}: {message}")),
        };
        self.spend(value.size())?;
        Ok(value)
    }

    /// `and`, `or`: the first value that decides, else the last; what comes after is not evaluated.
    fn short_circuit(
        &mut self,
        decisive: bool,
        arguments: &'a [Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Evaluated {
        let mut last = None;
        for argument in arguments {
            let value = self.operand(argument, dot)?;
            if value.truth() == decisive {
                return Ok(value);
            }
            last = Some(value);
        }
        match piped.or(last) {
            Some(value) => Ok(value),
            None => self.error("and, or: missing argument"),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Evaluated {
        self.spend(0)?;
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(fields) => self.fields(dot.clone(), fields),
            Operand::Variable(name, fields) => {
                match self.variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => self.fields(value.clone(), fields),
                    None => self.error(format!("undefined variable ${name}")),
                }
            }
            Operand::Parenthesis(pipeline, fields) => {
                let value = self.nested(|run| run.pipeline(pipeline, dot))?;
                self.fields(value, fields)
            }
            Operand::Function(_) => self.command(std::slice::from_ref(operand), None, dot),
        }
    }

    fn fields(&mut self, value: Value, fields: &[String]) -> Evaluated {
        fields.iter().try_fold(value, |value, name| {
            self.spend(value.size())?;
            value.field(name).or_else(|message| self.error(message))
        })
    }
}
