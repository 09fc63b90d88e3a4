//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use serde::Serialize;

use crate::dialect::{ModelCard, json};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    /// As vLLM has it: the model that an adapter changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    via: &'a [String],
}

impl<'a> Model<'a> {
    fn of(id: &'a str, card: &'a ModelCard) -> Self {
        let parent = card.adapted.as_ref().map(|adapted| adapted.model.as_str());
        let created = card.modified.unix_timestamp();
        Self { id, object: "model", created, owned_by: "library", parent, via: &card.via }
    }
}

/// `GET /v1/models`, in the order given.
pub fn models(models: &[Arc<ModelCard>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Model<'a>>,
    }
    let ids: Vec<_> = models.iter().map(|card| card.display_name()).collect();
    let data = ids.iter().zip(models).map(|(id, card)| Model::of(id, card)).collect();
    json::to_vec(&List { object: "list", data })
}

/// `GET /v1/models/{id}`; `id` as the client wrote it.
pub fn model(id: &str, card: &ModelCard) -> Vec<u8> {
    json::to_vec(&Model::of(id, card))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::testing::card;

    #[test]
    fn models_are_listed_with_their_tag_and_retrieved_as_asked() {
        let entry =
            |id| format!(r#"{{"id":"{id}","object":"model","created":1735689600,"owned_by":"library"}}"#);
        let list = format!(r#"{{"object":"list","data":[{}]}}"#, entry("demo:latest"));
        assert_eq!(models(&[card("demo").into()]), list.into_bytes());
        assert_eq!(models(&[]), br#"{"object":"list","data":[]}"#);
        assert_eq!(model("Demo", &card("demo")), entry("Demo").into_bytes());
    }
}
