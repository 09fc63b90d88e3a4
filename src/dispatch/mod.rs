//! Dispatch: the way of a canonical request from a parsed call to a node and back, as a row of stages.
//!
//! ```text
//! resolve ─► cache ─► share a flight ─► admission ─► residency ─► breaker, health ─► routing ─► exchange ─► events
//! ```
//!
//! A generation runs in a task of its own and belongs to no client: the caller gets an [`Answer`] and may leave. What is in memory of the
//! cache is given at once; slower tiers are asked in that task, so by one for all who ask for the same.

mod answer;
mod breakers;
mod budget;
mod cached;
mod catalog;
mod choice;
mod config;
mod describe;
mod drill;
mod embed;
mod exchange;
mod fallback;
mod hedge;
mod late;
mod nodes;
mod place;
mod prefetch;
mod reconnect;
mod rules;
mod semantic;
mod settings;
mod share;
mod snapshot;
mod target;
#[cfg(test)]
mod testing;
mod warm;
mod work;

use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::task::TaskTracker;

pub use answer::Answer;
pub use config::{FaultsConfig, RetryConfig};
pub use drill::{Drill, NoDrill};
pub use late::{Late, NotLate};
pub use nodes::{Deed, Excluded, Explanation, NodeReport, Serving};
pub use target::Target;
pub use warm::{Failed, Warmed};

use breakers::Breakers;
use cached::Keeping;
use catalog::Catalog;
use late::Beginnings;
use place::Waited;
use rules::Rules;
use semantic::Embedder;
use share::{Request, Sharing};
use work::Seam;

use crate::admission::QueueConfig;
use crate::breaker::BreakerConfig;
use crate::cache::{Control, Responses, Vectors};
use crate::dialect::{Question, Reply};
use crate::error::Error;
use crate::flight::{CoalesceConfig, CoalesceMode, Ids, Route, Writer};
use crate::generation::{Done, Generation, Priority, Ranking, Resume, Scores};
use crate::library::Library;
use crate::node::{Pool, Via};
use crate::routing::{RoutingConfig, Site};
use crate::telemetry::Metrics;
use crate::units::KeepAlive;
use crate::upstream::Upstream;
use crate::worker::Supervisor;

/// Everything a request needs on its way. One per process.
pub struct Dispatch {
    library: Arc<Library>,
    supervisor: Arc<Supervisor>,
    pool: Arc<Pool>,
    /// What the config says and can say otherwise while requests run.
    rules: RwLock<Arc<Rules>>,
    breakers: Breakers,
    beginnings: Beginnings,
    catalog: Catalog,
    sharing: Sharing,
    /// Held to write while what names mean changes.
    renewing: RwLock<()>,
    responses: Arc<Responses>,
    vectors: Arc<Vectors>,
    embedder: Embedder,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    flights: TaskTracker,
}

/// What a request claims beside its answer.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// How long its model stays in memory after it; `None`: as before.
    pub keep_alive: Option<KeepAlive>,
    /// Its place among those that wait.
    pub priority: Priority,
    /// What ties it to those before it: a hash of `X-Session-Id`.
    pub session: Option<u64>,
    /// Where the client is.
    pub site: Site,
    /// Who asks: a hash of the client's key; `None`: it has none.
    pub tenant: Option<Arc<str>>,
    /// When it shares a flight, where it says so itself.
    pub coalesce: Option<CoalesceMode>,
    /// What it takes of what is kept: `Cache-Control`.
    pub control: Control,
    /// Which of the request's choices it is for, from 0.
    pub choice: usize,
    /// Where it wants to be able to come back, or has.
    pub ids: Option<Ids>,
    /// The Arrieros that it has come through.
    pub via: Via,
    /// A fault to be played on its first node.
    pub drill: Option<Drill>,
    /// Nobody has asked: it is expected to be asked.
    pub is_expected: bool,
}

