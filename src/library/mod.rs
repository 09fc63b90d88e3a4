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
#[cfg(test)]
mod tests;

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
    /// The state of the files when they were last looked at.
    seen: Mutex<Option<(Instant, Arc<Version>)>>,
    /// What answered in that state.
    answering: Mutex<Option<(Arc<Version>, Arc<str>)>>,
    cards: Cache<Arc<Version>, Arc<ModelCard>>,
}

/// One state of a model's files.
#[derive(PartialEq, Eq, Hash)]
struct Version {
    /// The model's: two models may have one file and describe it differently.
    edition: u64,
    path: PathBuf,
    modified: SystemTime,
    size: u64,
    /// Time and size of its projector.
    projector: Option<(SystemTime, u64)>,
    /// The same of its adapters, in the order of their names; `None`: one that is not there, which only those who want it learn.
    adapters: Vec<Option<(SystemTime, u64)>>,
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
            let (seen, answering) = (Mutex::default(), Mutex::default());
            let model = Arc::new(Model { name, config, edition, runtime, settings, seen, answering, cards });
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
    /// `None`: a file cannot be read. Worked out when a file has changed, not for each request.
    pub fn answering(&self) -> Option<Arc<str>> {
        let version = self.version(Instant::now()).ok()?;
        let known = || self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answering)) = known().as_ref().filter(|(of, _)| Arc::ptr_eq(of, &version)) {
            return Some(Arc::clone(answering));
        }
        let mut answering = format!("{}:{}", self.card().ok()?.digest, self.settings);
        for adapter in &version.adapters {
            let (modified, size) = (*adapter)?;
            answering += &card::hex(card::identity(size, modified));
        }
        let answering: Arc<str> = answering.into();
        *known() = Some((version, Arc::clone(&answering)));
        Some(answering)
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
            before => {
                let found = self.look()?;
                let version = match before {
                    Some((_, version)) if **version == found => Arc::clone(version),
                    _ => Arc::new(found),
                };
                *seen = Some((now, Arc::clone(&version)));
                Ok(version)
            }
        }
    }

    fn look(&self) -> Result<Version, String> {
        let path = self.file()?;
        let (modified, size) = look(&path)?;
        let projector = self.config.projector.as_deref().map(look).transpose()?;
        let adapters = self.config.adapters.values().map(|adapter| look(Path::new(&adapter.path)).ok());
        let adapters = adapters.collect();
        Ok(Version { edition: self.edition(), path, modified, size, projector, adapters })
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
