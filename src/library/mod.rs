//! The library: the models this Arriero is configured to serve, and what their files say about them.

mod config;

use std::path::Path;
use std::sync::Arc;

pub use config::{BUILTIN_DEMO, ModelConfig};

use crate::dialect::{Capability, ModelCard};
use crate::error::Error;

/// Every configured model, by name and alias.
pub struct Library {}

/// One configured model.
pub struct Model {
    /// The configured name.
    pub name: String,
    /// Its section.
    pub config: ModelConfig,
}

impl Library {
    /// Opens the library. A model whose file is missing or broken is still listed here; loading it says what is wrong.
    /// `runtime` is a private directory where the embedded model is put as a file when first used.
    pub fn open(_models: impl IntoIterator<Item = (String, ModelConfig)>, _runtime: &Path) -> Self {
        todo!()
    }

    /// The model a client's name means: configured name or alias, any case, with or without `:latest`, with or without the
    /// default host and namespace. A malformed name is `Error::Invalid("invalid model name")`, an unknown one `None`.
    pub fn resolve(&self, _name: &str) -> Result<Option<Arc<Model>>, Error> {
        todo!()
    }

    /// All models, most recently changed file first.
    pub fn models(&self) -> Vec<Arc<Model>> {
        todo!()
    }
}

impl Model {
    /// The GGUF file; for `builtin:demo` the embedded model, written to the runtime directory first. Errors in words.
    pub fn file(&self) -> Result<std::path::PathBuf, String> {
        todo!()
    }

    /// What the file says about the model; read once and kept until the file changes. Errors in words.
    pub fn card(&self) -> Result<Arc<ModelCard>, String> {
        todo!()
    }

    /// Whether it can do `capability`, as far as its file tells.
    pub fn can(&self, _capability: Capability) -> bool {
        todo!()
    }
}
