//! [`Target`]: the model a request is for, once its name is known to mean one.

use std::sync::Arc;

use super::Dispatch;
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::library::Model;

/// A model that can be asked.
#[derive(Clone)]
pub struct Target {
    /// The configured name; bounded, so it may be a metric label.
    pub name: Arc<str>,
    /// The configured model; `None` if only nodes of the config serve it.
    pub model: Option<Arc<Model>>,
}

impl Dispatch {
    /// The target of a call, in Ollama's order of checks: the name, the model, objections, capabilities.
    pub fn target(&self, call: &mut Call) -> Result<Target, Error> {
        let target =
            self.find(&call.model)?.ok_or_else(|| Error::ModelNotFound { name: call.model.clone() })?;
        if let Some(objection) = call.objection.take() {
            return Err(objection);
        }
        if let Some(model) = &target.model {
            for (capability, error) in call.needs.drain(..) {
                if !able(model, capability) {
                    return Err(error);
                }
            }
        }
        Ok(target)
    }

    /// The model that `name` means, if any.
    pub fn find(&self, name: &str) -> Result<Option<Target>, Error> {
        if let Some(model) = self.library.resolve(name)? {
            return Ok(Some(Target { name: model.name.as_str().into(), model: Some(model) }));
        }
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let remote = self.remote.iter().find(|remote| remote.eq_ignore_ascii_case(bare));
        Ok(remote.map(|remote| Target { name: Arc::clone(remote), model: None }))
    }
}

/// A file that cannot be read claims nothing; loading it will say what is wrong with it, so nothing is refused here.
fn able(model: &Model, capability: Capability) -> bool {
    model.card().is_err() || model.can(capability)
}
