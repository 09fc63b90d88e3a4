//! Builds the tree of a Go template from its tokens.

use std::collections::HashMap;

use super::ast::{Branch, BranchKind, Node, Operand, Pipeline};
use super::functions;
use super::lexer::{Lexeme, Token, lex};
use super::value::Value;
use crate::engine::template::{Limit, TemplateError};

/// Blocks and parentheses may nest this deep.
const MAX_DEPTH: usize = 100;

/// A body, and the bodies of `define` and `block` by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Templates {
    pub root: Vec<Node>,
    pub named: HashMap<String, Vec<Node>>,
}

/// Parses a whole source.
pub(super) fn parse(source: &str) -> Result<Templates, TemplateError> {
    let lexemes = lex(source)?;
    let mut parser = Parser { lexemes: &lexemes, next: 0, depth: 0, loops: 0, named: HashMap::new() };
    let (root, end) = parser.body()?;
    match end {
        None => Ok(Templates { root, named: parser.named }),
        Some(end) => parser.error(format!("unexpected {{{{{}}}}}", end.keyword())),
    }
}

/// What a body ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    End,
    Else,
}

impl End {
    fn keyword(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Else => "else",
        }
    }
}

struct Parser<'a> {
    lexemes: &'a [Lexeme],
    next: usize,
    depth: usize,
    /// Loops around this place, so that `break` has one to leave.
    loops: usize,
    named: HashMap<String, Vec<Node>>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.lexemes.get(self.next).map(|lexeme| &lexeme.token)
    }

    fn spaced(&self) -> bool {
        self.lexemes.get(self.next).is_some_and(|lexeme| lexeme.spaced)
    }

    fn line(&self) -> usize {
        let lexeme = self.lexemes.get(self.next).or(self.lexemes.last());
        lexeme.map_or(1, |lexeme| lexeme.line)
    }

    fn accept(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    /// Whether the next token is this keyword; passes it if so.
    fn accept_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.next += usize::from(found);
        found
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Syntax { line: self.line(), message: message.into() })
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        if self.accept(&Token::Close) { Ok(()) } else { self.error("expected }}") }
    }

    fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == MAX_DEPTH {
            return Err(TemplateError::Limit(Limit::Depth));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Nodes up to the end of the source (`None`), `{{end}}` (passed whole) or `{{else` (what follows is not).
    fn body(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.peek() {
            self.next += 1;
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text.clone()));
                continue;
            }
            if self.accept_word("end") {
                self.close()?;
                return Ok((nodes, Some(End::End)));
            }
            if self.accept_word("else") {
                return Ok((nodes, Some(End::Else)));
            }
            nodes.extend(self.nested(Self::action)?);
        }
        Ok((nodes, None))
    }

    /// One action after `{{`, blocks to their end. A definition leaves no node.
    fn action(&mut self) -> Result<Option<Node>, TemplateError> {
        let node = match self.peek() {
            Some(Token::Word(word)) => match word.as_str() {
                "if" => self.branch(BranchKind::If)?,
                "with" => self.branch(BranchKind::With)?,
                "range" => self.branch(BranchKind::Range)?,
                "break" => self.jump(Node::Break)?,
                "continue" => self.jump(Node::Continue)?,
                "template" => self.template()?,
                "block" => self.block()?,
                "define" => {
                    self.define()?;
                    return Ok(None);
                }
                _ => self.print()?,
            },
            _ => self.print()?,
        };
        Ok(Some(node))
    }

    fn print(&mut self) -> Result<Node, TemplateError> {
        let pipeline = self.pipeline(1)?;
        self.close()?;
        Ok(Node::Action(pipeline))
    }

    fn jump(&mut self, node: Node) -> Result<Node, TemplateError> {
        if self.loops == 0 {
            return self.error("break or continue outside range");
        }
        self.next += 1;
        self.close()?;
        Ok(node)
    }

    /// At the keyword; `{{else if x}}` stands for `{{else}}{{if x}}…{{end}}` and shares the end.
    fn branch(&mut self, kind: BranchKind) -> Result<Node, TemplateError> {
        self.next += 1;
        let pipeline = self.pipeline(if kind == BranchKind::Range { 2 } else { 1 })?;
        self.close()?;
        let is_loop = usize::from(kind == BranchKind::Range);
        self.loops += is_loop;
        let (body, end) = self.body()?;
        self.loops -= is_loop;
        let otherwise = match end {
            None => return self.error("unexpected end of the template: a block lacks {{end}}"),
            Some(End::End) => Vec::new(),
            Some(End::Else) => self.otherwise(kind)?,
        };
        Ok(Node::Branch(Branch { kind, pipeline, body, otherwise }))
    }

    /// After `{{else`.
    fn otherwise(&mut self, kind: BranchKind) -> Result<Vec<Node>, TemplateError> {
        let chained = match (kind, self.peek()) {
            (BranchKind::If, Some(Token::Word(word))) => word == "if",
            (BranchKind::With, Some(Token::Word(word))) => word == "with",
            _ => false,
        };
        if chained {
            return Ok(vec![self.nested(|parser| parser.branch(kind))?]);
        }
        self.close()?;
        match self.body()? {
            (nodes, Some(End::End)) => Ok(nodes),
            _ => self.error("expected {{end}} after {{else}}"),
        }
    }

    fn name(&mut self) -> Result<String, TemplateError> {
        if let Some(Token::Literal(Value::String(name))) = self.peek() {
            self.next += 1;
            return Ok(name.to_string());
        }
        self.error("expected a template's name in quotes")
    }

    fn template(&mut self) -> Result<Node, TemplateError> {
        let line = self.line();
        self.next += 1;
        let name = self.name()?;
        let data = if self.peek() == Some(&Token::Close) { None } else { Some(self.pipeline(1)?) };
        self.close()?;
        Ok(Node::Template { name, data, line })
    }

    fn block(&mut self) -> Result<Node, TemplateError> {
        let line = self.line();
        self.next += 1;
        let name = self.name()?;
        let data = self.pipeline(1)?;
        self.definition(name.clone())?;
        Ok(Node::Template { name, data: Some(data), line })
    }

    fn define(&mut self) -> Result<(), TemplateError> {
        self.next += 1;
        let name = self.name()?;
        self.definition(name)
    }

    fn definition(&mut self, name: String) -> Result<(), TemplateError> {
        self.close()?;
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.body()?;
        self.loops = loops;
        if end != Some(End::End) {
            return self.error(format!("expected {{{{end}}}} of template {name:?}"));
        }
        self.named.insert(name, body);
        Ok(())
    }

    /// A pipeline that sets at most `most` variables, up to but without its `}}` or `)`.
    fn pipeline(&mut self, most: usize) -> Result<Pipeline, TemplateError> {
        let line = self.line();
        let (variables, declares) = self.variables(most)?;
        let mut commands = vec![self.command()?];
        while self.accept(&Token::Pipe) {
            commands.push(self.command()?);
        }
        // Only a function takes the value that the command before it hands on.
        if commands.iter().skip(1).any(|command| !matches!(command.first(), Some(Operand::Function(_)))) {
            return self.error("non executable command in pipeline");
        }
        Ok(Pipeline { line, variables, declares, commands })
    }

    fn variables(&mut self, most: usize) -> Result<(Vec<String>, bool), TemplateError> {
        let mut variables = Vec::new();
        let start = self.next;
        while let Some(Token::Variable(name)) = self.peek() {
            self.next += 1;
            variables.push(name.clone());
            if !self.accept(&Token::Comma) {
                break;
            }
        }
        let declares = match self.peek() {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            // Not a declaration: the variable is an operand.
            _ => {
                self.next = start;
                return Ok((Vec::new(), false));
            }
        };
        if variables.is_empty() || variables.len() > most {
            return self.error("wrong number of variables before := or =");
        }
        self.next += 1;
        Ok((variables, declares))
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while !matches!(self.peek(), None | Some(Token::Close | Token::Right | Token::Pipe)) {
            if !operands.is_empty() && !self.spaced() {
                return self.error("operands must be separated by white space");
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() {
            return self.error("missing value");
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let Some(token) = self.peek() else { return self.error("unexpected end of the template") };
        self.next += 1;
        let operand = match token {
            Token::Dot => Operand::Dot,
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Nil),
                name if functions::exists(name) => Operand::Function(word.clone()),
                _ => {
                    self.next -= 1;
                    return self.error(format!("function {word:?} not defined"));
                }
            },
            Token::Field(name) => {
                let mut fields = vec![name.clone()];
                fields.extend(self.fields());
                Operand::Field(fields)
            }
            Token::Variable(name) => Operand::Variable(name.clone(), self.fields()),
            Token::Left => {
                let pipeline = self.nested(|parser| parser.pipeline(1))?;
                if !self.accept(&Token::Right) {
                    return self.error("expected )");
                }
                Operand::Parenthesis(Box::new(pipeline), self.fields())
            }
            _ => {
                self.next -= 1;
                return self.error("unexpected token in operand");
            }
        };
        Ok(operand)
    }

    /// The fields that follow an operand without white space.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while let (Some(Token::Field(name)), false) = (self.peek(), self.spaced()) {
            self.next += 1;
            fields.push(name.clone());
        }
        fields
    }
}
