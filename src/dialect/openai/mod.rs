//! OpenAI's API.

use super::ModelCard;

/// `GET /v1/models`
pub fn models(_models: &[ModelCard]) -> Vec<u8> {
    todo!()
}

/// `GET /v1/models/{id}`; `id` as the client wrote it.
pub fn model(_id: &str, _card: &ModelCard) -> Vec<u8> {
    todo!()
}
