//! Ollama's native API.

use time::OffsetDateTime;

use super::{LoadedModel, ModelCard};
use crate::error::Error;

/// `GET /api/tags`
pub fn tags(_models: &[ModelCard]) -> Vec<u8> {
    todo!()
}

/// `GET /api/ps`
pub fn ps(_models: &[LoadedModel], _now: OffsetDateTime) -> Vec<u8> {
    todo!()
}

/// A parsed `POST /api/show`.
pub struct Show {
    /// As the client wrote it.
    pub model: String,
    /// All arrays, and the tensors.
    pub verbose: bool,
}

/// Parses the body of `POST /api/show`.
pub fn parse_show(_body: &[u8]) -> Result<Show, Error> {
    todo!()
}

/// The answer of `POST /api/show`.
pub fn show(_card: &ModelCard, _show: &Show) -> Vec<u8> {
    todo!()
}

/// `GET /api/version`
pub fn version() -> Vec<u8> {
    todo!()
}
