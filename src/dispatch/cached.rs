//! The response cache in the way of a request: memory at once, slower tiers in the task of the flight, so that those who ask for the same
//! meanwhile wait for one look-up.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::answer::Answer;
use super::semantic::Likened;
use super::share::{Request, Terms};
use super::{Claim, Dispatch, Target};
use crate::cache::{Control, Entry, Lease, Policy, Replay, Turn, Wanted, is_whole};
use crate::error::Error;
use crate::flight::{self, Route, Writer, flight};
use crate::generation::{Event, Generation, Identity};

/// What looking for an answer in slower tiers came to.
enum Fetched {
    /// It was there, and the flight has it.
    Answered,
    /// It is to be computed, under a lease if there is one.
    Missing(Option<Lease>),
}

/// What a request has to do with the cache: its answer may come from there, and may go there.
pub(super) struct Keeping {
    pub(super) identity: Identity,
    pub(super) model: Arc<str>,
    pub(super) tenant: Arc<str>,
    pub(super) control: Control,
    /// It has come through another Arriero.
    is_relayed: bool,
    policy: Policy,
    /// Its answer, once it is kept in memory.
    pub(super) kept: OnceLock<Arc<Entry>>,
}

impl Keeping {
    /// That of a request which is identified, and whose answer may be kept.
    pub(super) fn new(request: &Request, terms: &Terms, identity: &Identity, policy: Policy) -> Self {
        Self {
            identity: identity.clone(),
            model: Arc::clone(&request.target.name),
            tenant: terms.tenant(&request.claim).into(),
            control: request.claim.control,
            is_relayed: !request.claim.via.is_empty(),
            policy,
            kept: OnceLock::new(),
        }
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            identity: &self.identity,
            model: &self.model,
            tenant: &self.tenant,
            now: SystemTime::now(),
            // What was kept under another configuration, or by another instance, may have been given more time.
            max_age: Some(self.control.max_age.map_or(self.policy.ttl, |most| most.min(self.policy.ttl))),
        }
    }

    fn entry(&self, events: Arc<[Arc<Event>]>, times: Arc<[Duration]>, route: Option<&Route>) -> Entry {
        let created = SystemTime::now();
        Entry {
            identity: self.identity.clone(),
            model: Arc::clone(&self.model),
            tenant: Arc::clone(&self.tenant),
            node: route.map_or_else(Arc::default, |route| Arc::clone(&route.node)),
            created,
            expires: created + self.policy.ttl,
            events,
            times,
        }
    }
}

impl Dispatch {
    /// The answer that is in memory.
    pub(super) fn kept_at_once(self: &Arc<Self>, keeping: &Keeping) -> Option<Answer> {
        if !keeping.control.may_read() {
            return None;
        }
        let entry = self.responses.memory(&keeping.wanted())?;
        if self.responses.replay() == Replay::Instant {
            return Some(Answer::kept(flight::replay(
                Arc::clone(&entry.events),
                Route::kept(Arc::clone(&entry.node), entry.age(SystemTime::now())),
            )));
        }
        let (writer, reader) = flight();
        let dispatch = Arc::clone(self);
        self.flights.spawn(async move {
            tokio::select! {
                () = dispatch.replay(&entry, &writer) => {}
                () = writer.abandoned() => {}
            }
        });
        Some(Answer::kept(reader))
    }

