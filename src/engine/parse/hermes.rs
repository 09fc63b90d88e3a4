//! Hermes, Qwen, Granite 4 and many others: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one block per call.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};

/// The family.
pub const FAMILY: Family = Family {
    openings: &["<tool_call>"],
    bare: false,
    marks: &["</tool_call>"],
    read,
    frame: Frame {
        around: ("", Some("\n"), ""),
        call: ["<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>"],
    },
};

fn read(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    cursor.literal("<tool_call>")?;
    cursor.space();
    let calls = Call::all_from_json(cursor.json()?)?;
    cursor.space();
    cursor.close("</tool_call>")?;
    Ok(calls)
}
