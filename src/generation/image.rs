//! [`Image`]: a picture that belongs to a text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A picture in a text, for models that see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Before which byte of the text it stands.
    #[serde(default)]
    pub at: usize,
    /// The bytes of its file (PNG, JPEG, GIF, BMP), as base64 without line ends.
    pub data: Arc<str>,
}