    /// Answers a request: from slower tiers of the cache, or by a generation whose answer is kept.
    pub(super) async fn answer(
        self: &Arc<Self>,
        target: &Target,
        claim: Claim,
        generation: Generation,
        keeping: Option<&Arc<Keeping>>,
        writer: &Writer,
    ) -> Result<(), Error> {
        let (mut lease, mut question) = (None, None);
        if let Some(keeping) = keeping {
            if self.responses.is_deep() {
                // On the heap, for most requests need no room for it.
                match Box::pin(self.fetch(keeping, writer)).await? {
                    Fetched::Answered => return Ok(()),
                    Fetched::Missing(ours) => lease = ours,
                }
            }
            if self.responses.likeness.is_on() {
                let likened = tokio::select! {
                    likened = Box::pin(self.liken(target, &claim, &generation, keeping, writer)) => likened,
                    never = held(lease.as_ref()) => match never {},
                };
                match likened {
                    Likened::Answered => return Ok(()),
                    Likened::Not(asked) => question = asked,
                }
            }
            self.keep_in_memory(keeping, &generation, writer);
        }
        let flown = tokio::select! {
            flown = self.fly(target, claim, generation, keeping.map(Arc::as_ref), writer) => flown,
            never = held(lease.as_ref()) => match never {},
        };
        drop(lease);
        if let (Some(question), Some(keeping)) = (question, keeping) {
            self.learn_aside(question, keeping);
        }
        flown
    }

    /// Has the answer to `generation` kept as soon as it is whole: before any client knows it, so that who asks after it was answered is
    /// answered from memory.
    fn keep_in_memory(&self, keeping: &Arc<Keeping>, generation: &Generation, writer: &Writer) {
        let (responses, keeping) = (Arc::clone(&self.responses), Arc::clone(keeping));
        let limit = generation.options.num_predict;
        writer.before_end(Box::new(move |events, times, route| {
            // What another model says is no answer of this one, nor what it says itself where it was cut.
            let is_ours = route.is_none_or(Route::is_its_own);
            if is_ours && is_whole(&events, limit, keeping.policy.with_tool_calls) {
                let entry = Arc::new(keeping.entry(events, times, route));
                responses.keep(&entry);
                // It ends once.
                let _ = keeping.kept.set(entry);
            }
        }));
    }

    /// Puts the answer that was kept in memory into the slower tiers.
    pub(super) async fn keep_deeper(&self, keeping: &Keeping) {
        if let Some(entry) = keeping.kept.get() {
            self.responses.keep_deeper(entry).await;
        }
    }

    /// Looks in the slower tiers.
    async fn fetch(&self, keeping: &Keeping, writer: &Writer) -> Result<Fetched, Error> {
        if keeping.control.may_read() {
            if let Some(entry) = self.responses.deeper(&keeping.wanted()).await {
                self.replay(&entry, writer).await;
                return Ok(Fetched::Answered);
            }
            if keeping.control.only_if_cached {
                return Err(Error::NotKept);
            }
        }
        // What another instance computes may not be what this one takes; and the one that computes may be the one that asks.
        if keeping.control.is_particular() || keeping.is_relayed {
            return Ok(Fetched::Missing(None));
        }
        match self.responses.turn(&keeping.wanted()).await {
            Turn::Answered(entry) => {
                self.replay(&entry, writer).await;
                Ok(Fetched::Answered)
            }
            Turn::Ours(lease) => Ok(Fetched::Missing(Some(lease))),
            Turn::Free => Ok(Fetched::Missing(None)),
        }
    }

    /// Writes a kept answer to a flight that others may follow.
    async fn replay(&self, entry: &Entry, writer: &Writer) {
        writer.routed(Route::kept(Arc::clone(&entry.node), entry.age(SystemTime::now())));
        self.play(entry, writer).await;
    }

    /// The same without telling where it comes from.
    pub(super) async fn play(&self, entry: &Entry, writer: &Writer) {
        let begun = tokio::time::Instant::now();
        for (event, time) in entry.events.iter().zip(&*entry.times) {
            if self.responses.replay() == Replay::Paced {
                tokio::time::sleep_until(begun + *time).await;
            }
            writer.share(Arc::clone(event));
        }
    }
}

/// Keeps the lease, if there is one; never ends.
async fn held(lease: Option<&Lease>) -> Infallible {
    match lease {
        Some(lease) => Box::pin(lease.keep()).await,
        None => std::future::pending().await,
    }
}
