//! [`Embedding`]: one canonical request for vectors.

use serde::{Deserialize, Serialize};

/// A request for one vector per input. Serialises to the body of the worker's `POST /embed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// The configured model name.
    pub model: String,
    /// The texts, in order.
    pub inputs: Vec<String>,
    /// An input that does not fit: cut it (true) or refuse the request (false).
    pub truncate: bool,
    /// Cut vectors to this many numbers and normalise again; ignored where it is not smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<usize>,
    /// Context in tokens for this request; capped at the worker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_ctx: Option<i64>,
}

/// The answer to an [`Embedding`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// One L2-normalised vector per input, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, all inputs together.
    pub prompt_tokens: u64,
}