/// What [`Dispatch`] is made of.
pub struct Parts {
    /// The configured models.
    pub library: Arc<Library>,
    /// The owner of the workers.
    pub supervisor: Arc<Supervisor>,
    /// The nodes that take requests.
    pub pool: Arc<Pool>,
    /// The `routing` section.
    pub routing: RoutingConfig,
    /// The `breaker` section.
    pub breaker: BreakerConfig,
    /// The `queue` section.
    pub queue: QueueConfig,
    /// The `retry` section.
    pub retry: RetryConfig,
    /// The `coalesce` section.
    pub coalesce: CoalesceConfig,
    /// Texts that are kept.
    pub responses: Arc<Responses>,
    /// Vectors that are.
    pub vectors: Arc<Vectors>,
    /// The way to the nodes.
    pub upstream: Arc<Upstream>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

impl Dispatch {
    /// Puts a gate in front of each model, as wide as its workers and nodes together.
    pub fn new(parts: Parts) -> Self {
        let catalog = Catalog::new(Arc::clone(&parts.library), Arc::clone(&parts.pool), parts.queue);
        Self {
            library: parts.library,
            supervisor: parts.supervisor,
            pool: parts.pool,
            rules: RwLock::new(Arc::new(Rules::new(&parts.routing, parts.retry))),
            breakers: Breakers::new(parts.breaker, Arc::clone(&parts.metrics)),
            beginnings: Beginnings::default(),
            catalog,
            sharing: Sharing::new(parts.coalesce),
            renewing: RwLock::default(),
            responses: parts.responses,
            vectors: parts.vectors,
            embedder: Embedder::default(),
            upstream: parts.upstream,
            metrics: parts.metrics,
            flights: TaskTracker::new(),
        }
    }

    /// What is in force now.
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on under other settings. Requests that run keep theirs; what a strategy has learned stays if it stays the same.
    pub fn configure(&self, routing: &RoutingConfig, retry: RetryConfig, breaker: BreakerConfig) {
        self.breakers.configure(breaker);
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *rules = Arc::new(rules.renewed(routing, retry));
    }

    /// Has models and nodes changed by `change`, all of them between two requests: whoever looks a name up finds either what was before or
    /// what is then. It must not wait for anything.
    pub fn renew(&self, queue: QueueConfig, change: impl FnOnce()) {
        let _alone = self.renewing.write().unwrap_or_else(PoisonError::into_inner);
        change();
        self.catalog.configure(queue);
    }

    /// Why nothing that came this way is taken.
    pub fn refusal(&self, via: &Via) -> Option<Error> {
        via.fault(self.upstream.hop()).map(Error::Node)
    }

    /// What another Arriero is told of who answers or asks: an entry of `Via`.
    pub fn via(&self) -> String {
        Via::default().field(self.upstream.hop())
    }

    /// Looks again at what the nodes serve, after that has changed.
    pub fn nodes_changed(&self) {
        self.catalog.refresh();
    }

    /// The same for the `coalesce` section.
    pub fn configure_sharing(&self, coalesce: CoalesceConfig) {
        self.sharing.configure(coalesce);
    }

    /// Starts a generation, or joins one that runs, and returns at once. The model stays loaded for it from now on. An error only where
    /// the client wants to go on with what is gone.
    pub fn generate(
        self: &Arc<Self>,
        target: &Target,
        claim: Claim,
        mut generation: Generation,
    ) -> Result<Answer, Error> {
        share::address(&mut generation, target);
        let (target, ids) = (target.clone(), claim.ids);
        let request = Request { target, claim, generation };
        match ids {
            None => Ok(self.share(request)),
            Some(ids) => self.reconnectable(request, ids),
        }
    }

    /// Texts that are kept.
    pub fn responses(&self) -> &Arc<Responses> {
        &self.responses
    }

    /// Vectors that are kept.
    pub fn vectors(&self) -> &Arc<Vectors> {
        &self.vectors
    }

    /// Answers a request in a task of its own.
    fn take_off(self: &Arc<Self>, request: Request, keeping: Option<Arc<Keeping>>, writer: Writer) {
        let Request { target, claim, generation } = request;
        let hold = target.model.as_ref().map(|model| match claim.is_expected {
            true => self.supervisor.hold_unasked(model),
            false => self.supervisor.hold(model, None),
        });
        let dispatch = Arc::clone(self);
        self.flights.spawn(async move {
            let _hold = hold;
            let flown = tokio::select! {
                flown = dispatch.answer(&target, claim, generation, keeping.as_ref(), &writer) => flown,
                // Dropping the exchange closes its connection, and the worker frees the sequence.
                () = writer.abandoned() => return,
            };
            if let Err(error) = flown {
                writer.fail(error);
            }
        });
    }

