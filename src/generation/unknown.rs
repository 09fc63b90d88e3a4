//! [`Unknown`]: what a client's API may have that is not known here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields of a request that this program does not know, such as another server's extensions. They travel to nodes that speak the
/// client's API and mean nothing to all others. There they may change the answer, so they are a
/// part of an [`Identity`](super::Identity) where such a node may answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unknown {
    /// Of OpenAI's requests.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub openai: Map<String, Value>,
    /// Of Ollama's requests.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub ollama: Map<String, Value>,
    /// Of the `options` in them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub ollama_options: Map<String, Value>,
}

impl Unknown {
    /// Nothing, if that is what it is.
    pub fn some(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// Puts `fields` into a request, under those that it has already.
pub fn put_under(body: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (name, value) in fields {
        body.entry(name.as_str()).or_insert_with(|| value.clone());
    }
}
