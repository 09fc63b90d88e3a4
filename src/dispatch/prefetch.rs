//! Answers before anybody asks for them. What is expected is [`crate::cache::Prefetch`]'s to say; here it is brought into memory, from a slower
//! tier or, where a loaded model has nothing to do, by computing it behind everybody else.

use std::sync::Arc;
use std::time::Instant;

use super::cached::Keeping;
use super::share::Request;
use super::{Claim, Dispatch, Target};
use crate::cache::{Client, Remembered};
use crate::generation::Priority;

impl Dispatch {
    /// Learns from a request whose answer may be kept, and sees to what is expected after it.
    pub(super) fn foresee(self: &Arc<Self>, request: &Request, keeping: &Keeping, is_hit: bool) {
        let prefetch = &self.responses.prefetch;
        if !prefetch.is_on() || request.claim.is_expected {
            return;
        }
        let key = keeping.identity.key();
        prefetch.asked(key, is_hit);
        let client = Client { tenant: Arc::clone(&keeping.tenant), session: request.claim.session };
        let expected = prefetch.observe(client, key, || remembered(request, keeping), Instant::now());
        for next in expected {
            let Some(waiting) = prefetch.wait() else { return };
            let dispatch = Arc::clone(self);
            self.flights.spawn(async move {
                tokio::select! {
                    () = dispatch.make_ahead(&next) => {}
                    () = dispatch.sharing.closing.cancelled() => {}
                }
                drop(waiting);
            });
        }
    }

    /// Has the answer to `next` in memory, if that costs nobody anything.
    async fn make_ahead(self: &Arc<Self>, next: &Remembered) {
        let (prefetch, key) = (&self.responses.prefetch, next.identity.key());
        // It may be another model by now, or none.
        let Ok(Some(target)) = self.find(&next.asked_as) else { return };
        let request = expected(next, target);
        let Some(identity) = self.identify(&request).filter(|identity| *identity == next.identity) else {
            return;
        };
        let keeping = self.keeping(&request, &identity);
        if !self.responses.policy(&request.target.name).is_enabled || self.responses.is_in_memory(key) {
            return;
        }
        if self.responses.is_deep() && self.responses.deeper(&keeping.wanted()).await.is_some() {
            return prefetch.succeed(key, "promoted");
        }
        let Some(gate) = self.catalog.gate(&request.target.name) else { return };
        if tokio::time::timeout(prefetch.config().window, gate.idle()).await.is_err() {
            return;
        }
        // Meanwhile its client may have asked for it, or the model left memory, which is not loaded for a guess.
        if self.responses.is_in_memory(key) || self.nodes_of(&request.target).is_empty() {
            return;
        }
        let Some(_running) = prefetch.run() else { return };
        prefetch.begin(key);
        tokio::select! {
            is_made = self.make(request) => {
                if is_made { prefetch.succeed(key, "computed") } else { prefetch.fail(key, "failed") }
            }
            // Dropping the answer ends its computation, unless somebody has joined it.
            () = gate.crowded() => prefetch.fail(key, "given_up"),
        }
    }

    /// Computes an answer; whether it is whole.
    async fn make(self: &Arc<Self>, request: Request) -> bool {
        let mut answer = self.share(request);
        loop {
            match answer.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => {
                    tracing::debug!(%error, "an answer could not be made ahead");
                    return false;
                }
            }
        }
    }
}

fn remembered(request: &Request, keeping: &Keeping) -> Remembered {
    let Request { target, claim, generation } = request;
    Remembered {
        identity: keeping.identity.clone(),
        asked_as: Arc::clone(target.asked_as()),
        model: Arc::clone(&keeping.model),
        tenant: Arc::clone(&keeping.tenant),
        key_of_client: claim.tenant.clone(),
        session: claim.session,
        choice: claim.choice,
        generation: generation.clone(),
    }
}

/// The request again, as nobody's.
fn expected(next: &Remembered, target: Target) -> Request {
    let claim = Claim {
        priority: Priority::LOW,
        session: next.session,
        tenant: next.key_of_client.clone(),
        choice: next.choice,
        is_expected: true,
        ..Claim::default()
    };
    let mut generation = next.generation.clone();
    generation.priority = Priority::LOW;
    Request { target, claim, generation }
}
