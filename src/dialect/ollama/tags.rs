//! `GET /api/tags` and `GET /api/ps`: the lists of models.

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::dialect::json::{self, Time};
use crate::dialect::{LoadedModel, ModelCard};

/// `GET /api/tags`, in the order given.
pub fn tags(models: &[ModelCard]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: String,
        model: String,
        modified_at: Time,
        size: u64,
        digest: &'a str,
        details: Details<'a>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        capabilities: Vec<&'static str>,
    }
    let entries = models.iter().map(|card| Entry {
        name: card.display_name(),
        model: card.display_name(),
        modified_at: Time(card.modified),
        size: card.size,
        digest: &card.digest,
        details: Details::of(card),
        capabilities: capabilities(card),
    });
    json::to_vec(&Models { models: entries.collect::<Vec<_>>() })
}

/// `GET /api/ps`, the longest remaining life first. What never expires is shown as expiring in some 290 years, as Ollama
/// shows it, because clients want a date.
pub fn ps(models: &[LoadedModel], now: OffsetDateTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: String,
        model: String,
        size: u64,
        digest: &'a str,
        details: Details<'a>,
        expires_at: Time,
        size_vram: u64,
        context_length: u64,
    }
    let never = now.saturating_add(Duration::days(290 * 365));
    let mut models: Vec<_> = models.iter().map(|loaded| (loaded.expires.unwrap_or(never), loaded)).collect();
    models.sort_by_key(|(expires, _)| std::cmp::Reverse(*expires));
    let entries = models.into_iter().map(|(expires, loaded)| Entry {
        name: loaded.card.display_name(),
        model: loaded.card.display_name(),
        size: loaded.memory,
        digest: &loaded.card.digest,
        details: Details::of(&loaded.card),
        expires_at: Time(expires),
        size_vram: loaded.device_memory,
        context_length: loaded.context,
    });
    json::to_vec(&Models { models: entries.collect::<Vec<_>>() })
}

#[derive(Serialize)]
struct Models<T> {
    models: Vec<T>,
}

/// `details`; `parent_model` and `families` must be there.
#[derive(Serialize)]
pub(super) struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: &'a str,
    quantization_level: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    context_length: u64,
    #[serde(skip_serializing_if = "is_zero")]
    embedding_length: u64,
}

impl<'a> Details<'a> {
    pub(super) fn of(card: &'a ModelCard) -> Self {
        let details = &card.details;
        Self {
            parent_model: "",
            format: "gguf",
            family: &details.family,
            families: [&details.family],
            parameter_size: &details.parameter_size,
            quantization_level: &details.quantization_level,
            context_length: details.context_length,
            embedding_length: details.embedding_length,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn capabilities(card: &ModelCard) -> Vec<&'static str> {
    card.capabilities.iter().map(|capability| capability.as_str()).collect()
}
