//! Gemma: a fenced block, ```` ```tool_code ````, of JSON calls or of Python calls with named arguments, as its documentation has it.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};
use super::generic::bare;
use super::python;

/// The family.
pub const FAMILY: Family = Family {
    openings: &["```tool_code", "```tool_call", "```json"],
    bare: true,
    marks: &[],
    read,
    frame: Frame {
        around: ("", Some("\n"), ""),
        call: ["```tool_code\n{\"name\": \"", "\", \"arguments\": ", "}\n```"],
    },
};

fn read(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    if cursor.rest().starts_with(['{', '[']) {
        return bare(cursor);
    }
    cursor.any(FAMILY.openings)?;
    cursor.space();
    if !cursor.rest().is_empty() && !cursor.rest().starts_with(['{', '[']) {
        let code = cursor.until("```")?;
        return python::calls(code).ok_or(Stop::Not);
    }
    let calls = Call::all_from_json(cursor.json()?)?;
    cursor.space();
    cursor.close("```")?;
    Ok(calls)
}
