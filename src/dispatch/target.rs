//! [`Target`]: the model a request is for, once its name is known to mean one.

use std::sync::{Arc, PoisonError};

use super::Dispatch;
use crate::dialect::Call;
use crate::error::Error;
use crate::generation::Adaptation;
use crate::library::{Model, Named};
use crate::node::Node;

/// A model that can be asked.
#[derive(Clone)]
pub struct Target {
    /// As [`crate::library::Library::canonical`] spells it; one of the configured ones, so it may be a metric label.
    pub name: Arc<str>,
    /// The configured model; `None` if only nodes of the config serve it.
    pub model: Option<Arc<Model>>,
    /// The adapter that the name is of.
    pub adapter: Option<Arc<str>>,
}

impl Target {
    /// Whether `node`, which serves a model of this name, serves this one: a worker of another edition does not.
    fn is_served_by(&self, node: &Node) -> bool {
        node.is_remote() || self.model.as_ref().is_some_and(|model| model.edition() == node.edition)
    }

    /// How it is called: by its adapter's name if it has one.
    pub fn asked_as(&self) -> &Arc<str> {
        self.adapter.as_ref().unwrap_or(&self.name)
    }

    /// What its name says of adapters.
    pub(super) fn adaptation(&self) -> Adaptation {
        let adapter = |name: &Arc<str>| Adaptation::Adapter { name: name.to_string(), scale: None };
        self.adapter.as_ref().map_or(Adaptation::Default, adapter)
    }
}

impl Dispatch {
    /// The nodes that take requests for `target` now.
    pub(super) fn nodes_of(&self, target: &Target) -> Vec<Arc<Node>> {
        let mut nodes = self.pool.of(&target.name);
        nodes.retain(|node| target.is_served_by(node));
        nodes
    }

    /// The target of a call, in Ollama's order of checks: the name, the model, objections, capabilities.
    pub fn target(&self, call: &mut Call) -> Result<Target, Error> {
        // Only llama-server's endpoints come here without a name; the others refuse such a request.
        if call.model.is_empty() {
            call.model = self.only_model()?;
        }
        let target =
            self.find(&call.model)?.ok_or_else(|| Error::ModelNotFound { name: call.model.clone() })?;
        if let Some(objection) = call.objection.take() {
            return Err(objection);
        }
        match &target.model {
            Some(model) => match unmet_need(model, call) {
                Some(error) => Err(error),
                None => Ok(target),
            },
            // What a node can do is not known here; it will say.
            None => Ok(target),
        }
    }

    /// What is meant by who names no model.
    fn only_model(&self) -> Result<String, Error> {
        let (models, elsewhere) = (self.library.models(), self.catalog.served_elsewhere());
        let names = models.iter().map(|model| model.name.as_str());
        let names = names.chain(elsewhere.iter().map(|card| card.name.as_str()));
        match names.collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).to_owned()),
            names => {
                let message = format!("model is required: there are several ({})", names.join(", "));
                Err(Error::invalid_param("model", message))
            }
        }
    }

    /// The model that `name` means, if any.
    pub fn find(&self, name: &str) -> Result<Option<Target>, Error> {
        let _stands_still = self.renewing.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Named { model, adapter }) = self.library.resolve(name)? {
            return Ok(Some(Target { name: model.name.as_str().into(), model: Some(model), adapter }));
        }
        let remote = self.catalog.remote(&self.library.canonical(name));
        Ok(remote.map(|(name, _)| Target { name, model: None, adapter: None }))
    }
}

