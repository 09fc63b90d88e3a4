//! `GET /api/tags` and `GET /api/ps`: the lists of models.

use std::sync::Arc;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::dialect::json::{self, Time};
use crate::dialect::{ArrivingModel, LoadedModel, ModelCard};
use crate::generation::Loading;

/// `GET /api/tags`, in the order given.
pub fn tags(models: &[Arc<ModelCard>]) -> Vec<u8> {
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
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        via: &'a [String],
    }
    let entries = models.iter().map(|card| Entry {
        name: card.display_name(),
        model: card.display_name(),
        modified_at: Time(card.modified),
        size: card.size,
        digest: &card.digest,
        details: Details::of(card),
        capabilities: capabilities(card),
        via: &card.via,
    });
    json::to_vec(&Models { models: entries.collect::<Vec<_>>(), loading: Vec::<()>::new() })
}

/// `GET /api/ps`, the longest remaining life first. What never expires is shown as expiring in some 290 years, as Ollama
/// shows it, because clients want a date.
///
/// What is on its way is beside that list, in one of its own that is left out where it would be empty: clients, Arrieros among them, take
/// what `models` has for being in memory.
pub fn ps(models: &[LoadedModel], arriving: &[ArrivingModel], now: OffsetDateTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct Arriving {
        name: String,
        model: String,
        #[serde(flatten)]
        loading: Loading,
    }
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
    let arriving = arriving.iter().map(|arriving| Arriving {
        name: arriving.card.display_name(),
        model: arriving.card.display_name(),
        loading: arriving.loading,
    });
    json::to_vec(&Models { models: entries.collect::<Vec<_>>(), loading: arriving.collect() })
}

#[derive(Serialize)]
struct Models<T, U> {
    models: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loading: Vec<U>,
}

/// `details`; `parent_model` and `families` must be there, `families` null where nothing is known.
#[derive(Serialize)]
pub(super) struct Details<'a> {
    parent_model: &'a str,
    format: &'static str,
    family: &'a str,
    families: Option<[&'a str; 1]>,
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
            parent_model: card.adapted.as_ref().map_or("", |adapted| &adapted.model),
            format: "gguf",
            family: &details.family,
            families: (!details.family.is_empty()).then_some([&details.family]),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::dialect::testing::card;

    #[test]
    fn tags_list_models_under_both_names_with_their_tag() {
        let list: Value =
            serde_json::from_slice(&tags(&["demo", "host:5000/a/b", "c:q4"].map(|name| card(name).into())))
                .unwrap();
        let names: Vec<_> = list["models"].as_array().unwrap().iter().map(|m| m["name"].clone()).collect();
        assert_eq!(names, ["demo:latest", "host:5000/a/b:latest", "c:q4"]);
        assert_eq!(
            list["models"][0],
            json!({
                "name": "demo:latest", "model": "demo:latest", "modified_at": "2025-01-01T00:00:00.000000000Z",
                "size": 10, "digest": "ab".repeat(32),
                "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                    "parameter_size": "8.0B", "quantization_level": "Q4_0", "context_length": 2048},
                "capabilities": ["completion", "tools"]
            })
        );
    }

    #[test]
    fn no_models_are_an_empty_list() {
        assert_eq!(tags(&[]), br#"{"models":[]}"#);
        assert_eq!(ps(&[], &[], OffsetDateTime::UNIX_EPOCH), br#"{"models":[]}"#);
    }

    #[test]
    fn ps_lists_the_longest_life_first_and_never_as_a_far_date() {
        let now = datetime!(2025-01-01 00:00:00 UTC);
        let loaded = |name, expires| LoadedModel {
            card: card(name).into(),
            memory: 20,
            device_memory: 5,
            expires,
            context: 4096,
        };
        let models = [loaded("soon", Some(now + Duration::minutes(5))), loaded("never", None)];
        let list: Value = serde_json::from_slice(&ps(&models, &[], now)).unwrap();
        assert_eq!(list["models"][0]["name"], "never:latest");
        assert!(list["models"][0]["expires_at"].as_str().unwrap().starts_with("2314-"));
        assert_eq!(list["models"][1]["expires_at"], "2025-01-01T00:05:00.000000000Z");
        assert_eq!(
            (
                &list["models"][1]["size"],
                &list["models"][1]["size_vram"],
                &list["models"][1]["context_length"]
            ),
            (&json!(20), &json!(5), &json!(4096))
        );
    }

    #[test]
    fn what_is_on_its_way_is_beside_what_is_in_memory() {
        let eta = Some(std::time::Duration::from_secs(3));
        let loading = Loading { state: crate::generation::LoadingState::Loading, progress: 0.5, eta };
        let list = ps(&[], &[ArrivingModel { card: card("m").into(), loading }], OffsetDateTime::UNIX_EPOCH);
        let list: Value = serde_json::from_slice(&list).unwrap();
        let entry = json!({"name": "m:latest", "model": "m:latest", "state": "loading", "progress": 0.5, "eta_seconds": 3.0});
        assert_eq!(list, json!({"models": [], "loading": [entry]}));
    }
}
