//! The functions a Go template may call: Go's own (but `call`) and the ones Ollama adds. `and` and `or` are in `exec`,
//! because they do not evaluate all their arguments.

use std::cmp::Ordering;
use std::fmt::Write;

use time::macros::format_description;
use time::{Duration, OffsetDateTime};

use super::printf::printf;
use super::value::Value;
use crate::engine::template::MAX_OUTPUT;

/// A function's value, or what is wrong with its arguments.
type Outcome = Result<Value, String>;

/// Every function there is.
const NAMES: [&str; 22] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "println",
    "printf",
    "html",
    "js",
    "urlquery",
    "json",
    "currentDate",
    "yesterdayDate",
    "toTypeScriptType",
];

/// Whether a template may call `name`.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls `name`, which exists.
pub(super) fn call(name: &str, arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("eq", [first, others @ ..]) if !others.is_empty() => equals_any(first, others),
        ("ne", [left, right]) => Ok(Value::Bool(!equal(left, right)?)),
        ("lt", [left, right]) => Ok(Value::Bool(order(left, right)?.is_lt())),
        ("le", [left, right]) => Ok(Value::Bool(order(left, right)?.is_le())),
        ("gt", [left, right]) => Ok(Value::Bool(order(left, right)?.is_gt())),
        ("ge", [left, right]) => Ok(Value::Bool(order(left, right)?.is_ge())),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 3 => slice(value, bounds),
        ("print", values) => joined(values, ""),
        ("println", values) => joined(values, "\n"),
        ("printf", [Value::String(format), values @ ..]) => bounded(printf(format, values)?),
        ("html", values) => bounded(escape(&text(values)?, html)),
        ("js", values) => bounded(escape(&text(values)?, javascript)),
        ("urlquery", values) => bounded(urlquery(&text(values)?)),
        ("json", [value]) => bounded(value.json()),
        // Like Ollama, whatever format is asked for.
        ("currentDate", _) => Ok(date(OffsetDateTime::now_utc())),
        ("yesterdayDate", _) => Ok(date(OffsetDateTime::now_utc() - Duration::DAY)),
        ("toTypeScriptType", [property]) => Ok(type_script(property).into()),
        _ => Err("wrong number or type of arguments".into()),
    }
}

fn equals_any(first: &Value, others: &[Value]) -> Outcome {
    for other in others {
        if equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(left: &Value, right: &Value) -> Result<bool, String> {
    match (left, right) {
        (Value::Nil, _) | (_, Value::Nil) => Ok(matches!((left, right), (Value::Nil, Value::Nil))),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
            Err(format!("can't compare a {} and a {}", left.kind(), right.kind()))
        }
        _ => order(left, right).map(Ordering::is_eq),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, String> {
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        // JSON knows one kind of number, so a template cannot tell which of the two it got.
        (Value::Int(left), Value::Float(right)) => (*left as f64).partial_cmp(right),
        (Value::Float(left), Value::Int(right)) => left.partial_cmp(&(*right as f64)),
        _ => None,
    };
    order.ok_or_else(|| format!("incompatible types for comparison: {} and {}", left.kind(), right.kind()))
}

fn length(value: &Value) -> Outcome {
    let length = match value {
        Value::String(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Map(fields) => fields.len(),
        Value::Nil => 0,
        other => return Err(format!("a {} has no length", other.kind())),
    };
    Ok(integer(length))
}

/// Lengths are bounded by memory, far below `i64`.
fn integer(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn index(value: &Value, key: &Value) -> Outcome {
    match (value, key) {
        (Value::Map(_), Value::String(key)) => Ok(value.entry(key)),
        (Value::List(list), Value::Int(at)) => {
            let item = usize::try_from(*at).ok().and_then(|at| list.items().get(at));
            item.cloned().ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::String(text), Value::Int(at)) => {
            let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
            byte.map(|byte| Value::Int(i64::from(*byte))).ok_or_else(|| format!("index out of range: {at}"))
        }
        (value, key) => Err(format!("can't index a {} with a {}", value.kind(), key.kind())),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Outcome {
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(bound)) => {
            usize::try_from(*bound).map_err(|_| format!("index out of range: {bound}"))
        }
        Some(other) => Err(format!("can't slice with a {}", other.kind())),
    };
    match value {
        Value::String(text) => {
            let part = text.get(bound(0, 0)?..bound(1, text.len())?);
            part.map(Value::from).ok_or_else(|| "out of range, or inside a character".into())
        }
        Value::List(list) => {
            let part = list.slice(bound(0, 0)?, bound(1, list.items().len())?);
            part.map(Value::List).ok_or_else(|| "index out of range".into())
        }
        other => Err(format!("can't slice a {}", other.kind())),
    }
}

/// Go's `Sprint` without an `end`: a space between values neither of which is a string. With one, `Sprintln`: always.
fn joined(values: &[Value], end: &str) -> Outcome {
    let mut output = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_string = |value: &Value| matches!(value, Value::String(_));
        if at > 0 && (!end.is_empty() || !(is_string(value) || is_string(&values[at - 1]))) {
            output.push(' ');
        }
        output.push_str(&value.print());
        if output.len() > MAX_OUTPUT {
            return Err("the text is too long".into());
        }
    }
    bounded(output + end)
}

fn text(values: &[Value]) -> Result<String, String> {
    Ok(joined(values, "")?.print())
}

fn bounded(text: String) -> Outcome {
    if text.len() > MAX_OUTPUT { Err("the text is too long".into()) } else { Ok(text.into()) }
}

fn escape(text: &str, replacement: impl Fn(char) -> Option<&'static str>) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        match replacement(character) {
            Some(replacement) => output.push_str(replacement),
            None => output.push(character),
        }
    }
    output
}

fn html(character: char) -> Option<&'static str> {
    match character {
        '"' => Some("&#34;"),
        '\'' => Some("&#39;"),
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '\0' => Some("\u{fffd}"),
        _ => None,
    }
}