/// The error for the first thing that the call needs and the model cannot do. A file that cannot be read claims nothing;
/// loading it will say what is wrong with it, so nothing is refused here.
fn unmet_need(model: &Model, call: &mut Call) -> Option<Error> {
    if call.needs.is_empty() {
        return None;
    }
    let card = model.card().ok()?;
    let mut needs = call.needs.drain(..);
    needs.find(|(capability, _)| !card.capabilities.contains(capability)).map(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cache::CacheConfig;
    use crate::dispatch::testing;
    use crate::library::{Library, ModelConfig};
    use crate::node::Via;
    use crate::telemetry::Metrics;

    /// The embedded model as `Small` with the alias `tiny`, and one node that serves `served`.
    fn dispatch(dir: &std::path::Path, served: &[&str]) -> Dispatch {
        let small: Value = json!({"path": "builtin:demo", "aliases": ["tiny"], "parallel": 1});
        let small = serde_json::from_value(small).unwrap();
        let library = Library::open([("Small".to_owned(), small)], dir);
        let node = json!({"name": "box", "url": "unix:/box", "models": served, "max_in_flight": usize::MAX});
        testing::dispatch(library, node, &CacheConfig::default(), dir, &Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn who_asks_a_question_may_leave_the_only_model_out() {
        let dir = tempfile::tempdir().unwrap();
        let asked = |served: &[&str], model: &str| {
            let body = json!({"content": "x", "model": model}).to_string();
            let mut call =
                crate::dialect::parse(&crate::dialect::Endpoint::Tokenize, body.as_bytes()).unwrap();
            let target = dispatch(dir.path(), served).target(&mut call);
            target.map(|target| target.name.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(asked(&[], ""), Ok("Small".to_owned()));
        assert_eq!(asked(&["elsewhere"], "elsewhere"), Ok("elsewhere".to_owned()));
        let several = "model is required: there are several (Small, elsewhere)";
        assert_eq!(asked(&["elsewhere"], ""), Err(several.to_owned()));
    }

    #[test]
    fn a_model_of_a_node_answers_to_every_spelling_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = dispatch(dir.path(), &["Llama3:latest"]);
        for name in ["llama3", "Llama3:latest", "library/LLAMA3"] {
            let target = dispatch.find(name).unwrap().unwrap();
            assert!(target.model.is_none() && dispatch.catalog.gate(&target.name).is_some(), "{name}");
            assert_eq!(dispatch.pool.of(&target.name).len(), 1, "{name}");
        }
        assert!(dispatch.find("llama3:8b").unwrap().is_none());
        assert!(dispatch.find("no name").is_err());
    }

    #[test]
    fn a_node_that_serves_a_model_of_the_library_stands_behind_the_same_gate() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["small", "TINY:latest"] {
            let dispatch = dispatch(dir.path(), &[name]);
            let target = dispatch.find("small").unwrap().unwrap();
            assert_eq!(&*target.name, "Small", "{name}");
            assert_eq!(dispatch.pool.of(&target.name).len(), 1, "{name}");
            assert!(dispatch.catalog.served_elsewhere().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_name_means_what_the_configuration_has_and_else_what_nodes_serve() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = dispatch(dir.path(), &["elsewhere"]);
        let kind = || dispatch.find("elsewhere").unwrap().map(|target| target.model.is_some());
        let renew = |models: Vec<(String, ModelConfig)>| {
            dispatch.renew(Default::default(), || {
                dispatch.library.renew(models);
            });
        };
        assert_eq!(kind(), Some(false));
        renew(vec![("elsewhere".to_owned(), ModelConfig::at("builtin:demo"))]);
        assert_eq!((kind(), dispatch.catalog.served_elsewhere().len()), (Some(true), 0));
        renew(Vec::new());
        assert_eq!((kind(), dispatch.catalog.served_elsewhere().len()), (Some(false), 1));
    }

    #[test]
    fn workers_of_another_edition_are_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = dispatch(dir.path(), &["Small"]);
        let target = dispatch.find("small").unwrap().unwrap();
        let editions = [target.model.as_ref().unwrap().edition(), 0];
        for (incarnation, edition) in (1..).zip(editions) {
            let mut worker = Node::new("w", "/w".into(), incarnation, 1);
            worker.edition = edition;
            dispatch.pool.add("Small", Arc::new(worker));
        }
        let incarnations = |target: &Target| {
            let nodes = dispatch.nodes_of(target).into_iter().filter(|node| !node.is_remote());
            nodes.map(|node| node.incarnation).collect::<Vec<_>>()
        };
        assert_eq!((dispatch.nodes_of(&target).len(), incarnations(&target)), (2, vec![1]));
        assert_eq!(incarnations(&Target { model: None, ..target }), [0; 0]);
    }

    #[test]
    fn what_a_model_cannot_do_is_refused_in_the_order_of_the_needs() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = dispatch(dir.path(), &["elsewhere"]);
        let asked = |model: &str, think: bool| {
            let body = json!({"model": model, "messages": [{"role": "user", "content": "", "images": ["AA=="]}],
                "tools": [{"type": "function", "function": {"name": "f"}}], "think": think});
            let body = body.to_string();
            let mut call = crate::dialect::parse(&crate::dialect::Endpoint::Chat, body.as_bytes()).unwrap();
            dispatch.target(&mut call).map(|_| ()).map_err(|error| error.to_string())
        };
        let refusal = |text: &str| Err(text.to_owned());
        assert_eq!(asked("Tiny", true), refusal("\"Tiny\" does not support thinking"));
        let full_name = "registry.ollama.ai/library/Tiny:latest";
        assert_eq!(asked("Tiny", false), refusal(&format!("{full_name} does not support tools")));
        assert_eq!(asked("elsewhere", true), Ok(()));
    }

    #[test]
    fn models_of_nodes_are_listed_and_shown_by_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = dispatch(dir.path(), &["elsewhere"]);
        let names: Vec<_> = dispatch.cards(&Via::default()).iter().map(|card| card.name.clone()).collect();
        assert_eq!(names, ["Small", "elsewhere"]);
        assert_eq!(dispatch.card("ELSEWHERE:latest", true).unwrap().name, "elsewhere");
        let (brief, full) = (dispatch.card("tiny", false).unwrap(), dispatch.card("tiny", true).unwrap());
        assert!(brief.tensors.is_empty() && !full.tensors.is_empty());
        assert_eq!(dispatch.card("no", false).err(), Some(Error::ModelNotFound { name: "no".into() }));
    }
}
