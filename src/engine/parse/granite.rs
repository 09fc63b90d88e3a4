//! Granite 3: `<|tool_call|>[{"name": …, "arguments": {…}}, …]`, later versions with `<tool_call>` in front. Nothing closes the list.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};

/// The family.
pub const FAMILY: Family = Family {
    openings: &["<|tool_call|>", "<tool_call>"],
    bare: false,
    marks: &[],
    read,
    frame: Frame {
        around: ("<|tool_call|>[", Some(", "), "]"),
        call: ["{\"name\": \"", "\", \"arguments\": ", "}"],
    },
};

fn read(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    cursor.any(FAMILY.openings)?;
    cursor.space();
    Call::all_from_json(cursor.json()?)
}
