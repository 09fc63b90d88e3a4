//! Splits a Go template into texts and the tokens of its actions.

use super::value::Value;
use crate::engine::template::TemplateError;

/// A piece of the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text between actions, trim markers applied; never empty.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.`
    Dot,
    /// `.Name`
    Field(String),
    /// `$name`; empty for `$`.
    Variable(String),
    /// A keyword or a function.
    Word(String),
    /// A string, character or number.
    Literal(Value),
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `(`
    Left,
    /// `)`
    Right,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Lexeme {
    pub token: Token,
    /// Counted from 1.
    pub line: usize,
    /// White space precedes it: `.A .B` are two operands, `.A.B` is one.
    pub spaced: bool,
}

/// All tokens of `source`, or the first place that is none.
pub(super) fn lex(source: &str) -> Result<Vec<Lexeme>, TemplateError> {
    let mut lexer = Lexer { rest: source, line: 1, lexemes: Vec::new() };
    let mut trim = false;
    loop {
        let (text, action) = match lexer.rest.find("{{") {
            Some(start) => (&lexer.rest[..start], true),
            None => (lexer.rest, false),
        };
        let trim_end = action && trim_marker(&lexer.rest[text.len() + 2..]);
        let shown = if trim { text.trim_start_matches(is_space) } else { text };
        let shown = if trim_end { shown.trim_end_matches(is_space) } else { shown };
        if !shown.is_empty() {
            lexer.push(Token::Text(shown.to_owned()), false);
        }
        lexer.advance(text.len());
        if !action {
            return Ok(lexer.lexemes);
        }
        trim = lexer.action(trim_end)?;
    }
}

/// Whether what follows `{{` is `-` and white space.
fn trim_marker(after: &str) -> bool {
    after.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

/// White space as Go's templates know it.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    lexemes: Vec<Lexeme>,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, token: Token, spaced: bool) {
        self.lexemes.push(Lexeme { token, line: self.line, spaced });
    }

    /// Goes on by `length` bytes, which end at a character.
    fn advance(&mut self, length: usize) -> &'a str {
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        self.rest = rest;
        passed
    }

    fn advance_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let length = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        self.advance(length)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Syntax { line: self.line, message: message.into() })
    }

    /// From `{{` to `}}`; answers whether the text after it is trimmed.
    fn action(&mut self, trimmed: bool) -> Result<bool, TemplateError> {
        let open_line = self.line;
        self.advance(if trimmed { 4 } else { 2 });
        if self.rest.starts_with("/*") {
            return self.comment();
        }
        self.push(Token::Open, false);
        loop {
            let spaced = !self.advance_while(is_space).is_empty();
            let trim = spaced && self.rest.starts_with("-}}");
            if trim || self.rest.starts_with("}}") {
                self.push(Token::Close, spaced);
                self.advance(if trim { 3 } else { 2 });
                return Ok(trim);
            }
            if self.rest.is_empty() {
                self.line = open_line;
                return self.error("unclosed action");
            }
            let token = self.token()?;
            self.push(token, spaced);
        }
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest.find("*/") else { return self.error("unclosed comment") };
        self.advance(end + 2);
        let trim = !self.advance_while(is_space).is_empty() && self.rest.starts_with("-}}");
        if !trim && !self.rest.starts_with("}}") {
            return self.error("comment ends before closing delimiter");
        }
        self.advance(if trim { 3 } else { 2 });
        Ok(trim)
    }

    fn token(&mut self) -> Result<Token, TemplateError> {
        let mut characters = self.rest.chars();
        let first = characters.next().unwrap_or_default();
        let second = characters.next().unwrap_or_default();
        let token = match first {
            '"' | '\'' | '`' => return self.quoted(first),
            '0'..='9' => return self.number(),
            '+' | '-' | '.' if second.is_ascii_digit() => return self.number(),
            '.' | '$' => {
                self.advance(1);
                let name = self.advance_while(is_word).to_owned();
                return Ok(match first {
                    '$' => Token::Variable(name),
                    _ if name.is_empty() => Token::Dot,
                    _ => Token::Field(name),
                });
            }
            ':' if second == '=' => {
                self.advance(2);
                return Ok(Token::Declare);
            }
            '=' => Token::Assign,
            '|' => Token::Pipe,
            ',' => Token::Comma,
            '(' => Token::Left,
            ')' => Token::Right,
            _ if is_word(first) => return Ok(Token::Word(self.advance_while(is_word).to_owned())),
            _ => return self.error(format!("unexpected {first:?} in action")),
        };
        self.advance(1);
        Ok(token)
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let hexadecimal = self.rest[sign..].starts_with("0x") || self.rest[sign..].starts_with("0X");
        let mut exponent = false;
        // A sign belongs to the number at its start and after the `e` of an exponent.
        let end = self.rest.char_indices().find(|&(at, c)| {
            let inside = at < sign || is_word(c) || c == '.' || (exponent && matches!(c, '+' | '-'));
            exponent = !hexadecimal && matches!(c, 'e' | 'E');
            !inside
        });
        let text = self.advance(end.map_or(self.rest.len(), |(at, _)| at)).replace('_', "");
        match number(&text) {
            Some(value) => Ok(Token::Literal(value)),
            None => self.error(format!("bad number {text:?}")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Token, TemplateError> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped && quote != '`';
            ends
        });
        let Some(end) = end else { return self.error("unterminated quoted string") };
        let inner = &self.rest[1..=end];
        let text = if quote == '`' { Some(inner.replace('\r', "")) } else { unquote(inner) };
        let value = text.and_then(|text| match quote {
            '\'' => {
                let mut characters = text.chars();
                let only = characters.next().filter(|_| characters.next().is_none())?;
                Some(Value::Int(i64::from(u32::from(only))))
            }
            _ => Some(Value::from(text)),
        });
        match value {
            Some(value) => {
                self.advance(end + 2);
                Ok(Token::Literal(value))
            }
            None => self.error("bad quoted string"),
        }
    }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// A number in Go's notation.
