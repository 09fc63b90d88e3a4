//! The library: the models this Arriero is configured to serve, and what their files say about them.

mod builtin;
mod card;
mod config;
mod gguf;
mod name;
mod quantization;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use config::{BUILTIN_DEMO, ModelConfig};
use moka::sync::Cache;

use crate::dialect::{Capability, ModelCard};
use crate::error::Error;

/// More cards than anybody configures models; a card is some 100 KB.
const CARDS: u64 = 1024;

/// Every configured model, by name and alias.
pub struct Library {
    models: Vec<Arc<Model>>,
    by_key: HashMap<String, Arc<Model>>,
}

/// One configured model.
pub struct Model {
    /// The configured name.
    pub name: String,
    /// Its section.
    pub config: ModelConfig,
    runtime: PathBuf,
    cards: Cache<Version, Arc<ModelCard>>,
}

/// One state of a model's file.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Version {
    name: String,
    path: PathBuf,
    modified: SystemTime,
    size: u64,
}

impl Library {
    /// Opens the library. A model whose file is missing or broken is still listed here; loading it says what is wrong.
    /// `runtime` is a private directory where the embedded model is put as a file when first used.
    pub fn open(models: impl IntoIterator<Item = (String, ModelConfig)>, runtime: &Path) -> Self {
        let cards = Cache::new(CARDS);
        let open = |(name, config)| {
            Arc::new(Model { name, config, runtime: runtime.to_owned(), cards: cards.clone() })
        };
        let models: Vec<Arc<Model>> = models.into_iter().map(open).collect();
        let mut by_key = HashMap::new();
        // A name wins over an alias, and the first alias over the second; `arriero check` complains about both.
        let names = models.iter().map(|model| (&model.name, model));
        let aliases = models.iter().flat_map(|model| model.config.aliases.iter().map(move |a| (a, model)));
        for (name, model) in names.chain(aliases) {
            let key = name::key(name).unwrap_or_else(|| name.to_lowercase());
            by_key.entry(key).or_insert_with(|| Arc::clone(model));
        }
        Self { models, by_key }
    }

    /// The model a client's name means: configured name or alias, any case, with or without `:latest`, with or without the
    /// default host and namespace. A malformed name is `Error::Invalid("invalid model name")`, an unknown one `None`; so is
    /// the empty one, because Ollama answers it with "model '' not found".
    pub fn resolve(&self, name: &str) -> Result<Option<Arc<Model>>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let key = name::key(name).ok_or_else(|| Error::invalid_param("model", "invalid model name"))?;
        Ok(self.by_key.get(&key).map(Arc::clone))
    }

    /// All models, most recently changed file first, those without a file last.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let mut models = self.models.clone();
        models.sort_by_cached_key(|model| {
            Reverse(model.version().map_or(SystemTime::UNIX_EPOCH, |version| version.modified))
        });
        models
    }
}

impl Model {
    /// The GGUF file; for `builtin:demo` the embedded model, written to the runtime directory first. Errors in words.
    pub fn file(&self) -> Result<PathBuf, String> {
        match builtin::name(&self.config.path) {
            Some(name) => builtin::file(name, &self.runtime),
            None => Ok(PathBuf::from(&self.config.path)),
        }
    }

    /// What the file says about the model; read once and kept until the file changes. Errors in words.
    pub fn card(&self) -> Result<Arc<ModelCard>, String> {
        let version = self.version()?;
        let path = version.path.clone();
        let read = || card::read(&self.name, &self.config, &path).map(Arc::new);
        self.cards.try_get_with(version, read).map_err(|error| String::clone(&error))
    }

    /// Whether it can do `capability`, as far as its file tells.
    pub fn can(&self, capability: Capability) -> bool {
        self.card().is_ok_and(|card| card.capabilities.contains(&capability))
    }