    /// Scores documents. Dropping the future cancels.
    pub async fn rank(
        &self,
        target: &Target,
        claim: &Claim,
        mut ranking: Ranking,
    ) -> Result<(Scores, Route), Error> {
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, None));
        ranking.model = target.name.to_string();
        let mut exchange = self.asking(ranking, claim);
        let (scores, route) = self.on_a_node(target, claim, &mut exchange).await?;
        self.count_tokens(&target.name, "prompt", scores.prompt_tokens);
        Ok((scores, route))
    }

    /// Asks a question. It waits for the model to be loaded, but in no line: no sequence is needed for it.
    pub async fn ask(&self, target: &Target, question: Question) -> Result<(Reply, Route), Error> {
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, None));
        let (waited, claim) = (Waited::default(), Claim::default());
        Ok(match question {
            Question::Tokenize(text) => {
                let mut exchange = self.ask_workers("/tokenize", text);
                let (tokens, route) = self.attempts(target, &claim, waited, &mut exchange).await?;
                (Reply::Tokens(tokens), route)
            }
            Question::Detokenize(tokens) => {
                let mut exchange = self.ask_workers("/detokenize", tokens);
                let (text, route) = self.attempts(target, &claim, waited, &mut exchange).await?;
                (Reply::Text(text), route)
            }
            Question::Render(mut generation) => {
                generation.model = target.name.to_string();
                let mut exchange = self.ask_workers("/render", generation);
                let (text, route) = self.attempts(target, &claim, waited, &mut exchange).await?;
                (Reply::Text(text), route)
            }
        })
    }

    fn asking<W>(&self, work: W, claim: &Claim) -> exchange::Ask<'_, W> {
        exchange::Ask {
            upstream: &self.upstream,
            metrics: &self.metrics,
            via: claim.via.clone(),
            drill: claim.drill,
            work,
        }
    }

    /// What only workers can be asked.
    fn ask_workers<Q, A>(&self, path: &'static str, question: Q) -> exchange::Ask<'_, Seam<Q, A>> {
        self.asking(Seam { path, question, answer: PhantomData }, &Claim::default())
    }

    /// Loads the model and waits until it is ready.
    pub async fn load(&self, target: &Target, keep_alive: Option<KeepAlive>) -> Result<(), Error> {
        let Some(model) = &target.model else { return Ok(()) };
        let _hold = self.supervisor.hold(model, keep_alive);
        self.supervisor.ready(model).await
    }

    /// Unloads the model once nothing uses it.
    pub fn unload(&self, target: &Target) {
        if let Some(model) = &target.model {
            self.supervisor.unload(model);
        }
    }

    /// No new flights; returns when the running ones have ended.
    pub async fn drain(&self) {
        self.sharing.closing.cancel();
        self.flights.close();
        self.flights.wait().await;
        self.responses.settle().await;
    }

    /// The stages of one generation.
    async fn fly(
        &self,
        target: &Target,
        mut claim: Claim,
        mut generation: Generation,
        keeping: Option<&Keeping>,
        writer: &Writer,
    ) -> Result<(), Error> {
        let of_model = || target.model.as_ref()?.config.options.seed;
        let asked = generation.options.seed.or_else(of_model).filter(|seed| *seed >= 0);
        // Drawn on this side of the seam, so that a second attempt repeats the first one; and not before, for equal requests must look equal.
        generation.options.seed = asked.or_else(|| Some(i64::from(rand::random::<u32>())));
        claim.priority = generation.priority;
        let mut run = exchange::Generate {
            upstream: &self.upstream,
            metrics: &self.metrics,
            writer,
            generation,
            via: claim.via.clone(),
            drill: claim.drill,
            fallback: None,
            is_sibling: false,
            sent: Resume::default(),
            is_exact: true,
        };
        let answered = match self.on_a_node(target, &claim, &mut run).await {
            Ok(answer) => Ok(answer),
            // On the heap, for few need it.
            Err(error) => Box::pin(self.fall_back(target, &claim, &mut run, error)).await,
        };
        let (done, exchange) = answered?;
        self.count(&run.generation.model, &done);
        if let Some(keeping) = keeping {
            Box::pin(self.keep_deeper(keeping)).await;
        }
        // On the heap, for its size is the flight's otherwise, from the start.
        Box::pin(exchange.finish()).await;
        Ok(())
    }

    /// Counts the tokens of an answer.
    fn count(&self, model: &str, done: &Done) {
        self.count_tokens(model, "prompt", done.prompt_tokens.saturating_sub(done.cached_tokens));
        self.count_tokens(model, "cached", done.cached_tokens);
        self.count_tokens(model, "completion", done.completion_tokens);
        self.count_guesses(model, "accepted", done.accepted_tokens);
        self.count_guesses(model, "rejected", done.guessed_tokens.saturating_sub(done.accepted_tokens));
    }

    fn count_tokens(&self, model: &str, kind: &str, count: u64) {
        self.metrics.tokens.with_label_values(&[model, kind]).inc_by(count);
    }

    fn count_guesses(&self, model: &str, result: &str, count: u64) {
        self.metrics.speculated_tokens.with_label_values(&[model, result]).inc_by(count);
    }
}
