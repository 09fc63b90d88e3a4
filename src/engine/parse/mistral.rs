//! Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, and since 2025 `[TOOL_CALLS]name[ARGS]{…}` for each call, with
//! `[CALL_ID]id` after the name in some versions. A model of either kind is read in both.

use serde_json::json;

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};

/// The older models.
pub const LISTS: Family = Family {
    openings: &["[TOOL_CALLS]"],
    bare: false,
    marks: &["[ARGS]", "[CALL_ID]"],
    read,
    frame: Frame {
        around: ("[TOOL_CALLS][", Some(", "), "]"),
        call: ["{\"name\": \"", "\", \"arguments\": ", "}"],
    },
};

/// The newer ones.
pub const WITH_NAMES: Family =
    Family { frame: Frame { around: ("", Some(""), ""), call: ["[TOOL_CALLS]", "[ARGS]", ""] }, ..LISTS };

fn read(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    cursor.literal("[TOOL_CALLS]")?;
    cursor.space();
    if cursor.rest().starts_with(['[', '{']) {
        return Call::all_from_json(cursor.json()?);
    }
    let is_name = |c: char| !c.is_whitespace() && !matches!(c, '[' | '{');
    let name = cursor.word(is_name)?;
    let mut id = None;
    if cursor.rest().starts_with('[') && cursor.any(&["[CALL_ID]", "[ARGS]"])? == "[CALL_ID]" {
        id = Some(cursor.word(is_name)?);
        cursor.literal("[ARGS]")?;
    }
    cursor.space();
    let arguments = cursor.json()?;
    Ok(vec![Call::from_json(json!({"id": id, "name": name, "arguments": arguments}))?])
}
