//! The `tojson` filter of Hugging Face chat templates: Python's `json.dumps` with `ensure_ascii=False` by default, so spaces
//! after separators, key order kept and nothing escaped for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::engine::template::{MAX_OUTPUT, float};

/// A value nested deeper than this is refused; clients' JSON stops at 128.
const MAX_DEPTH: usize = 150;
/// The widest indentation; guards against `indent=10**9`.
const MAX_INDENT: usize = 64;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let ascii = match ensure_ascii {
        Some(ascii) => ascii,
        None => options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(indent) => Some(indentation(&indent)?),
    };
    let separators = match options.get::<Option<Vec<String>>>("separators")? {
        Some(given) => <[String; 2]>::try_from(given).map_err(|_| invalid("separators must be a pair"))?,
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(Into::into),
    };
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut writer = Writer { output: String::new(), ascii, indent, separators, sort };
    writer.value(value, 0)?;
    Ok(Value::from(writer.output))
}

fn indentation(indent: &Value) -> Result<String, Error> {
    match (indent.as_str(), indent.as_i64()) {
        (Some(text), _) if text.len() <= MAX_INDENT => Ok(text.into()),
        (None, Some(width)) if width <= MAX_INDENT as i64 => {
            Ok(" ".repeat(usize::try_from(width).unwrap_or(0)))
        }
        _ => Err(invalid("indent must be a small number or a short text")),
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

struct Writer {
    output: String,
    ascii: bool,
    indent: Option<String>,
    /// Between items, and between a key and its value.
    separators: [String; 2],
    sort: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH || self.output.len() > MAX_OUTPUT {
            return Err(invalid("tojson: the value is too deep or too large"));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth),
            ValueKind::Map => self.map(value, depth),
            ValueKind::String => {
                self.string(value.as_str().unwrap_or_default());
                Ok(())
            }
            _ => {
                let text = scalar(value)
                    .ok_or_else(|| invalid(format!("tojson: {} is not JSON serializable", value.kind())))?;
                self.output.push_str(&text);
                Ok(())
            }
        }
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.output.push('[');
        let mut empty = true;
        for item in list.try_iter()?.checked() {
            self.separate(empty, depth + 1);
            self.value(&item?, depth + 1)?;
            empty = false;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys = map.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if self.sort {
            keys.sort();
        }
        self.output.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.separate(index == 0, depth + 1);
            match key.as_str() {
                Some(key) => self.string(key),
                None => self.string(&scalar(key).ok_or_else(|| invalid("tojson: a key must be a string"))?),
            }
            self.output.push_str(&self.separators[1]);
            self.value(&map.get_item(key)?, depth + 1)?;
        }
        self.close('}', keys.is_empty(), depth);
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.output.push_str(&self.separators[0]);
        }
        self.new_line(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
        self.output.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.output.push('\n');
            (0..depth).for_each(|_| self.output.push_str(indent));
        }
    }

    fn string(&mut self, text: &str) {
        self.output.push('"');
        for character in text.chars() {
            match character {
                '"' => self.output.push_str("\\\""),
                '\\' => self.output.push_str("\\\\"),
                '\n' => self.output.push_str("\\n"),
                '\r' => self.output.push_str("\\r"),
                '\t' => self.output.push_str("\\t"),
                '\u{8}' => self.output.push_str("\\b"),
                '\u{c}' => self.output.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(self.output, "\\u{unit:04x}");
                    }
                }
                c => self.output.push(c),
            }
        }
        self.output.push('"');
    }
}

/// The text of `None`, a bool or a number as Python's `json` writes it.
fn scalar(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("null".into()),
        ValueKind::Bool => Some(value.is_true().to_string()),
        ValueKind::Number if value.is_integer() => Some(value.to_string()),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(number),
        _ => None,
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let mut text = float::shortest(value, -4..16);
    if !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}
