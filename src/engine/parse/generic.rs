//! Families without a syntax of their own here: a bare `{"name": …, "arguments": {…}}`, or a list of such, as the whole answer.

use super::call::Call;
use super::cursor::{Cursor, Stop};
use super::family::{Family, Frame};

/// The family.
pub const FAMILY: Family = Family {
    openings: &[],
    bare: true,
    marks: &[],
    read: bare,
    frame: Frame { around: ("", None, ""), call: ["{\"name\": \"", "\", \"arguments\": ", "}"] },
};

/// The keys that a call, or an object around one, may begin with: by them a JSON answer that is no call is soon told.
const KEYS: &[&str] = &["\"name\"", "\"arguments\"", "\"parameters\"", "\"type\"", "\"function\"", "\"id\""];

/// Reads bare calls.
pub fn bare(cursor: &mut Cursor<'_>) -> Result<Vec<Call>, Stop> {
    let mut ahead = cursor.clone();
    if ahead.rest().starts_with('[') {
        ahead.literal("[")?;
        ahead.space();
    }
    ahead.literal("{")?;
    ahead.space();
    ahead.any(KEYS)?;
    Call::all_from_json(cursor.json()?)
}
