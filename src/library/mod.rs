//! The library: the models this Arriero is configured to serve, and what their files say about them.

mod adapter;
mod builtin;
mod card;
mod config;
mod cut;
mod edition;
mod place;
mod quantization;
mod shelf;

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

pub use adapter::AdapterConfig;
pub use card::elsewhere;
pub use config::{BUILTIN_DEMO, ModelConfig};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use edition::Edition;
use shelf::Shelf;

use crate::dialect::{ModelCard, name};
use crate::error::Error;
use crate::generation::seam::SpeculateSettings;
use crate::gguf::Detail;

/// More cards than anybody configures models; a card is some 100 KB.
const CARDS: u64 = 1024;
/// A file is looked at no more often than this, however many requests ask about it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Every configured model, by name, alias and the names of its adapters. The configuration may change; whoever has found a model
/// keeps it as it was.
pub struct Library {
    runtime: PathBuf,
    cards: Cache<Arc<Version>, Arc<ModelCard>>,
    shelf: RwLock<Arc<Shelf>>,
}

/// What a name means.
#[derive(Clone)]
pub struct Named {
    /// The model.
    pub model: Arc<Model>,
    /// The configured name of its adapter, where the name is one's.
    pub adapter: Option<Arc<str>>,
}

/// One configured model.
pub struct Model {
    /// The configured name.
    pub name: String,
    /// Its section.
    pub config: ModelConfig,
    edition: Arc<Edition>,
    runtime: PathBuf,
    /// What of its section answers depend on, as a hash.
    settings: String,
    /// The state of the file when it was last looked at.
    seen: Mutex<Option<(Instant, Arc<Version>)>>,
    cards: Cache<Arc<Version>, Arc<ModelCard>>,
}

/// One state of a model's file.
#[derive(PartialEq, Eq, Hash)]
struct Version {
    /// The model's: two models may have one file and describe it differently.
    edition: u64,
    path: PathBuf,
    modified: SystemTime,
    size: u64,
    /// Time and size of its projector.
    projector: Option<(SystemTime, u64)>,
}

impl Library {
    /// Opens the library. A model whose file is missing or broken is still listed here; loading it says what is wrong.
    /// `runtime` is a private directory where the embedded model is put as a file when first used.
    pub fn open(models: impl IntoIterator<Item = (String, ModelConfig)>, runtime: &Path) -> Self {
        let library =
            Self { runtime: runtime.to_owned(), cards: Cache::new(CARDS), shelf: RwLock::default() };
        library.renew(models);
        library
    }

    /// Has these models from now on; those that are new or have changed, be it in their aliases. A model that has not changed stays the very
    /// one it is, and one whose workers can go on as they are keeps its edition. Those that are gone are retired, whoever holds one.
    pub fn renew(&self, models: impl IntoIterator<Item = (String, ModelConfig)>) -> Vec<Arc<Model>> {
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = Vec::new();
        let models = models.into_iter().map(|(name, mut config)| {
            if builtin::name(&config.path).is_some() {
                config.options.temperature.get_or_insert(builtin::TEMPERATURE);
            }
            let before = shelf.model(&name);
            if let Some(model) = before.filter(|model| model.config == config) {
                return Arc::clone(model);
            }
            let before = before.filter(|model| model.config.has_workers_of(&config));
            let edition = before.map_or_else(|| Arc::new(Edition::new()), |model| Arc::clone(&model.edition));
            let (runtime, cards, settings) = (self.runtime.clone(), self.cards.clone(), settings(&config));
            let seen = Mutex::default();
            let model = Arc::new(Model { name, config, edition, runtime, settings, seen, cards });
            renewed.push(Arc::clone(&model));
            model
        });
        let next = Arc::new(Shelf::new(models.collect()));
        std::mem::replace(&mut *shelf, Arc::clone(&next)).give_way_to(&next);
        renewed
    }

    fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a client's name means: configured name, alias or adapter, any case, with or without `:latest`, with or without the
    /// default host and namespace. A malformed name is `Error::Invalid("invalid model name")`, an unknown one `None`; so is
    /// the empty one, because Ollama answers it with "model '' not found".
    pub fn resolve(&self, name: &str) -> Result<Option<Named>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let key = name::key(name).ok_or_else(|| Error::invalid_param("model", "invalid model name"))?;
        Ok(self.shelf().get(&key).cloned())
    }

    /// The one spelling of all names of a model, its adapters' included: the configured name where `name` is one of ours, else its key. Whatever is
    /// kept by model, in any map, is kept under this.
    pub fn canonical(&self, name: &str) -> String {
        let key = key(name);
        self.shelf().get(&key).map_or(key, |named| named.model.name.clone())
    }

    /// The same for a name from elsewhere; `None`: clients cannot ask for it.
    pub fn known_as(&self, name: &str) -> Option<String> {
        name::key(name).map(|_| self.canonical(name))
    }

    /// Reads every card, so that no request has to wait for one. Blocks on the disk. What is wrong with a file is said when
    /// it is asked for.
    pub fn warm(&self) {
        for model in self.shelf().models() {
            if let Err(reason) = model.card() {
                tracing::debug!(model = model.name, reason, "no card yet");
            }
        }
    }

    /// All models, in the order of their names. Unlike [`Library::models`] it asks no disk.
    pub fn configured(&self) -> Vec<Arc<Model>> {
        self.shelf().models().to_vec()
    }

    /// All models, most recently changed file first, those without a file last.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let now = Instant::now();
        let mut models = self.configured();
        models.sort_by_cached_key(|model| {
            Reverse(model.version(now).map_or(SystemTime::UNIX_EPOCH, |version| version.modified))
        });
        models
    }
}

/// A malformed name is nobody's but its own.
fn key(name: &str) -> String {
    name::key(name).unwrap_or_else(|| name.to_lowercase())
}

impl Model {
    /// Differs between a model and one of the same name whose workers are other ones.
    pub fn edition(&self) -> u64 {
        self.edition.number()
    }

    /// Whether the configuration has it no longer: it goes on for who holds it.
    pub fn is_retired(&self) -> bool {
        self.edition.is_retired()
    }

    /// The GGUF file; for `builtin:demo` the embedded model, written to the runtime directory first. Errors in words.
    pub fn file(&self) -> Result<PathBuf, String> {
        match builtin::name(&self.config.path) {
            Some(name) => builtin::file(name, &self.runtime),
            None => Ok(PathBuf::from(&self.config.path)),
        }
    }

    /// How it speculates, the file of its draft model included, as [`Model::file`] has it. Errors in words.
    pub fn speculate(&self) -> Result<SpeculateSettings, String> {
        let mut settings = self.config.speculate.clone();
        if let Some(draft) = &mut settings.draft
            && let Some(name) = draft.path.to_str().and_then(builtin::name)
        {
            draft.path = builtin::file(name, &self.runtime)?;
        }
        Ok(settings)
    }

    /// What the file says about the model; read once and kept until the file changes, which is seen within a second.
    /// Errors in words.
    pub fn card(&self) -> Result<Arc<ModelCard>, String> {
        self.card_at(Instant::now())
    }

    fn card_at(&self, now: Instant) -> Result<Arc<ModelCard>, String> {
        let version = self.version(now)?;
        let path = version.path.clone();
        let read = || card::read(&self.name, &self.config, &path, Detail::Brief).map(Arc::new);
        self.cards.try_get_with(version, read).map_err(|error| String::clone(&error))
    }

    /// What answers in this model's name: its file, its adapters' and the settings that answers depend on. Two that are equal say the same.
    /// Errors in words.
    pub fn answering(&self) -> Result<String, String> {
        let mut answering = format!("{}:{}", self.card()?.digest, self.settings);
        for adapter in self.config.adapters.values() {
            let (modified, size) = look(Path::new(&adapter.path))?;
            answering += &card::hex(card::identity(size, modified));
        }
        Ok(answering)
    }

    /// The card with every array and tensor, which can be some 100 MB: read from the disk each time and kept by nobody.
    /// Errors in words.
    pub fn full_card(&self) -> Result<ModelCard, String> {
        card::read(&self.name, &self.config, &self.file()?, Detail::Full)
    }

