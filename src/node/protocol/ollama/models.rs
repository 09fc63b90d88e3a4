//! `/api/tags`: what an Ollama has; `/api/ps`: what of it is in memory.

use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::node::protocol::{Garbled, Offer};
use crate::node::{Resident, Signal, Via};

#[derive(Deserialize)]
struct Models<T> {
    #[serde(default = "Vec::new")]
    models: Vec<T>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    details: Details,
    /// An Arriero's own.
    #[serde(default)]
    via: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    family: String,
    parameter_size: String,
    quantization_level: String,
}

pub(super) fn offers(body: &[u8]) -> Result<Vec<Offer>, Garbled> {
    let tags: Models<Tag> = serde_json::from_slice(body)?;
    let offer = |tag: Tag| Offer {
        name: tag.name,
        size: tag.size,
        digest: tag.digest,
        family: tag.details.family,
        parameter_size: tag.details.parameter_size,
        quantization: tag.details.quantization_level,
        via: Via::of_names(&tag.via),
    };
    Ok(tags.models.into_iter().map(offer).collect())
}

#[derive(Deserialize)]
struct Running {
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    size_vram: u64,
    #[serde(default)]
    expires_at: String,
    #[serde(default)]
    context_length: u64,
}

pub(super) fn signal(ps: Option<&Bytes>) -> Signal {
    let running = ps.and_then(|body| serde_json::from_slice::<Models<Running>>(body).ok());
    let resident = |running: Running| Resident {
        name: running.name,
        memory: running.size,
        device_memory: running.size_vram,
        expires: OffsetDateTime::parse(&running.expires_at, &Rfc3339).ok().map(SystemTime::from),
        context: running.context_length,
    };
    let resident: Option<Vec<_>> = running.map(|list| list.models.into_iter().map(resident).collect());
    let memory = resident.as_ref().map(|models| models.iter().map(|model| model.memory).sum());
    Signal { memory, resident, ..Signal::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_are_what_it_has() {
        let body = json!({"models": [
            {"name": "llama3:latest", "model": "llama3:latest", "modified_at": "2025-01-01T00:00:00Z", "size": 7,
             "digest": "ab", "details": {"family": "llama", "families": null, "parameter_size": "8B",
             "quantization_level": "Q4_0"}, "via": ["arriero-00000000000000ab"]},
            {"name": "bare"}
        ]});
        let offers = offers(body.to_string().as_bytes()).unwrap();
        let full = Offer {
            name: "llama3:latest".into(),
            size: 7,
            digest: "ab".into(),
            family: "llama".into(),
            parameter_size: "8B".into(),
            quantization: "Q4_0".into(),
            via: Via::of_names(&["arriero-00000000000000ab".to_owned()]),
        };
        assert_eq!(full.via.len(), 1);
        assert_eq!(offers, [full, Offer { name: "bare".into(), ..Offer::default() }]);
        assert!(super::offers(b"<html>").is_err());
    }

    #[test]
    fn ps_is_what_is_in_memory_and_silence_is_not_an_empty_memory() {
        let body = json!({"models": [{"name": "a:latest", "size": 20, "size_vram": 5, "context_length": 4096,
            "expires_at": "1970-01-01T00:01:00Z", "digest": "ab", "details": {}}]});
        let signal = |body: &str| super::signal(Some(&Bytes::from(body.to_owned())));
        let resident = Resident {
            name: "a:latest".into(),
            memory: 20,
            device_memory: 5,
            context: 4096,
            expires: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(60)),
        };
        assert_eq!(signal(&body.to_string()).resident, Some(vec![resident]));
        assert_eq!(signal("{\"models\":[]}").resident, Some(Vec::new()));
        assert_eq!((signal("?").resident, super::signal(None)), (None, Signal::default()));
    }
}
