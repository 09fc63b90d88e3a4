//! [`Image`]: a picture in a request. No model here can see yet, so a picture is checked and dropped; what remains is that
//! there was one, which makes the request need [`Capability::Vision`](super::Capability::Vision).

use std::fmt;
use std::io;

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A base64 text that was valid.
pub(super) struct Image;

impl Image {
    /// Checks `base64` without holding the decoded bytes. Line ends are skipped, as Go skips them: some encoders wrap.
    pub(super) fn check(base64: &str) -> Result<Self, InvalidBase64> {
        const LINE_ENDS: [char; 2] = ['\r', '\n'];
        if base64.contains(LINE_ENDS) {
            return Self::check(&base64.replace(LINE_ENDS, ""));
        }
        let mut decoder = DecoderReader::new(base64.as_bytes(), &STANDARD);
        io::copy(&mut decoder, &mut io::sink()).map(|_| Self).map_err(|_| InvalidBase64)
    }
}

/// The text is not base64.
#[derive(Debug, thiserror::Error)]
#[error("illegal base64 data")]
pub(super) struct InvalidBase64;

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ImageVisitor;
        impl Visitor<'_> for ImageVisitor {
            type Value = Image;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 data")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Image, E> {
                Image::check(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(ImageVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_wrapped_but_must_be_whole() {
        for valid in ["", "aGk=", "aGVs\r\nbG8h\n"] {
            assert!(Image::check(valid).is_ok(), "{valid:?}");
        }
        for invalid in ["aGk", "a", "%%%%", "aGk=aGk=", "aG k="] {
            assert!(Image::check(invalid).is_err(), "{invalid:?}");
        }
    }
}
