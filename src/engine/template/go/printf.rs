//! Go's `printf`, with the verbs that templates use.

use super::value::Value;

/// The widest field or precision; guards against `%999999999d`.
const MAX_WIDTH: usize = 1000;

/// One `%…` directive without its verb.
#[derive(Default)]
struct Directive {
    left: bool,
    plus: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats `values`. Go marks what does not fit in the text itself (`%!d(string=a)`), and so does this.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut output = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        output.push_str(&rest[..percent]);
        let (directive, after) = directive(&rest[percent + 1..])?;
        let mut characters = after.chars();
        let verb = characters.next();
        rest = characters.as_str();
        match verb {
            None => output.push_str("%!(NOVERB)"),
            Some('%') => output.push('%'),
            Some(verb) => match values.next() {
                Some(value) => output.push_str(&directive.pad(formatted(&directive, verb, value))),
                None => output.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    output.push_str(rest);
    let extra: Vec<_> = values.map(|value| format!("{}={}", value.kind(), value.print())).collect();
    if !extra.is_empty() {
        output.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(output)
}

/// Flags, width and precision, and what follows them.
fn directive(text: &str) -> Result<(Directive, &str), String> {
    let mut directive = Directive::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next().filter(|flag| "-+0 #".contains(*flag)) {
        directive.left |= flag == '-';
        directive.plus |= flag == '+';
        directive.zero |= flag == '0';
        rest = &rest[1..];
    }
    (directive.width, rest) = number(rest)?;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after)?;
        directive.precision = Some(precision);
        rest = after;
    }
    Ok((directive, rest))
}

fn number(text: &str) -> Result<(usize, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    match digits.parse() {
        Ok(number) if number <= MAX_WIDTH => Ok((number, rest)),
        Err(_) if digits.is_empty() => Ok((0, rest)),
        _ => Err(format!("width or precision over {MAX_WIDTH}")),
    }
}

fn formatted(directive: &Directive, verb: char, value: &Value) -> String {
    let truncated = |text: &str| match directive.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let signed =
        |text: String, negative: bool| if directive.plus && !negative { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', Value::Int(number)) | ('d', Value::Int(number)) => signed(number.to_string(), *number < 0),
        ('v', value) => value.print(),
        ('s', Value::String(text)) => truncated(text),
        ('s', Value::List(_) | Value::Map(_)) => value.print(),
        ('q', Value::String(text)) => format!("{:?}", truncated(text)),
        ('t', Value::Bool(value)) => value.to_string(),
        ('c', Value::Int(code)) => u32::try_from(*code)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        ('x', Value::Int(number)) => {
            format!("{}{:x}", if *number < 0 { "-" } else { "" }, number.unsigned_abs())
        }
        ('f', Value::Float(number)) => {
            signed(format!("{number:.*}", directive.precision.unwrap_or(6)), *number < 0.0)
        }
        ('g', Value::Float(_)) => value.print(),
        (verb, value) => format!("%!{verb}({}={})", value.kind(), value.print()),
    }
}

impl Directive {
    fn pad(&self, text: String) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            return text + &" ".repeat(missing);
        }
        if !self.zero {
            return " ".repeat(missing) + &text;
        }
        let digits_at = usize::from(text.starts_with(['-', '+']));
        format!("{}{}{}", &text[..digits_at], "0".repeat(missing), &text[digits_at..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_flags_and_mistakes_look_as_in_go() {
        let print = |format: &str, values: &[Value]| printf(format, values).unwrap();
        assert_eq!(
            print("%s-%d-%v-%t", &["a".into(), Value::Int(3), Value::Float(1.5), true.into()]),
            "a-3-1.5-true"
        );
        assert_eq!(print("%q", &["a\"b\n".into()]), r#""a\"b\n""#);
        assert_eq!(
            print("%5d|%-5d|%05d|%+d", &[Value::Int(-7), Value::Int(7), Value::Int(-7), Value::Int(7)]),
            "   -7|7    |-0007|+7"
        );
        assert_eq!(print("%.2f %.2s 100%%", &[Value::Float(1.005), "abc".into()]), "1.00 ab 100%");
        assert_eq!(print("%d %s", &["a".into()]), "%!d(string=a) %!s(MISSING)");
        assert_eq!(print("x", &[Value::Int(1)]), "x%!(EXTRA int=1)");
        assert_eq!(print("%", &[]), "%!(NOVERB)");
        assert!(printf("%9999999999d", &[Value::Int(1)]).is_err());
    }
}
