//! Calls written as Python code: `name(text="x", count=3)`, one per line, with literals as named arguments.

use serde_json::{Map, Number, Value};

use super::call::Call;

/// Lists and dictionaries inside each other, at most.
const MAX_DEPTH: usize = 32;

/// The calls in `code`; `None` if it holds anything else.
pub fn calls(code: &str) -> Option<Vec<Call>> {
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty());
    let calls: Vec<Call> = lines.map(call).collect::<Option<_>>()?;
    (!calls.is_empty()).then_some(calls)
}

fn call(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let mut reader = Reader(rest);
    let arguments = reader.pairs(')', 0, |reader| reader.name('='))?;
    reader.0.trim().is_empty().then(|| Call { id: None, name: name.trim().to_owned(), arguments })
}

/// What is left to read.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    /// Passes white space, then `c` if it is there.
    fn takes(&mut self, c: char) -> bool {
        self.0 = self.0.trim_start();
        self.0.strip_prefix(c).inspect(|rest| self.0 = rest).is_some()
    }

    fn name(&mut self, end: char) -> Option<String> {
        let (name, rest) = self.0.split_once(end)?;
        self.0 = rest;
        let name = name.trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric());
        is_name.then(|| name.to_owned())
    }

    /// Keys and values up to `end`.
    fn pairs(
        &mut self,
        end: char,
        depth: usize,
        key: impl Fn(&mut Self) -> Option<String>,
    ) -> Option<Map<String, Value>> {
        let mut pairs = Map::new();
        while !self.takes(end) {
            if !pairs.is_empty() && !self.takes(',') {
                return None;
            }
            if !pairs.is_empty() && self.takes(end) {
                break;
            }
            let key = key(self)?;
            pairs.insert(key, self.value(depth)?);
        }
        Some(pairs)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.0 = self.0.trim_start();
        match self.0.chars().next()? {
            quote @ ('"' | '\'') => self.string(quote).map(Value::String),
            '[' => self.list(depth + 1),
            '{' => {
                self.takes('{');
                self.pairs('}', depth + 1, Self::key).map(Value::Object)
            }
            _ => self.word(),
        }
    }

    /// A dictionary's key with its colon.
    fn key(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let quote = self.0.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let key = self.string(quote)?;
        self.takes(':').then_some(key)
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.takes('[');
        let mut items = Vec::new();
        while !self.takes(']') {
            if !items.is_empty() && !self.takes(',') {
                return None;
            }
            if !items.is_empty() && self.takes(']') {
                break;
            }
            items.push(self.value(depth)?);
        }
        Some(Value::Array(items))
    }

    fn string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.0[quote.len_utf8()..].chars();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\\' => match chars.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    escaped @ ('\\' | '\'' | '"') => text.push(escaped),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        self.0 = chars.as_str();
        Some(text)
    }

    /// A number or a named constant.
    fn word(&mut self) -> Option<Value> {
        let end = self.0.find([',', ')', ']', '}'])?;
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        match word.trim() {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            number => number.parse::<Number>().ok().map(Value::Number),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_with_literals_are_read() {
        let code = "weather(town='Łódź \\'x\\'', days=2, at=[1.5, -3,], more={\"a\": None, 'b': [True]})\n\n now()\n";
        let calls = calls(code).unwrap();
        let arguments =
            json!({"town": "Łódź 'x'", "days": 2, "at": [1.5, -3], "more": {"a": null, "b": [true]}});
        assert_eq!(
            (calls[0].name.as_str(), Value::Object(calls[0].arguments.clone())),
            ("weather", arguments)
        );
        assert_eq!((calls[1].name.as_str(), calls[1].arguments.len()), ("now", 0));
    }

    #[test]
    fn anything_else_is_not() {
        for code in
            ["", "x = 1", "f(1)", "f(a=b)", "f(a=1", "f(a=1) + 1", "f(a=1,,)", "f(a={1: 2})", "f(a='x)"]
        {
            assert_eq!(calls(code), None, "{code}");
        }
        assert_eq!(calls(&format!("f(a={})", "[".repeat(100_000))), None);
    }

    proptest! {
        #[test]
        fn no_code_panics(code in r#"[fa\(\)\[\]\{\}=,:'"\\ 1é\n-]{0,24}"#) {
            calls(&code);
        }
    }
}