    fn version(&self) -> Result<Version, String> {
        let path = self.file()?;
        let facts = path.metadata().map_err(|error| format!("{}: {error}", path.display()))?;
        if !facts.is_file() {
            return Err(format!("{}: not a file", path.display()));
        }
        let modified = facts.modified().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Version { name: self.name.clone(), modified, size: facts.len(), path })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: serde_json::Value) -> ModelConfig {
        serde_json::from_value(value).unwrap()
    }

    fn library(runtime: &Path, models: &[(&str, serde_json::Value)]) -> Library {
        Library::open(models.iter().map(|(name, value)| (name.to_string(), config(value.clone()))), runtime)
    }

    fn tiny() -> Vec<u8> {
        gguf::writer::Writer::default().string("general.architecture", "llama").finish()
    }

    #[test]
    fn names_and_aliases_resolve_as_in_ollama() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(
            dir.path(),
            &[
                ("Demo", json!({"path": "builtin:demo", "aliases": ["gpt-4o-mini", "other"]})),
                ("other:8b", json!({"path": "/other.gguf"})),
                ("other", json!({"path": "/other.gguf"})),
            ],
        );
        let resolve = |name: &str| library.resolve(name).map(|model| model.map(|m| m.name.clone()));
        let found = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(resolve("demo"), found("Demo"));
        assert_eq!(resolve("registry.ollama.ai/library/DEMO:latest"), found("Demo"));
        assert_eq!(resolve("GPT-4o-mini:latest"), found("Demo"));
        assert_eq!(resolve("other"), found("other"));
        assert_eq!(resolve("OTHER:8B:local"), found("other:8b"));
        assert_eq!(resolve("other:7b"), Ok(None));
        assert_eq!(resolve(""), Ok(None));
        assert_eq!(resolve("no such name").unwrap_err().to_string(), "invalid model name");
    }

    #[test]
    fn a_card_is_kept_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, tiny()).unwrap();
        let library = library(dir.path(), &[("m", json!({"path": path}))]);
        let model = library.resolve("m").unwrap().unwrap();
        let first = model.card().unwrap();
        assert!(Arc::ptr_eq(&first, &model.card().unwrap()));
        assert!(model.can(Capability::Completion) && !model.can(Capability::Embedding));
        std::fs::write(&path, [tiny(), vec![0]].concat()).unwrap();
        assert_ne!(model.card().unwrap().digest, first.digest);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("broken.gguf");
        std::fs::write(&broken, b"hello world").unwrap();
        let library = library(
            dir.path(),
            &[
                ("missing", json!({"path": dir.path().join("none.gguf")})),
                ("folder", json!({"path": dir.path()})),
                ("broken", json!({"path": broken})),
                ("builtin", json!({"path": "builtin:nothing"})),
            ],
        );
        for (name, expected) in [
            ("missing", "No such file or directory"),
            ("folder", "not a file"),
            ("broken", "not a GGUF file"),
            ("builtin", "there is 'builtin:demo'"),
        ] {
            let error = library.resolve(name).unwrap().unwrap().card().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(library.models().len(), 4);
    }

    #[test]
    fn models_are_listed_most_recently_changed_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, seconds: u64| {
            let path = dir.path().join(name);
            std::fs::write(&path, tiny()).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            json!({"path": path})
        };
        let models = [("old", file("a", 10)), ("gone", json!({"path": "/none"})), ("new", file("b", 20))];
        let library = library(dir.path(), &models);
        let names: Vec<_> = library.models().iter().map(|model| model.name.clone()).collect();
        assert_eq!(names, ["new", "old", "gone"]);
    }

    #[test]
    fn the_built_in_model_becomes_a_private_file_that_is_written_once() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path(), &[("demo", json!({"path": "builtin:demo"}))]);
        let model = library.resolve("demo").unwrap().unwrap();
        let path = model.file().unwrap();
        let facts = path.metadata().unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600);
        assert_eq!(model.file().unwrap(), path);
        assert_eq!(path.metadata().unwrap().ino(), facts.ino());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
