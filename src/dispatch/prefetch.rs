//! Answers before anybody asks for them. What is expected is [`crate::cache::Prefetch`]'s to say; here it is brought into memory, from a slower
//! tier or, where a loaded model has nothing to do, by computing it behind everybody else.

use std::sync::Arc;
use std::time::Instant;

use super::cached::Keeping;
use super::choice::is_absent;
use super::share::Request;
use super::{Claim, Dispatch, Target};
use crate::cache::{Client, Remembered};
use crate::generation::Priority;
use crate::node::Node;

impl Dispatch {
    /// Learns from a request whose answer may be kept, and sees to what is expected after it.
    pub(super) fn foresee(self: &Arc<Self>, request: &Request, keeping: &Keeping, is_hit: bool) {
        let prefetch = &self.responses.prefetch;
        // What comes through another Arriero is that one's to expect.
        if !prefetch.is_on() || request.claim.is_expected || !request.claim.via.is_empty() {
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
        let (mut request, terms) = (expected(next, target), self.sharing.terms());
        let identity = self.identify(&mut request, &terms);
        let Some(identity) = identity.filter(|identity| *identity == next.identity) else { return };
        let policy = self.responses.policy(&request.target.name);
        if !policy.is_enabled || self.responses.is_in_memory(&identity) {
            return;
        }
        let keeping = Keeping::new(&request, &terms, &identity, policy);
        if self.responses.is_deep() && self.responses.deeper(&keeping.wanted()).await.is_some() {
            return prefetch.succeed(key, "promoted");
        }
        let Some(gate) = self.catalog.gate(&request.target.name) else { return };
        if tokio::time::timeout(prefetch.config().window, gate.idle()).await.is_err() {
            return;
        }
        // Meanwhile its client may have asked for it, or the model left memory, which is not loaded for a guess; as far as a node tells.
        let (name, now) = (&request.target.name, Instant::now());
        let has_it = |node: &Arc<Node>| {
            !node.signal(now, |signal| is_absent(node, name, signal.resident.as_deref())).unwrap_or(false)
        };
        if self.responses.is_in_memory(&identity) || !self.nodes_of(&request.target).iter().any(has_it) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;
    use crate::cache::Which;
    use crate::flight::Source;

    fn of(session: u64) -> Claim {
        Claim { session: Some(session), ..Claim::default() }
    }

    /// One that has seen `second` come after `first` twice, and keeps nothing of it.
    async fn habit(cache: serde_json::Value) -> Bench {
        let bench = Bench::start(cache).await;
        for session in 0..2 {
            bench.ask_as(of(session), "first").await.unwrap();
            bench.ask_as(of(session), "second").await.unwrap();
        }
        // Another configuration of memory, which has room for nothing, and again one that has.
        for memory in ["1", "1MiB"] {
            let responses = bench.dispatch.responses();
            let config = serde_json::from_value(json!({ "memory": memory })).unwrap();
            responses.renew(responses.prepare(&config, None).unwrap());
        }
        assert!(bench.dispatch.responses().entries(&Which::default(), 9)["memory"].is_empty());
        bench
    }

    fn counted(bench: &Bench, result: &str) -> u64 {
        bench.metrics.prefetches.with_label_values(&[result]).get()
    }

    #[tokio::test]
    async fn what_is_expected_is_there_before_it_is_asked_for() {
        let bench = habit(json!({ "prefetch": { "enabled": true } })).await;
        assert_eq!(bench.asked(), 2);
        assert_eq!(bench.ask_as(of(7), "first").await.unwrap().0, Source::Miss);
        bench.until("it is made ahead", |bench| counted(bench, "computed") == 1).await;
        assert_eq!(bench.asked(), 4);
        assert_eq!(bench.ask_as(of(7), "second").await.unwrap().0, Source::Hit);
        assert_eq!((bench.asked(), counted(&bench, "used"), counted(&bench, "wasted")), (4, 1, 0));
        let right = bench.metrics.prefetch_predictions.with_label_values(&["right"]).get();
        assert_eq!(right, 1);
    }

    #[tokio::test]
    async fn nothing_is_made_ahead_while_others_have_all_places() {
        let bench = habit(json!({ "prefetch": { "enabled": true } })).await;
        let gate = bench.dispatch.catalog.gate("m").unwrap();
        let mut places = Vec::new();
        for _ in 0..2 {
            places.push(gate.line_up(Priority::NORMAL).unwrap().enter().await.unwrap());
        }
        // A request that waits in line learns all the same, and what is expected after it waits too.
        let mut first = Box::pin(bench.ask_as(of(7), "first"));
        assert!(futures::poll!(&mut first).is_pending());
        // Others go to the node and back meanwhile, as it would have if it had not waited.
        let embedder = bench.dispatch.find("e").unwrap().unwrap();
        for text in ["a", "b", "c", "d", "e"] {
            let embedding = json!({ "model": "e", "inputs": [text], "truncate": true, "dimensions": null, "num_ctx": null });
            let embedding = serde_json::from_value(embedding).unwrap();
            bench.dispatch.embed(&embedder, &Claim::default(), embedding).await.unwrap();
        }
        assert_eq!((bench.asked(), counted(&bench, "computed")), (2, 0));
        drop(places);
        assert_eq!(first.await.unwrap().0, Source::Miss);
        bench.until("it is made ahead", |bench| counted(bench, "computed") == 1).await;
        assert!(bench.is_kept("second").await);
    }

    #[tokio::test]
    async fn switched_off_nothing_is_expected() {
        let bench = habit(json!({})).await;
        bench.ask_as(of(7), "first").await.unwrap();
        assert!(!bench.is_kept("second").await);
        let series = bench.metrics.render().unwrap();
        assert!(!series.contains("arriero_prefetches_total{result=\"computed\"}"), "{series}");
    }
}
