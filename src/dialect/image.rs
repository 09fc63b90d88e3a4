//! [`Image`]: a picture in a request, as base64. Whether it is one is for the worker to find out, which decodes it.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::generation;

/// A base64 text that is valid, without line ends.
pub(super) struct Image(Arc<str>);

impl Image {
    /// Checks `base64` without holding the decoded bytes. Line ends are skipped, as Go skips them: some encoders wrap.
    pub(super) fn check(base64: &str) -> Result<Self, InvalidBase64> {
        const LINE_ENDS: [char; 2] = ['\r', '\n'];
        if base64.contains(LINE_ENDS) {
            return Self::check(&base64.replace(LINE_ENDS, ""));
        }
        let mut decoder = DecoderReader::new(base64.as_bytes(), &STANDARD);
        match io::copy(&mut decoder, &mut io::sink()) {
            Ok(_) => Ok(Self(base64.into())),
            Err(_) => Err(InvalidBase64),
        }
    }

    /// The same, before byte `at` of a text.
    pub(super) fn canonical(self, at: usize) -> generation::Image {
        generation::Image { at, data: self.0 }
    }
}

/// Images that come without a place: before the text, as Ollama puts them.
pub(super) fn in_front(images: Option<Vec<Image>>) -> Vec<generation::Image> {
    images.unwrap_or_default().into_iter().map(|image| image.canonical(0)).collect()
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
        for (valid, data) in [("", ""), ("aGk=", "aGk="), ("aGVs\r\nbG8h\n", "aGVsbG8h")] {
            let image = Image::check(valid).unwrap().canonical(3);
            assert_eq!((image.at, &*image.data), (3, data));
        }
        for invalid in ["aGk", "a", "%%%%", "aGk=aGk=", "aG k="] {
            assert!(Image::check(invalid).is_err(), "{invalid:?}");
        }
    }
}
