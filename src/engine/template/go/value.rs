//! What a Go template computes with. Ollama hands its templates Go structs; here they are JSON objects whose keys answer to
//! the structs' field names as well, so that `.Function.Name` finds `"function"` and `"name"`.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::engine::template::float;

/// A value. Cloning is cheap.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing: `nil`, JSON `null`, a field that is not there. Prints as nothing.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Arc<str>),
    List(List),
    /// In the order of the source.
    Map(Arc<[(Arc<str>, Value)]>),
}

/// A list, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct List {
    items: Arc<[Value]>,
    range: Range<usize>,
}

impl List {
    pub(super) fn items(&self) -> &[Value] {
        &self.items[self.range.clone()]
    }

    /// The part from `start` to `end`; `None` if they are not in order or not inside.
    pub(super) fn slice(&self, start: usize, end: usize) -> Option<Self> {
        self.items().get(start..end)?;
        let offset = self.range.start;
        Some(Self { items: Arc::clone(&self.items), range: offset + start..offset + end })
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.items() == other.items()
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        let items: Arc<[Value]> = items.into_iter().collect();
        Self::List(List { range: 0..items.len(), items })
    }
}

impl<'a> FromIterator<(&'a str, Value)> for Value {
    fn from_iter<I: IntoIterator<Item = (&'a str, Value)>>(fields: I) -> Self {
        Self::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Self::Int(integer),
                None => number.as_f64().map_or(Self::Nil, Self::Float),
            },
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(items) => items.iter().map(Self::from).collect(),
            Json::Object(fields) => {
                fields.iter().map(|(key, field)| (key.as_str(), Self::from(field))).collect()
            }
        }
    }
}

impl Value {
    /// Go's name for what it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// Whether `if` takes it for true: anything but nil, false, zero and the empty.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::List(list) => !list.items().is_empty(),
            Self::Map(fields) => !fields.is_empty(),
        }
    }

    /// About the bytes that a function or a look-up has to go through.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Map(fields) => fields.len() * 16,
            _ => 0,
        }
    }

    /// What a map holds under exactly this key, else nil.
    pub(super) fn entry(&self, key: &str) -> Self {
        self.find(|candidate| candidate == key).unwrap_or(Self::Nil)
    }

    /// The field of a map or struct, nil if it has none. `Err`: neither of the two.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Nil => Ok(Self::Nil),
            Self::Map(_) => Ok(self
                .find(|key| key == name)
                .or_else(|| self.find(|key| is_struct_field(name, key)))
                .unwrap_or(Self::Nil)),
            _ => Err(format!("can't evaluate field {name} in a {}", self.kind())),
        }
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(key, _)| wanted(key)).map(|(_, value)| value.clone())
    }

    /// As `{{ . }}` prints it: a list of plain values as Go does (`[a b]`), anything with structs as JSON.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => go_float(*value, -4..21),
            Self::String(text) => text.to_string(),
            Self::List(list) if list.items().iter().all(Self::is_plain) => {
                let items: Vec<_> = list.items().iter().map(Self::print).collect();
                format!("[{}]", items.join(" "))
            }
            Self::List(_) | Self::Map(_) => self.json(),
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::List(list) => list.items().iter().all(Self::is_plain),
            Self::Map(_) => false,
            _ => true,
        }
    }

    /// As Go's `json.Marshal` writes it: compact, with `<`, `>` and `&` escaped.
    pub(super) fn json(&self) -> String {
        let mut output = String::new();
        self.write_json(&mut output);
        output
    }

    fn write_json(&self, output: &mut String) {
        match self {
            Self::Nil => output.push_str("null"),
            // Unlike `%v`, JSON has no leading zero in the exponents that are left: -7, -8 and -9.
            Self::Float(value) => output.push_str(&go_float(*value, -6..21).replace("e-0", "e-")),
            Self::Bool(_) | Self::Int(_) => output.push_str(&self.print()),
            Self::String(text) => write_json_string(output, text),
            Self::List(list) => {
                output.push('[');
                for (index, item) in list.items().iter().enumerate() {
                    if index > 0 {
                        output.push(',');
                    }
                    item.write_json(output);
                }
                output.push(']');
            }
            Self::Map(fields) => {
                output.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        output.push(',');
                    }
                    write_json_string(output, key);
                    output.push(':');
                    value.write_json(output);
                }
                output.push('}');
            }
        }
    }
}

/// Whether the Go field `name` (`ToolCallID`) is the one that `key` (`tool_call_id`) names in JSON.
fn is_struct_field(name: &str, key: &str) -> bool {
    let letters = |text: &str| -> Vec<u8> {
        text.bytes()
            .filter(|byte| !matches!(byte, b'_' | b'$'))
            .map(|byte| byte.to_ascii_lowercase())
            .collect()
    };
    name.starts_with(|c: char| c.is_ascii_uppercase()) && letters(name) == letters(key)
}

fn go_float(value: f64, plain: Range<i32>) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    float::shortest(value, plain)
}

fn write_json_string(output: &mut String, text: &str) {
    output.push('"');
    for character in text.chars() {
        match character {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\r' => output.push_str("\\r"),
            '\t' => output.push_str("\\t"),
            '\u{8}' => output.push_str("\\b"),
            '\u{c}' => output.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(output, "\\u{:04x}", u32::from(character));
            }
            _ => output.push(character),
        }
    }
    output.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn struct_fields_find_their_json_keys_and_the_exact_key_wins() {
        let call = Value::from(&json!({"tool_call_id": 1, "anyOf": 2, "$defs": 3, "name": 4, "Name": 5}));
        for (field, expected) in [("ToolCallID", 1), ("AnyOf", 2), ("Defs", 3), ("Name", 5), ("name", 4)] {
            assert_eq!(call.field(field), Ok(Value::Int(expected)), "{field}");
        }
        assert_eq!(call.field("anyof"), Ok(Value::Nil));
        assert!(Value::Int(1).field("X").is_err());
    }

    #[test]
    fn plain_lists_print_as_in_go_and_structs_as_json() {
        let print = |json| Value::from(&json).print();
        assert_eq!(print(json!(["a", 1, true, [1.5, 2.0]])), "[a 1 true [1.5 2]]");
        assert_eq!(
            print(json!([{"b": 1, "a": [null, "<é>\n"]}])),
            r#"[{"b":1,"a":[null,"\u003cé\u003e\n"]}]"#
        );
        assert_eq!(print(json!([])), "[]");
        assert_eq!(print(json!({"x": 1e21, "y": 1e-7})), r#"{"x":1e+21,"y":1e-7}"#);
    }

    #[test]
    fn a_slice_of_a_slice_stays_inside_it() {
        let Value::List(list) = Value::from(&json!([0, 1, 2, 3])) else { panic!("a list") };
        let part = list.slice(1, 3).unwrap();
        assert_eq!(part.items(), [Value::Int(1), Value::Int(2)]);
        assert_eq!(part.slice(1, 2).unwrap().items(), [Value::Int(2)]);
        assert!(part.slice(1, 3).is_none());
        assert!(list.slice(3, 1).is_none());
    }
}
