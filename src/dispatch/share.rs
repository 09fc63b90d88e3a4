//! [`Sharing`]: which requests are the same, and the flight that they share.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::cached::Keeping;
use super::embed::Vector;
use super::{Claim, Dispatch, Target};
use crate::cache::Policy;
use crate::dialect::name;
use crate::error::Error;
use crate::flight::{CoalesceConfig, CoalesceMode, CoalesceScope, Flights, Handles, Items, Joined};
use crate::generation::{Generation, Identity, Options, Scope};

/// What the `coalesce` section says, and the flights that can be joined.
pub(super) struct Sharing {
    terms: RwLock<Arc<Terms>>,
    flights: Flights,
    /// What is being computed of embeddings.
    pub vectors: Items<Vector>,
    /// The streams that clients may come back to.
    pub handles: Handles,
    /// Nobody comes back any more.
    pub closing: CancellationToken,
}

/// The section, ready to be asked.
pub(super) struct Terms {
    pub config: CoalesceConfig,
    /// By the key of a model's name.
    models: HashMap<String, CoalesceMode>,
}

/// A request for a generation as it came, for as long as it may have to be started over.
#[derive(Clone)]
pub(super) struct Request {
    pub target: Target,
    pub claim: Claim,
    pub generation: Generation,
}

/// In what a request is the same as others.
struct Sameness {
    /// Known where one of the following is true.
    identity: Option<Identity>,
    /// While it runs.
    is_shared: bool,
    /// Afterwards, and under what terms.
    kept_by: Option<Policy>,
}

impl Sharing {
    pub(super) fn new(config: CoalesceConfig) -> Self {
        Self {
            terms: RwLock::new(Arc::new(Terms::new(config))),
            flights: Flights::default(),
            vectors: Items::default(),
            handles: Handles::default(),
            closing: CancellationToken::new(),
        }
    }

    /// Goes on under other settings. Flights that run can be joined as before.
    pub(super) fn configure(&self, config: CoalesceConfig) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Terms::new(config));
    }

    pub(super) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Terms {
    fn new(config: CoalesceConfig) -> Self {
        let models = config.models.iter().filter_map(|(model, mode)| Some((name::key(model)?, *mode)));
        Self { models: models.collect(), config }
    }

    /// When a request shares: as it says itself, else as its model's entry does.
    pub(super) fn mode(&self, target: &Target, claim: &Claim) -> CoalesceMode {
        // Two Arrieros whose requests went to each other and were joined there would wait for each other for ever; a fault on purpose is
        // for who asked for it.
        if !claim.via.is_empty() || claim.drill.is_some() {
            return CoalesceMode::Off;
        }
        let of_model = || self.models.get(&name::key(&target.name)?).copied();
        let said = claim.coalesce.or_else(|| if self.models.is_empty() { None } else { of_model() });
        said.unwrap_or(self.config.mode)
    }

    /// Who asks, as far as that parts requests.
    pub(super) fn tenant<'a>(&self, claim: &'a Claim) -> &'a str {
        match self.config.scope {
            CoalesceScope::Tenant => claim.tenant.as_deref().unwrap_or_default(),
            CoalesceScope::All => "",
        }
    }
}

impl Dispatch {
    /// Has the request answered: by the flight of an equal one, or by one of its own.
    pub(super) fn share(self: &Arc<Self>, mut request: Request) -> Answer {
        let terms = self.sharing.terms();
        let Sameness { identity, is_shared, kept_by } = self.sameness(&mut request, &terms);
        let control = request.claim.control;
        let keeping = identity
            .as_ref()
            .zip(kept_by)
            .map(|(identity, policy)| Arc::new(Keeping::new(&request, &terms, identity, policy)));
        let kept = keeping.as_deref().and_then(|keeping| self.kept_at_once(keeping));
        if let Some(keeping) = &keeping {
            self.foresee(&request, keeping, kept.is_some());
        }
        if let Some(answer) = kept {
            self.let_in(&request.target, &request.claim);
            return answer;
        }
        if control.only_if_cached && !(keeping.is_some() && self.responses.is_deep()) {
            return Answer::refused(Error::NotKept);
        }
        match self.sharing.flights.join(identity.as_ref().filter(|_| is_shared)) {
            Joined::Leader(writer, reader) => {
                self.take_off(request, keeping, writer);
                let answer = Answer::leader(reader);
                if control.may_read() { answer } else { answer.bypassing() }
            }
            Joined::Follower(reader) => {
                self.metrics.coalesced.with_label_values(&[&request.target.name]).inc();
                Answer::follower(reader, Arc::clone(self), request)
            }
        }
    }

