//! [`Ranking`]: one canonical request to say how well texts answer a query.

use serde::{Deserialize, Serialize};

/// A request for one score per document. Serialises to the body of the worker's `POST /rank`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// The configured model name.
    pub model: String,
    /// What is looked for.
    pub query: String,
    /// The texts, in order.
    pub documents: Vec<String>,
}

/// The answer to a [`Ranking`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// One per document, in the order of the documents; higher is better. The scale is the model's own.
    pub scores: Vec<f32>,
    /// Tokens read, all documents with the query each.
    pub prompt_tokens: u64,
}
