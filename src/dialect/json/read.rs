//! Reading a request body.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::Error;

/// Reads the first JSON value of `body`; bytes after it are ignored, as Go's decoder ignores them.
pub(in crate::dialect) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::MissingBody);
    }
    first(body).or_else(|_| {
        // What Go forgives and serde_json does not is rare, so it costs a second pass only after a failure.
        let mended = mend(body);
        first(mended.as_bytes()).map_err(|error| explain::<T>(&mended, &error))
    })
}

fn first<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body))
}

/// Says what is wrong and where, in the manner of Go's decoder.
fn explain<T: DeserializeOwned>(body: &str, error: &serde_json::Error) -> Error {
    match error.classify() {
        Category::Eof => Error::invalid("unexpected EOF"),
        Category::Syntax | Category::Io => Error::invalid(format!("invalid JSON: {error}")),
        Category::Data => {
            // Read once more, now keeping track of the path.
            let deserializer = &mut serde_json::Deserializer::from_str(body);
            let path = serde_path_to_error::deserialize::<_, T>(deserializer)
                .err()
                .map(|error| error.path().to_string())
                .filter(|path| path != ".")
                .unwrap_or_else(|| "request body".to_owned());
            let reason = error.to_string();
            let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
            Error::invalid(format!("json: cannot unmarshal {path}: {reason}"))
        }
    }
}

/// Puts U+FFFD in place of bytes that are not UTF-8 and of escaped surrogates that have no partner, as Go does.
fn mend(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    if !text.contains("\\u") {
        return text;
    }
    let mut mended = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        mended.push_str(plain);
        let length = match surrogate(escape) {
            Some(0xd800..0xdc00) if matches!(escape.get(6..).and_then(surrogate), Some(0xdc00..0xe000)) => 12,
            Some(_) => {
                mended.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// The surrogate that `text` begins with, escaped.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::json::{Integer, object};

    object! {
        struct Inner {
            "n" => n: Integer,
        }
    }

    object! {
        struct Outer {
            "text" => text: String,
            "flag" => flag: bool,
            "inner" => inner: Inner,
            "list" => list: Vec<Inner>,
            ..part: Part,
        }
    }

    object! {
        struct Part {
            "extra" => extra: f64,
        }
    }

    fn outer(text: &str) -> Outer {
        read(text.as_bytes()).unwrap()
    }

    fn complaint(text: &str) -> String {
        read::<Outer>(text.as_bytes()).err().unwrap().to_string()
    }

    #[test]
    fn names_match_in_any_case_and_the_last_one_wins() {
        assert_eq!(outer(r#"{"TEXT":"a","Text":"b"}"#).text.as_deref(), Some("b"));
    }

    #[test]
    fn names_may_hold_escapes() {
        assert_eq!(outer(r#"{"te\u0078t":"a"}"#).text.as_deref(), Some("a"));
    }

    #[test]
    fn unknown_fields_are_ignored_at_every_level() {
        let value = outer(r#"{"x":{"y":[1]},"inner":{"z":null,"n":1}}"#);
        assert_eq!(value.inner.unwrap().n, Some(Integer(1)));
    }

    #[test]
    fn null_is_absent_for_every_type() {
        let value = outer(r#"{"text":null,"flag":null,"inner":null,"list":null,"extra":null}"#);
        assert!(
            value.text.is_none() && value.flag.is_none() && value.inner.is_none() && value.list.is_none()
        );
        assert!(value.part.extra.is_none());
        assert!(outer(r#"{"list":[null]}"#).list.unwrap()[0].n.is_none());
    }

    #[test]
    fn whole_floats_are_integers_and_integers_are_floats() {
        assert_eq!(outer(r#"{"inner":{"n":10.0}}"#).inner.unwrap().n, Some(Integer(10)));
        assert_eq!(outer(r#"{"extra":1}"#).part.extra, Some(1.0));
        assert!(complaint(r#"{"inner":{"n":1.5}}"#).contains("inner.n"));
    }

    #[test]
    fn bytes_after_the_first_value_are_ignored() {
        assert_eq!(outer(r#"{"text":"a"} {"text":"b"} rubbish"#).text.as_deref(), Some("a"));
    }

    #[test]
    fn an_empty_body_is_missing() {
        assert_eq!(read::<Outer>(b"").err(), Some(Error::MissingBody));
        assert_eq!(read::<Outer>(b" \n").err(), Some(Error::MissingBody));
    }

    #[test]
    fn errors_name_the_place_and_the_reason() {
        assert_eq!(
            complaint(r#"{"list":[{},{"n":"x"}]}"#),
            r#"json: cannot unmarshal list[1].n: invalid type: string "x", expected an integer"#
        );
        assert_eq!(
            complaint("[]"),
            "json: cannot unmarshal request body: invalid type: sequence, expected an object"
        );
        assert_eq!(complaint(r#"{"text":"#), "unexpected EOF");
        assert!(complaint("{text}").starts_with("invalid JSON: "));
    }

    #[test]
    fn lone_surrogates_and_broken_utf8_become_replacement_characters() {
        assert_eq!(outer(r#"{"text":"a\ud83d b\\ud83d"}"#).text.as_deref(), Some("a\u{fffd} b\\ud83d"));
        assert_eq!(
            outer(r#"{"text":"\ud83d\ud83d\ude00\udc00"}"#).text.as_deref(),
            Some("\u{fffd}😀\u{fffd}")
        );
        assert_eq!(read::<Outer>(b"{\"text\":\"a\xff\"}").unwrap().text.as_deref(), Some("a\u{fffd}"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Outer>(&body);
        }

        #[test]
        fn no_escapes_make_it_panic(text in r#"(\\|u|d8|dc|00|é|"){0,24}"#) {
            let _ = read::<Outer>(format!("{{\"text\":\"{text}\"}}").as_bytes());
        }
    }
}