    /// In what the request is the same as others.
    fn sameness(&self, request: &mut Request, terms: &Terms) -> Sameness {
        let Request { target, claim, generation } = request;
        let defaults = self.known_defaults(target);
        let is_drawn = is_drawn(&generation.options, defaults);
        let is_shared = match terms.mode(target, claim) {
            CoalesceMode::Off => false,
            CoalesceMode::Deterministic => !is_drawn,
            CoalesceMode::Always => true,
        };
        let may_be_kept = !is_drawn && !claim.control.no_store && claim.drill.is_none();
        let kept_by = may_be_kept.then(|| self.responses.policy(&target.name));
        let kept_by = kept_by.filter(|policy| policy.is_enabled);
        let identity = match is_shared || kept_by.is_some() {
            true => self.identify_by(target, claim, generation, terms, defaults),
            false => None,
        };
        Sameness { identity, is_shared, kept_by }
    }

    /// What makes the request the same as others.
    pub(super) fn identify(&self, request: &mut Request, terms: &Terms) -> Option<Identity> {
        let Request { target, claim, generation } = request;
        self.identify_by(target, claim, generation, terms, self.known_defaults(target))
    }

    /// The same by the `defaults` of its model, which take a look at the pool.
    fn identify_by(
        &self,
        target: &Target,
        claim: &Claim,
        generation: &mut Generation,
        terms: &Terms,
        defaults: Option<&Options>,
    ) -> Option<Identity> {
        let digest = self.digest_of(target);
        // Where each draw would have been another, those of one request have to be.
        let choice = if is_drawn(&generation.options, defaults) { claim.choice } else { 0 };
        let scope = Scope { digest: &digest, tenant: terms.tenant(claim), choice };
        match terms.config.fold.folded(generation, defaults, |folded| Identity::of(folded, scope)) {
            Ok(identity) => Some(identity),
            Err(error) => {
                tracing::warn!(%error, "a request without an identity");
                None
            }
        }
    }

    /// Says how long the model is to stay, as whoever is let in does.
    pub(super) fn let_in(&self, target: &Target, claim: &Claim) {
        if let (Some(model), Some(keep_alive)) = (&target.model, claim.keep_alive) {
            drop(self.supervisor.hold(model, Some(keep_alive)));
        }
    }

    /// What is meant by options that a request leaves out, where that is known: not if another server may answer.
    fn known_defaults<'a>(&self, target: &'a Target) -> Option<&'a Options> {
        let model = target.model.as_ref().filter(|_| !self.pool.has_remote(&target.name));
        model.map(|model| &model.config.options)
    }

    /// What will answer: the model's files and settings, or what its nodes say of it, or where those say nothing its name.
    pub(super) fn digest_of(&self, target: &Target) -> Arc<str> {
        let answering = match &target.model {
            // A file that cannot be read has none, and loading it will fail.
            Some(model) => model.answering(),
            None => self.catalog.remote(&target.name).map(|(_, card)| card.digest.as_str().into()),
        };
        answering.unwrap_or_default()
    }
}

/// Names the model and the adapter as nodes know them.
pub(super) fn address(generation: &mut Generation, target: &Target) {
    generation.model = target.name.to_string();
    if generation.adaptation.is_default() {
        generation.adaptation = target.adaptation();
    }
}

/// Whether the answer is drawn by lot: not at temperature 0, and not with a seed. What is not known counts as drawn.
fn is_drawn(options: &Options, defaults: Option<&Options>) -> bool {
    let temperature = options.temperature.or_else(|| defaults?.temperature);
    let seed = options.seed.or_else(|| defaults?.seed);
    temperature.is_none_or(|temperature| temperature > 0.0) && seed.is_none_or(|seed| seed < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: Option<f32>, seed: Option<i64>) -> Options {
        Options { temperature, seed, ..Options::default() }
    }

    #[test]
    fn an_answer_is_drawn_unless_greedy_or_seeded() {
        assert!(!is_drawn(&options(Some(0.0), None), None));
        assert!(!is_drawn(&options(Some(0.8), Some(0)), None));
        assert!(is_drawn(&options(Some(0.8), Some(-1)), None));
        assert!(is_drawn(&options(None, None), None));
        assert!(!is_drawn(&options(None, None), Some(&options(Some(0.0), None))));
        assert!(!is_drawn(&options(None, None), Some(&options(None, Some(7)))));
        assert!(is_drawn(&options(Some(0.8), Some(-1)), Some(&options(Some(0.0), Some(7)))));
    }

    #[test]
    fn the_request_has_the_last_word_on_sharing_then_its_model() {
        let models = [("Small".to_owned(), CoalesceMode::Always)];
        let terms = Terms::new(CoalesceConfig { models: models.into(), ..CoalesceConfig::default() });
        let target = |name: &str| Target { name: name.into(), model: None, adapter: None };
        let claim = |coalesce| Claim { coalesce, ..Claim::default() };
        assert_eq!(terms.mode(&target("small:latest"), &claim(None)), CoalesceMode::Always);
        assert_eq!(terms.mode(&target("other"), &claim(None)), CoalesceMode::Deterministic);
        assert_eq!(terms.mode(&target("small"), &claim(Some(CoalesceMode::Off))), CoalesceMode::Off);
    }
}
