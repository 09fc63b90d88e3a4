//! LoRA adapters: entries of a model's `adapters`, and the cards of the models that they make of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Model, card};
use crate::dialect::{Adapted, ModelCard};
use crate::generation::seam;

/// One adapter of a model. Its name is a model's name to clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// The GGUF file that llama.cpp's `convert_lora_to_gguf.py` makes.
    pub path: String,
    /// How strongly it changes the model unless a request says otherwise.
    #[serde(default = "full")]
    pub scale: f32,
    /// Changes the model also under the model's own name.
    #[serde(default)]
    pub default: bool,
}

fn full() -> f32 {
    1.0
}

impl AdapterConfig {
    /// What a worker is told of it.
    pub fn spec(&self, name: &str) -> seam::Adapter {
        seam::Adapter {
            name: name.to_owned(),
            path: PathBuf::from(&self.path),
            scale: self.scale,
            default: self.default,
        }
    }

    /// Why the file cannot be used, as far as opening it tells.
    pub fn file_fault(&self) -> Option<String> {
        super::config::file_fault(self.path.as_ref())
    }
}

impl Model {
    /// The card of the model that its adapter `name` makes of it, from its own `card`. Errors in words.
    pub fn adapted(&self, name: &str, card: &ModelCard) -> Result<ModelCard, String> {
        let adapter = self.config.adapters.get(name).ok_or_else(|| format!("no adapter {name}"))?;
        let in_words = |error| format!("{}: {error}", adapter.path);
        let facts = std::fs::metadata(&adapter.path).map_err(in_words)?;
        let modified = facts.modified().map_err(in_words)?;
        let mut hasher = Sha256::new();
        hasher.update(&card.digest);
        hasher.update(card::identity(facts.len(), modified));
        hasher.update(adapter.scale.to_le_bytes());
        Ok(ModelCard {
            name: name.to_owned(),
            modified: card.modified.max(modified.into()),
            size: card.size.saturating_add(facts.len()),
            digest: card::hex(hasher.finalize()),
            adapted: Some(Adapted { model: card.name.clone(), path: adapter.path.clone() }),
            ..card.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

    use super::super::Library;
    use super::*;

    fn model(folder: &Path) -> Arc<Model> {
        let adapter = folder.join("a.gguf");
        let config = json!({"path": "builtin:demo", "adapters": {"pirate": {"path": adapter}}});
        let library = Library::open([("m".to_owned(), serde_json::from_value(config).unwrap())], folder);
        library.resolve("m").unwrap().unwrap().model
    }

    #[test]
    fn an_adapter_makes_a_model_of_its_own_that_names_the_one_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path());
        let own = model.card().unwrap();
        assert!(model.adapted("pirate", &own).unwrap_err().contains("a.gguf: No such file"));
        std::fs::write(folder.path().join("a.gguf"), "12345").unwrap();
        let card = model.adapted("pirate", &own).unwrap();
        assert_eq!((card.name.as_str(), card.size), ("pirate", own.size + 5));
        assert_eq!(card.adapted.unwrap().model, "m");
        assert_ne!(card.digest, own.digest);
        assert_eq!(card.capabilities, own.capabilities);
        assert!(model.adapted("parrot", &own).is_err());
    }

    #[test]
    fn an_entry_needs_a_path_and_changes_the_model_in_full_unless_it_says_otherwise() {
        let entry: AdapterConfig = serde_json::from_value(json!({"path": "/a.gguf"})).unwrap();
        let expected = json!({"name": "a", "path": "/a.gguf", "scale": 1.0, "default": false});
        assert_eq!(serde_json::to_value(entry.spec("a")).unwrap(), expected);
    }
}