fn number(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    match i64::from_str_radix(&signed, radix) {
        Ok(integer) => Some(Value::Int(integer)),
        // Rust would also read `nan` and `infinity`, but those begin with a letter.
        Err(_) if radix == 10 && !digits.starts_with(['+', '-']) => {
            signed.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float)
        }
        Err(_) => None,
    }
}

/// Resolves the escapes of a Go string without its quotes. `None`: a line break or an escape that is none.
fn unquote(inner: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        let mut push =
            |character: char| bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        match character {
            '\n' => return None,
            '\\' => match rest.next()? {
                'n' => push('\n'),
                't' => push('\t'),
                'r' => push('\r'),
                'a' => push('\u{7}'),
                'b' => push('\u{8}'),
                'f' => push('\u{c}'),
                'v' => push('\u{b}'),
                kept @ ('\\' | '"' | '\'') => push(kept),
                'u' => push(char::from_u32(digits(&mut rest, 4, 16)?)?),
                'U' => push(char::from_u32(digits(&mut rest, 8, 16)?)?),
                'x' => bytes.push(u8::try_from(digits(&mut rest, 2, 16)?).ok()?),
                octal @ '0'..='7' => {
                    let high = octal.to_digit(8)?;
                    bytes.push(u8::try_from(high * 64 + digits(&mut rest, 2, 8)?).ok()?);
                }
                _ => return None,
            },
            plain => push(plain),
        }
    }
    String::from_utf8(bytes).ok()
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, radix: u32) -> Option<u32> {
    (0..count).try_fold(0u32, |value, _| value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<Token> {
        lex(source).unwrap().into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn markers_trim_only_when_set_off_by_white_space() {
        assert_eq!(tokens("a {{- /* c */ -}} b"), [Token::Text("a".into()), Token::Text("b".into())]);
        let number = tokens("a {{-3}} b");
        assert_eq!(number[0], Token::Text("a ".into()));
        assert_eq!(number[2], Token::Literal(Value::Int(-3)));
        assert_eq!(number[4], Token::Text(" b".into()));
    }

    #[test]
    fn literals_read_as_go_reads_them() {
        let literal = |source: &str| match &tokens(&format!("{{{{{source}}}}}"))[1] {
            Token::Literal(value) => value.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(literal(r#""a\n\"\u00e9\x41\101""#), Value::from("a\n\"éAA".to_owned()));
        assert_eq!(literal(r"`a\n`"), Value::from(r"a\n".to_owned()));
        assert_eq!(literal("'x'"), Value::Int(120));
        assert_eq!(literal("0x1F"), Value::Int(31));
        assert_eq!(literal("0x1e"), Value::Int(30));
        assert_eq!(literal("1_000"), Value::Int(1000));
        assert_eq!(literal("-2.5e+3"), Value::Float(-2500.0));
        assert_eq!(literal(".5"), Value::Float(0.5));
    }

    #[test]
    fn errors_name_the_line() {
        for (source, line) in
            [("a\n{{ \"x", 2), ("\n\n{{ .A", 3), ("{{\n @ }}", 2), ("{{/* x", 1), ("{{ 1z }}", 1)]
        {
            let error = lex(source).unwrap_err();
            assert!(
                matches!(error, TemplateError::Syntax { line: at, .. } if at == line),
                "{source:?}: {error}"
            );
        }
    }
}