    fn version(&self, now: Instant) -> Result<Arc<Version>, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some((at, version)) if now.saturating_duration_since(*at) < LOOK_AGAIN => Ok(Arc::clone(version)),
            _ => {
                let version = Arc::new(self.look()?);
                *seen = Some((now, Arc::clone(&version)));
                Ok(version)
            }
        }
    }

    fn look(&self) -> Result<Version, String> {
        let path = self.file()?;
        let (modified, size) = look(&path)?;
        let projector = self.config.projector.as_deref().map(look).transpose()?;
        Ok(Version { edition: self.edition(), path, modified, size, projector })
    }
}

/// A hash of what answers depend on; how fast they come is no part of it.
fn settings(config: &ModelConfig) -> String {
    let ModelConfig { template, system, options, context, kv_type, pooling, adapters, .. } = config;
    // A map with keys that are no texts would not be JSON, and there is none.
    let text = serde_json::to_vec(&(template, system, options, context, kv_type, pooling, adapters));
    card::hex(Sha256::digest(text.unwrap_or_default()))
}

/// Time and size of a file. Errors in words.
fn look(path: &Path) -> Result<(SystemTime, u64), String> {
    let in_words = |error| format!("{}: {error}", path.display());
    let facts = path.metadata().map_err(in_words)?;
    if !facts.is_file() {
        return Err(format!("{}: not a file", path.display()));
    }
    Ok((facts.modified().map_err(in_words)?, facts.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gguf::writer::Writer;

    fn config(value: serde_json::Value) -> ModelConfig {
        serde_json::from_value(value).unwrap()
    }

    fn library(runtime: &Path, models: &[(&str, serde_json::Value)]) -> Library {
        Library::open(models.iter().map(|(name, value)| (name.to_string(), config(value.clone()))), runtime)
    }

    fn tiny() -> Vec<u8> {
        Writer::default().string("general.architecture", "llama").finish()
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
        let resolve = |name: &str| library.resolve(name).map(|named| named.map(|n| n.model.name.clone()));
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
    fn what_answers_depend_on_tells_models_apart_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (file, adapter) = (dir.path().join("m.gguf"), dir.path().join("a.gguf"));
        std::fs::write(&file, tiny()).unwrap();
        std::fs::write(&adapter, "one").unwrap();
        let answering = |more: serde_json::Value| {
            let mut section = json!({ "path": file });
            section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            library(dir.path(), &[("m", section)]).models()[0].answering().unwrap()
        };
        let plain = answering(json!({}));
        assert_eq!(plain, answering(json!({ "threads": 3, "aliases": ["x"], "keep_alive": "1h" })));
        let with = answering(json!({ "adapters": { "a": { "path": adapter } } }));
        let others = [
            json!({ "system": "Be brief." }),
            json!({ "options": { "temperature": 0 } }),
            json!({ "context": 9 }),
        ];
        assert!(others.map(answering).iter().chain([&with]).all(|other| *other != plain));
        std::fs::write(&adapter, "another").unwrap();
        assert_ne!(with, answering(json!({ "adapters": { "a": { "path": adapter } } })));
    }

    #[test]
    fn all_names_of_a_model_have_one_canonical_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path(), &[("Demo", json!({"path": "builtin:demo", "aliases": ["other"]}))]);
        for name in ["Demo", "demo:latest", "library/DEMO", "other", "Other:latest"] {
            assert_eq!(library.canonical(name), "Demo", "{name}");
        }
        assert_eq!(library.canonical("Llama3:latest"), "llama3");
        assert_eq!(library.canonical(&library.canonical("hf.co/X/y:Q4")), "hf.co/x/y:q4");
        assert_eq!(library.canonical("No Name"), "no name");
    }

    #[test]
    fn a_model_stays_the_same_unless_its_section_changes() {
        let dir = tempfile::tempdir().unwrap();
        let builtin = || json!({"path": "builtin:demo", "aliases": ["one"]});
        let library = library(dir.path(), &[("a", builtin()), ("b", json!({"path": "/b.gguf"}))]);
        let model = |name: &str| library.resolve(name).unwrap().map(|named| named.model);
        let renew = |models: &[(&str, serde_json::Value)]| {
            let models = models.iter().map(|(name, value)| (name.to_string(), config(value.clone())));
            library.renew(models).iter().map(|model| model.name.clone()).collect::<Vec<_>>()
        };
        let (a, b) = (model("a").unwrap(), model("b").unwrap());
        assert_eq!(renew(&[("a", builtin()), ("c", json!({"path": "/c.gguf"}))]), ["c"]);
        assert!(Arc::ptr_eq(&a, &model("one").unwrap()));
        assert!(b.is_retired() && !a.is_retired() && model("b").is_none() && model("c").is_some());
        assert_eq!(library.configured().len(), 2);
    }

    #[test]
    fn an_edition_lasts_while_workers_can_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path(), &[("m", json!({"path": "/m.gguf"}))]);
        let model = || library.resolve("m").unwrap().unwrap().model;
        let first = model();
        let renew = |section: serde_json::Value| library.renew([("m".to_owned(), config(section))]);
        renew(json!({"path": "/m.gguf", "aliases": ["x"], "keep_alive": "1s", "pin": true, "preload": true}));
        assert_eq!((model().edition(), model().config.pin), (first.edition(), true));
        assert!(!first.is_retired(), "its workers are those of the one in its place");
        renew(json!({"path": "/m.gguf", "parallel": 2}));
        assert_ne!(model().edition(), first.edition());
        assert!(first.is_retired() && !model().is_retired());
    }

    #[test]
    fn a_card_is_kept_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, tiny()).unwrap();
        let library = library(dir.path(), &[("m", json!({"path": path}))]);
        let model = library.resolve("m").unwrap().unwrap().model;
        let now = Instant::now();
        let first = model.card_at(now).unwrap();
        assert!(Arc::ptr_eq(&first, &model.card_at(now + LOOK_AGAIN).unwrap()));
        std::fs::write(&path, [tiny(), vec![0]].concat()).unwrap();
        assert_ne!(model.card_at(now + 2 * LOOK_AGAIN).unwrap().digest, first.digest);
    }

    #[test]
    fn a_file_is_looked_at_once_a_second_and_a_missing_one_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let library = library(dir.path(), &[("m", json!({"path": path}))]);
        let model = library.resolve("m").unwrap().unwrap().model;
        let now = Instant::now();
        assert!(model.card_at(now).is_err());
        std::fs::write(&path, tiny()).unwrap();
        library.warm();
        assert!(model.card_at(now).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(model.card_at(now).is_ok());
        assert!(model.card_at(now + 2 * LOOK_AGAIN).is_err());
    }

    #[test]
    fn a_full_card_has_the_tensors_and_whole_arrays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let tokens = ["a", "b", "c", "d", "e", "f"];
        let file = Writer::default().strings("tokenizer.ggml.tokens", &tokens);
        std::fs::write(&path, file.tensor("output.weight", 0, &[2]).finish()).unwrap();
        let library = library(dir.path(), &[("m", json!({"path": path}))]);
        let model = library.resolve("m").unwrap().unwrap().model;
        let (brief, full) = (model.card().unwrap(), model.full_card().unwrap());
        assert_eq!(brief.model_info["tokenizer.ggml.tokens"], serde_json::Value::Null);
        assert_eq!(full.model_info["tokenizer.ggml.tokens"], json!(tokens));
        assert_eq!((brief.tensors.len(), full.tensors.len()), (0, 1));
        assert_eq!(brief.digest, full.digest);
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
            let error = library.resolve(name).unwrap().unwrap().model.card().unwrap_err();
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
        let model = library.resolve("demo").unwrap().unwrap().model;
        let path = model.file().unwrap();
        let facts = path.metadata().unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600);
        assert_eq!(model.file().unwrap(), path);
        assert_eq!(path.metadata().unwrap().ino(), facts.ino());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
