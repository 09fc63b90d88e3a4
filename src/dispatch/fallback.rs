//! Fallbacks: another model answers what no node of the one that was asked for can.

use super::exchange::{Exchange, Generate};
use super::{Claim, Dispatch, Target};
use crate::dialect::Capability;
use crate::error::Error;
use crate::generation::{Adaptation, Failure, FailureCode, Generation, Input, Think};

impl Dispatch {
    /// Runs on a fallback what has failed with `error`, if there is one that can do it. Only their own are looked at, not those of
    /// fallbacks. If all fail as well, `error` stays what is told.
    pub(super) async fn fall_back<'a>(
        &self,
        target: &Target,
        claim: &Claim,
        run: &mut Generate<'a>,
        error: Error,
    ) -> Result<<Generate<'a> as Exchange>::Answer, Error> {
        let others = self.in_place_of(target, &error);
        if others.is_empty() || is_tied(&run.generation, target) {
            return Err(error);
        }
        // How long a model stays in memory was said of the one that was asked for.
        let claim = Claim { keep_alive: None, ..claim.clone() };
        let needs = needs(&run.generation);
        for (other, is_sibling) in others {
            if run.writer.has_begun() {
                break;
            }
            if !can(&other, &needs) {
                continue;
            }
            let (model, to) = (&target.name, other.asked_as().clone());
            tracing::warn!(%model, %to, reason = error.detail(), "no node is left; another model answers");
            self.metrics.fallbacks.with_label_values(&[&**model, &*to]).inc();
            if is_sibling {
                self.metrics.model_rungs.with_label_values(&[&**model, "sibling"]).inc();
            }
            if run.generation.adaptation == target.adaptation() {
                run.generation.adaptation = other.adaptation();
            }
            run.generation.model = other.name.to_string();
            (run.fallback, run.is_sibling) = (Some(to), is_sibling);
            let _hold = other.model.as_ref().map(|model| self.supervisor.hold(model, None));
            match self.on_a_node(&other, &claim, run).await {
                Ok(answer) => return Ok(answer),
                Err(told) if run.writer.has_begun() => return Err(told),
                Err(failed) => tracing::warn!(model = %other.name, reason = failed.detail(), "nor can it"),
            }
        }
        Err(error)
    }

    /// The models that answer in place of `target` after this error, as far as they are known now, and whether each is its sibling.
    fn in_place_of(&self, target: &Target, error: &Error) -> Vec<(Target, bool)> {
        let sibling = target.model.as_ref().and_then(|model| model.config.sibling.as_ref());
        let sibling = sibling.filter(|_| has_no_room(error)).and_then(|name| self.find(name).ok().flatten());
        let fallbacks = if is_exhausted(error) { self.fallbacks(target) } else { Vec::new() };
        let fallbacks = fallbacks.into_iter().map(|other| (other, false));
        sibling.map(|other| (other, true)).into_iter().chain(fallbacks).collect()
    }

    /// Those of its entry in `models`, or those that `retry` names for what only nodes serve.
    fn fallbacks(&self, target: &Target) -> Vec<Target> {
        let named = match &target.model {
            Some(model) => model.config.fallbacks.clone(),
            None => {
                let rules = self.rules();
                let is_it = |name: &String| self.library.canonical(name) == *target.name;
                let found = rules.retry.fallbacks.iter().find(|(name, _)| is_it(name));
                found.map(|(_, fallbacks)| fallbacks.clone()).unwrap_or_default()
            }
        };
        named.iter().filter_map(|name| self.find(name).ok().flatten()).collect()
    }
}

/// Whether the model could not be loaded, for want of memory as far as is known.
fn has_no_room(error: &Error) -> bool {
    matches!(error, Error::NoRoom { .. } | Error::LoadFailed { .. } | Error::LoadTimeout { .. })
}

/// Whether nobody who serves the model could have it. That its line is full is none of that: its nodes are well, and what is too
/// much for them would bury those of another model.
fn is_exhausted(error: &Error) -> bool {
    matches!(
        error,
        Error::NoNode { .. }
            | Error::NodesShut { .. }
            | Error::LoadFailed { .. }
            | Error::LoadTimeout { .. }
            | Error::NodeLost { .. }
            | Error::Unreachable { .. }
            | Error::Node(Failure { code: FailureCode::Unavailable | FailureCode::Internal, .. })
    )
}