fn javascript(character: char) -> Option<&'static str> {
    match character {
        '\\' => Some(r"\\"),
        '\'' => Some(r"\'"),
        '"' => Some(r#"\""#),
        '<' => Some(r"\u003C"),
        '>' => Some(r"\u003E"),
        '&' => Some(r"\u0026"),
        '=' => Some(r"\u003D"),
        '\n' => Some(r"\u000A"),
        '\r' => Some(r"\u000D"),
        '\t' => Some(r"\u0009"),
        _ => None,
    }
}

fn urlquery(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                output.push(char::from(byte))
            }
            b' ' => output.push('+'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(output, "%{byte:02X}");
            }
        }
    }
    output
}

fn date(time: OffsetDateTime) -> Value {
    time.format(format_description!("[year]-[month]-[day]")).unwrap_or_default().into()
}

/// The TypeScript type of a JSON schema property, as Ollama spells it.
fn type_script(property: &Value) -> String {
    let name = |kind: &Value| match kind {
        Value::String(kind) => match &**kind {
            "string" => "string",
            "number" | "integer" => "number",
            "boolean" => "boolean",
            "array" => "any[]",
            "object" => "Record<string, any>",
            "null" => "null",
            _ => "any",
        },
        _ => "any",
    };
    let union = |parts: Vec<String>| if parts.is_empty() { "any".into() } else { parts.join(" | ") };
    match (property.entry("anyOf"), property.entry("type")) {
        (Value::List(choices), _) if !choices.items().is_empty() => {
            union(choices.items().iter().map(type_script).collect())
        }
        (_, Value::List(kinds)) => union(kinds.items().iter().map(|kind| name(kind).to_owned()).collect()),
        (_, kind) => name(&kind).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(name: &str, arguments: serde_json::Value) -> Outcome {
        let arguments: Vec<Value> = arguments.as_array().unwrap().iter().map(Value::from).collect();
        call(name, &arguments)
    }

    #[test]
    fn comparisons_follow_go() {
        assert_eq!(value("eq", json!(["a", "b", "a"])), Ok(true.into()));
        assert_eq!(value("eq", json!([null, "a"])), Ok(false.into()));
        assert_eq!(value("ne", json!([1, 2])), Ok(true.into()));
        assert_eq!(value("eq", json!([1, 1.0])), Ok(true.into()));
        assert_eq!(value("lt", json!(["a", "b"])), Ok(true.into()));
        assert_eq!(value("ge", json!([2, 2])), Ok(true.into()));
        assert!(value("eq", json!(["1", 1])).is_err());
        assert!(value("lt", json!([true, false])).is_err());
        assert!(value("eq", json!([1])).is_err());
    }

    #[test]
    fn index_and_slice_stay_inside() {
        assert_eq!(value("index", json!([[[1, 2]], 0, 1])), Ok(Value::Int(2)));
        assert_eq!(value("index", json!([{"a": 1}, "a"])), Ok(Value::Int(1)));
        assert_eq!(value("index", json!([{"a": 1}, "b"])), Ok(Value::Nil));
        assert!(value("index", json!([[1], 1])).is_err());
        assert!(value("index", json!([[1], -1])).is_err());
        assert_eq!(value("slice", json!(["abc", 1, 2])), Ok("b".into()));
        assert!(value("slice", json!(["é", 1])).is_err());
        assert!(value("slice", json!([[1], 2])).is_err());
    }

    #[test]
    fn printing_puts_spaces_where_go_does() {
        assert_eq!(value("print", json!(["a", 1, 2, "b", "c"])), Ok("a1 2bc".into()));
        assert_eq!(value("println", json!(["a", 1])), Ok("a 1\n".into()));
        assert_eq!(value("html", json!(["<a href='x'>"])), Ok("&lt;a href=&#39;x&#39;&gt;".into()));
        assert_eq!(value("js", json!(["a='b'\n"])), Ok(r"a\u003D\'b\'\u000A".into()));
        assert_eq!(value("urlquery", json!(["a b&é"])), Ok("a+b%26%C3%A9".into()));
    }

    #[test]
    fn schema_properties_have_type_script_types() {
        let property = |json| value("toTypeScriptType", json!([json]));
        assert_eq!(property(json!({"type": "integer"})), Ok("number".into()));
        assert_eq!(property(json!({"type": ["string", "null"]})), Ok("string | null".into()));
        assert_eq!(
            property(json!({"anyOf": [{"type": "array"}, {"type": "object"}]})),
            Ok("any[] | Record<string, any>".into())
        );
        assert_eq!(property(json!({})), Ok("any".into()));
    }

    #[test]
    fn dates_have_the_form_year_month_day() {
        let (Ok(Value::String(today)), Ok(Value::String(yesterday))) =
            (value("currentDate", json!([])), value("yesterdayDate", json!([])))
        else {
            panic!("dates are strings")
        };
        assert_eq!(today.len(), 10);
        assert!(yesterday < today);
    }
}
