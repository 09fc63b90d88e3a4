//! [`Family`]: the ways in which models write tool calls, each in a file of its own.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::{gemma, generic, granite, hermes, llama, mistral};

/// How the models of one family write calls.
#[derive(Debug)]
pub struct Family {
    /// What opens a call, wherever it stands.
    pub openings: &'static [&'static str],
    /// Whether a JSON object or array at the very beginning of an answer, or right after such a call, opens one too.
    pub bare: bool,
    /// Further marks. Where marks are special tokens, which have no text otherwise, they are shown to the parser.
    pub marks: &'static [&'static str],
    /// Reads the calls of a block from its opening on.
    pub read: fn(&mut Cursor<'_>) -> Result<Vec<Call>, Stop>,
    /// How calls are written that the model has to make.
    pub frame: Frame,
}

/// The text around calls.
#[derive(Debug)]
pub struct Frame {
    /// Before the first call, between two (`None`: the family makes one at a time), after the last.
    pub around: (&'static str, Option<&'static str>, &'static str),
    /// Before the name of the tool, before its arguments, after them.
    pub call: [&'static str; 3],
}

impl Family {
    /// The family of a chat template, by the marks it mentions.
    pub fn of(template: &str) -> &'static Self {
        let mentions = |mark| template.contains(mark);
        match () {
            () if mentions("[TOOL_CALLS]") && mentions("[ARGS]") => &mistral::WITH_NAMES,
            () if mentions("[TOOL_CALLS]") => &mistral::LISTS,
            () if mentions("<|tool_call|>") => &granite::FAMILY,
            () if mentions("<tool_call>") => &hermes::FAMILY,
            () if mentions("<|start_of_role|>") => &granite::FAMILY,
            () if mentions("<start_of_turn>") => &gemma::FAMILY,
            () if mentions("<|python_tag|>") || mentions("ipython") => &llama::FAMILY,
            () => &generic::FAMILY,
        }
    }
}