/// Whether it names tokens or an adapter, which no other model has.
fn is_tied(generation: &Generation, target: &Target) -> bool {
    let goes_on_from_tokens =
        matches!(&generation.input, Input::Prompt { context, .. } if !context.is_empty());
    let wants_adapter = matches!(generation.adaptation, Adaptation::Adapter { .. })
        && generation.adaptation != target.adaptation();
    goes_on_from_tokens || wants_adapter || generation.options.logit_bias.is_some()
}

/// What a model must be able to do to answer.
fn needs(generation: &Generation) -> Vec<Capability> {
    let (tools, images, gap) = match &generation.input {
        Input::Chat { messages, tools } => {
            (!tools.is_empty(), messages.iter().any(|message| !message.images.is_empty()), false)
        }
        Input::Prompt { images, .. } | Input::Raw { images, .. } => (false, !images.is_empty(), false),
        Input::Infill { .. } => (false, false, true),
    };
    let thinks = !matches!(generation.think, None | Some(Think::Switch(false)));
    let needs = [
        (Capability::Completion, true),
        (Capability::Tools, tools),
        (Capability::Vision, images),
        (Capability::Insert, gap),
        (Capability::Thinking, thinks),
    ];
    needs.into_iter().filter(|(_, is_needed)| *is_needed).map(|(capability, _)| capability).collect()
}

/// Whether `target` can do all of it. What a node can do is not known here, nor what a file says that cannot be read; they will say.
fn can(target: &Target, needs: &[Capability]) -> bool {
    let card = target.model.as_ref().and_then(|model| model.card().ok());
    card.is_none_or(|card| needs.iter().all(|need| card.capabilities.contains(need)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn generation(more: Value) -> Generation {
        let mut body =
            json!({"model": "m", "input": {"kind": "chat", "messages": [{"role": "user", "content": "q"}]}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    fn target(adapter: Option<&str>) -> Target {
        Target { name: "m".into(), model: None, adapter: adapter.map(Into::into) }
    }

    #[test]
    fn a_full_line_and_what_the_client_got_wrong_are_no_reason_to_ask_another_model() {
        let node = |code| Error::Node(Failure { code, message: String::new() });
        let shut = Error::NodesShut { model: "m".into(), retry_after: Default::default() };
        for error in [shut, Error::NoNode { model: "m".into() }, node(FailureCode::Internal)] {
            assert!(is_exhausted(&error), "{error}");
        }
        let full = Error::QueueFull { retry_after: Default::default() };
        for error in [full, Error::ShuttingDown, node(FailureCode::ContextLength), Error::invalid("no")] {
            assert!(!is_exhausted(&error), "{error}");
        }
    }

    #[test]
    fn what_names_tokens_or_an_adapter_is_of_no_other_model() {
        let is_tied = |more, adapter| is_tied(&generation(more), &target(adapter));
        let pirate = json!({"adaptation": {"kind": "adapter", "name": "pirate"}});
        assert!(!is_tied(json!({}), None));
        assert!(!is_tied(pirate.clone(), Some("pirate")), "by the name of the model: the fallback has none");
        assert!(is_tied(pirate, None));
        assert!(is_tied(json!({"options": {"logit_bias": [[1, 2.0]]}}), None));
        assert!(is_tied(json!({"input": {"kind": "prompt", "prompt": "q", "context": [1]}}), None));
    }

    #[test]
    fn a_request_needs_what_is_in_it() {
        let seen = json!({"role": "user", "content": "q", "images": [{"data": "AA=="}]});
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let all = json!({"input": {"kind": "chat", "messages": [seen], "tools": tools}, "think": true});
        let expected = [Capability::Completion, Capability::Tools, Capability::Vision, Capability::Thinking];
        assert_eq!(needs(&generation(all)), expected);
        assert_eq!(needs(&generation(json!({"think": false}))), [Capability::Completion]);
        let gap = json!({"input": {"kind": "infill", "prefix": "a", "suffix": "b"}});
        assert_eq!(needs(&generation(gap)), [Capability::Completion, Capability::Insert]);
    }
}
