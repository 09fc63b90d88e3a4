//! [`narrow`]: dates and times that exist. llguidance lets any year have a 29th of February and any minute a 61st second.

use serde_json::{Value, json};

/// Years with a 29th of February.
const LEAP: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";

/// Adds to every part of `schema` with such a format a pattern that leaves out what llguidance lets through beside it.
pub fn narrow(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // What stands below these is data.
            let parts = fields
                .iter_mut()
                .filter(|(key, _)| !["const", "enum", "default", "examples"].contains(&key.as_str()));
            parts.for_each(|(_, part)| narrow(part));
            let Some(pattern) = fields.get("format").and_then(Value::as_str).and_then(pattern) else {
                return;
            };
            if !fields.contains_key("pattern") {
                fields.insert("pattern".to_owned(), pattern.into());
            } else if let Value::Array(all) = fields.entry("allOf").or_insert_with(|| json!([])) {
                all.push(json!({ "pattern": pattern }));
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(narrow),
        _ => {}
    }
}

/// What texts of a format have to match besides.
fn pattern(format: &str) -> Option<String> {
    const TIME: &str = "[0-9]{2}:[0-9]{2}:[0-5]";
    let day = || {
        format!(
            "(?:[0-9]{{4}}-(?:0[13-9]|1[0-2])-[0-9]{{2}}|[0-9]{{4}}-02-(?:[01][0-9]|2[0-8])|{LEAP}-02-29)"
        )
    };
    match format {
        "date" => Some(format!("^{}$", day())),
        "time" => Some(format!("^{TIME}")),
        "date-time" => Some(format!("^{}[tT]{TIME}", day())),
        _ => None,
    }
}
