//! Llama 3: a bare `{"name": …, "parameters": {…}}` as the whole answer, behind `<|python_tag|>` also later. Several are told apart by
//! a semicolon.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};
use super::generic::bare;

/// The family. The templates of these models refuse more than one call in a turn.
pub const FAMILY: Family = Family {
    openings: &["<|python_tag|>"],
    bare: true,
    marks: &[],
    read,
    frame: Frame { around: ("", None, ""), call: ["{\"name\": \"", "\", \"parameters\": ", "}"] },
};

fn read(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    if !cursor.rest().starts_with(['{', '[']) {
        cursor.literal("<|python_tag|>")?;
        cursor.space();
    }
    bare(cursor)
}
