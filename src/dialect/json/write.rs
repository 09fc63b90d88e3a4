//! Writing JSON with Go's escapes: besides what JSON demands also `<`, `>`, `&`, U+2028 and U+2029, at which line-reading
//! clients (httpx among them) would split a line.

use std::fmt::Write as _;
use std::io;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::ser::Formatter;
use time::{OffsetDateTime, UtcOffset};

/// Appends `text` as a JSON string.
pub(in crate::dialect) fn string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    escape(text, |piece| out.put_slice(piece));
    out.put_u8(b'"');
}

/// Appends a whole number. An answer can end in thousands of them (`context`), for which `fmt` is too slow.
pub(in crate::dialect) fn number(out: &mut BytesMut, value: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends whole numbers as a JSON list.
pub(in crate::dialect) fn numbers<T: itoa::Integer>(out: &mut BytesMut, values: &[T]) {
    // At once, not number by number: tokens have up to six digits, and a comma.
    out.reserve(7 * values.len() + 2);
    list(out, values, |out, value| number(out, *value));
}

/// Appends a float. JSON has no infinity and no NaN; log probabilities that are neither become OpenAI's "almost impossible".
pub(in crate::dialect) fn finite(out: &mut BytesMut, value: f32) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{}", if value.is_finite() { value } else { -9999.0 });
}

/// Appends `items` as a JSON list, each written by `item`.
pub(in crate::dialect) fn list<T>(
    out: &mut BytesMut,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut BytesMut, T),
) {
    out.put_u8(b'[');
    for (index, each) in items.into_iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        item(out, each);
    }
    out.put_u8(b']');
}

/// Appends anything that serialises.
pub(in crate::dialect) fn value(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    // Neither writing to memory nor serialising what was parsed from JSON can fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(out.writer(), Escaping));
}

/// Appends `,"name":…` where there is something; `name` needs no escapes.
pub(in crate::dialect) fn optional(out: &mut BytesMut, name: &str, value: Option<&impl Serialize>) {
    if let Some(value) = value {
        out.put_slice(b",\"");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\":");
        self::value(out, value);
    }
}

/// Anything that serialises, as a body of its own.
pub(in crate::dialect) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = BytesMut::new();
    self::value(&mut out, value);
    out.into()
}

/// Appends a time as RFC 3339 in UTC with nine fractional digits, without quotes.
pub(in crate::dialect) fn time(out: &mut BytesMut, time: OffsetDateTime) {
    out.put_slice(&rfc3339(time));
}

/// The same, digit by digit: it is part of every streamed token, and general formatting takes longer than all the rest.
fn rfc3339(time: OffsetDateTime) -> [u8; 30] {
    let time = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    let (hour, minute, second, nanosecond) = time.to_hms_nano();
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    for (place, value) in [
        (0..4, time.year().unsigned_abs()),
        (5..7, u8::from(time.month()).into()),
        (8..10, time.day().into()),
        (11..13, hour.into()),
        (14..16, minute.into()),
        (17..19, second.into()),
        (20..29, nanosecond),
    ] {
        let mut rest = value;
        for digit in text[place].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
    }
    text
}

/// A time that serialises as RFC 3339 in UTC with nine fractional digits.
#[derive(Clone, Copy)]
pub(in crate::dialect) struct Time(pub(in crate::dialect) OffsetDateTime);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // All of it is plain ASCII, so nothing is escaped: this only displays bytes.
        serializer.collect_str(&rfc3339(self.0).escape_ascii())
    }
}

/// Adds Go's escapes to serde_json's own.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut result = Ok(());
        escape(fragment, |piece| {
            if result.is_ok() {
                result = writer.write_all(piece);
            }
        });
        result
    }
}

/// Hands the pieces of `text`, escaped, to `put`. Runs of plain bytes go in one piece.
fn escape(text: &str, mut put: impl FnMut(&[u8])) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        if !SUSPECT[usize::from(bytes[at])] {
            at += 1;
            continue;
        }
        let mut unicode = *b"\\u0000";
        let (escape, length): (&[u8], usize) = match bytes[at] {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            0xe2 => match bytes.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (b"\\u2028", 3),
                Some([0x80, 0xa9]) => (b"\\u2029", 3),
                _ => {
                    at += 3;
                    continue;
                }
            },
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                unicode[4] = HEX[usize::from(byte >> 4)];
                unicode[5] = HEX[usize::from(byte & 15)];
                (&unicode, 1)
            }
        };
        put(&bytes[plain..at]);
        put(escape);
        at += length;
        plain = at;
    }
    put(&bytes[plain..]);
}

/// Bytes that are, or may begin, something to escape.
static SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    let mut special: &[u8] = b"\"\\<>&\xe2";
    while let [first, rest @ ..] = special {
        table[*first as usize] = true;
        special = rest;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = BytesMut::new();
        string(&mut out, text);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn html_characters_and_line_separators_are_escaped_as_go_does() {
        assert_eq!(
            written("<a>&\u{2028}\u{2029}\u{2027}"),
            "\"\\u003ca\\u003e\\u0026\\u2028\\u2029\u{2027}\""
        );
        assert_eq!(written("\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}"), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}\"");
    }

    #[test]
    fn serialised_values_are_escaped_the_same_way() {
        let body = to_vec(&serde_json::json!({"<k>": ["\u{2028}", 1.5, null]}));
        assert_eq!(body, br#"{"\u003ck\u003e":["\u2028",1.5,null]}"#);
    }

    #[test]
    fn times_have_nine_fractional_digits_in_utc() {
        let mut out = BytesMut::new();
        time(&mut out, datetime!(2025-01-02 03:04:05.000000600 +02:00));
        assert_eq!(&out[..], b"2025-01-02T01:04:05.000000600Z");
    }

    #[test]
    fn impossible_tokens_stay_valid_json() {
        let mut out = BytesMut::new();
        finite(&mut out, f32::NEG_INFINITY);
        assert_eq!(&out[..], b"-9999");
    }

    proptest! {
        #[test]
        fn strings_round_trip_and_never_break_a_line(text in r#"[\x00-\x7fé😀\u{2020}-\u{2030}]{0,40}|.*"#) {
            let json = written(&text);
            let breaks = json.contains(['\n', '\r', '\u{2028}', '\u{2029}', '<', '>', '&']);
            prop_assert!(!breaks, "{}", json);
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            prop_assert_eq!(to_vec(&text), json.into_bytes());
        }
    }
}
