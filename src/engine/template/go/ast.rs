//! The tree of a parsed Go template.

use super::value::Value;

/// One piece of a template's body.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Copied to the output.
    Text(String),
    /// `{{ pipeline }}`: printed, unless it only sets variables.
    Action(Pipeline),
    /// `{{ if }}`, `{{ with }}`, `{{ range }}`.
    Branch(Branch),
    /// `{{ template "name" pipeline }}`.
    Template { name: String, data: Option<Pipeline>, line: usize },
    /// `{{ break }}`.
    Break,
    /// `{{ continue }}`.
    Continue,
}

/// A control structure: its bodies run depending on the pipeline's value.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub kind: BranchKind,
    pub pipeline: Pipeline,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BranchKind {
    If,
    With,
    Range,
}

/// `$a, $b := command | command …`.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub line: usize,
    /// Variables it sets, without the `$`: one, or two in a `range`.
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    /// Never empty. The value of one is the last argument of the next.
    pub commands: Vec<Vec<Operand>>,
}

/// One word of a command. The first is what is evaluated, the others its arguments; there is always a first.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    /// `.`
    Dot,
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`; the empty name is `$`.
    Variable(String, Vec<String>),
    /// A function's name.
    Function(String),
    /// `nil`, a string, number or bool.
    Literal(Value),
    /// `(pipeline).A.B`
    Parenthesis(Box<Pipeline>, Vec<String>),
}

/// Whether a field or variable called `name`, upper or lower case, occurs anywhere in `nodes`.
pub(super) fn mentions(nodes: &[Node], name: &str) -> bool {
    nodes.iter().any(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => false,
        Node::Action(pipeline) => pipeline.mentions(name),
        Node::Template { data, .. } => data.as_ref().is_some_and(|data| data.mentions(name)),
        Node::Branch(branch) => {
            branch.pipeline.mentions(name)
                || mentions(&branch.body, name)
                || mentions(&branch.otherwise, name)
        }
    })
}

/// Removes what follows the first action that prints `.Response`, in every branch; says whether there was one.
pub(super) fn cut_after_response(nodes: &mut Vec<Node>) -> bool {
    let last = nodes.iter_mut().position(|node| match node {
        Node::Action(pipeline) => pipeline.mentions("Response"),
        Node::Branch(branch) => {
            let in_body = cut_after_response(&mut branch.body);
            cut_after_response(&mut branch.otherwise) || in_body
        }
        _ => false,
    });
    if let Some(last) = last {
        nodes.truncate(last + 1);
    }
    last.is_some()
}

impl Pipeline {
    fn mentions(&self, name: &str) -> bool {
        let among = |fields: &[String]| fields.iter().any(|field| field.eq_ignore_ascii_case(name));
        self.commands.iter().flatten().any(|operand| match operand {
            Operand::Field(fields) => among(fields),
            Operand::Variable(variable, fields) => variable.eq_ignore_ascii_case(name) || among(fields),
            Operand::Parenthesis(pipeline, fields) => pipeline.mentions(name) || among(fields),
            Operand::Dot | Operand::Function(_) | Operand::Literal(_) => false,
        })
    }
}
