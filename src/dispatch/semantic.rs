//! Answers to similar questions in the way of a request: behind every exact look-up, before a node is asked. What is similar is
//! [`crate::cache::Likeness`]'s to say; here questions are embedded, like any client's, and answers are looked up and given.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::cached::Keeping;
use super::share::Request;
use super::{Claim, Dispatch, Target};
use crate::breaker::{Breaker, BreakerConfig, Transition};
use crate::cache::{Alike, Asked, Entry, Point, SemanticMode, Wanted};
use crate::error::Error;
use crate::flight::{Route, Writer};
use crate::generation::{Embedding, Generation, Identity};

/// For a vector that no request waits for, a load of its model included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of looking for a similar question.
pub(super) enum Likened {
    /// Its answer has been given.
    Answered,
    /// The request is computed, and its question known then, if it can be compared. On the heap, for it waits for as long as the computation runs.
    Not(Option<Box<Question>>),
}

/// A question that is being answered by a computation.
pub(super) struct Question {
    request: Request,
    asked: Asked,
    /// Known where an answer was looked for.
    point: Option<Point>,
    from: SystemTime,
}

/// What is known of the way to vectors: after some failures in a row no request waits for one for a while.
pub(super) struct Embedder(Arc<Breaker>);

impl Default for Embedder {
    fn default() -> Self {
        let config = BreakerConfig {
            consecutive_failures: 3,
            error_rate: 0.0,
            open: Duration::from_secs(5),
            slow_start: Duration::ZERO,
            ..BreakerConfig::default()
        };
        let told = |transition: &Transition| {
            let (from, to) = (transition.from.as_str(), transition.to.as_str());
            tracing::warn!(from, to, reason = transition.reason, "embedding questions for cache.semantic");
        };
        Self(Arc::new(Breaker::new(config, Arc::new(told), Instant::now())))
    }
}

impl Dispatch {
    /// Looks for a similar question, and answers with its answer.
    pub(super) async fn liken(
        &self,
        target: &Target,
        claim: &Claim,
        generation: &Generation,
        keeping: &Keeping,
        writer: &Writer,
    ) -> Likened {
        let request =
            Request { target: target.clone(), claim: claim.clone(), generation: generation.clone() };
        let Some(asked) = self.asked(&request) else {
            self.likened("unfit");
            return Likened::Not(None);
        };
        let config = self.responses.likeness.config();
        let mut question = Box::new(Question { request, asked, point: None, from: SystemTime::now() });
        if config.mode != SemanticMode::On || !keeping.control.may_read() {
            return Likened::Not(Some(question));
        }
        let Some(point) = self.point(&question, config.deadline).await else {
            self.likened("failed");
            return Likened::Not(None);
        };
        if let Some((alike, entry)) = self.alike(&question, &point, keeping).await {
            self.likened("hit");
            self.observe(&alike, "hit");
            let route = Route::kept(Arc::clone(&entry.node), entry.age(SystemTime::now()));
            writer.routed(Route { similarity: Some(alike.similarity), ..route });
            self.play(&entry, writer).await;
            return Likened::Answered;
        }
        self.likened("miss");
        question.point = Some(point);
        Likened::Not(Some(question))
    }

    /// Knows a question from now on that was answered, in a task of its own: the model that has answered is not held for it.
    pub(super) fn learn_aside(self: &Arc<Self>, question: Box<Question>, keeping: &Arc<Keeping>) {
        let (dispatch, keeping) = (Arc::clone(self), Arc::clone(keeping));
        self.flights.spawn(async move {
            tokio::select! {
                () = dispatch.learn(question, &keeping) => {}
                () = dispatch.sharing.closing.cancelled() => {}
            }
        });
    }

    /// In shadow mode a question is compared only now, when its client has its answer.
    async fn learn(&self, question: Box<Question>, keeping: &Keeping) {
        let Some(kept) = keeping.kept.get() else { return };
        let is_shadow = self.responses.likeness.config().mode == SemanticMode::Shadow;
        let point = match &question.point {
            Some(point) => Some(point.clone()),
            None => self.point(&question, PATIENCE).await,
        };
        let Some(point) = point else { return self.likened("failed") };
        if is_shadow {
            match self.alike(&question, &point, keeping).await {
                Some((alike, entry)) => {
                    let is_same = entry.text() == kept.text();
                    let result = if is_same { "same" } else { "other" };
                    self.likened(result);
                    self.observe(&alike, result);
                    let (model, similarity) = (&*keeping.model, alike.similarity);
                    tracing::debug!(model, similarity, is_same, "a similar question had an answer");
                }
                None => self.likened("miss"),
            }
        }
        let (owner, times) = ((&keeping.model, &keeping.tenant), (kept.created, kept.expires));
        self.responses.likeness.learn(question.asked, point, keeping.identity.key(), owner, times);
    }

    /// The question of a request, as it is compared, in its frame: the identity of the same request without it.
    fn asked(&self, request: &Request) -> Option<Asked> {
        let legible = self.responses.likeness.read(request.generation.question()?)?;
        let frame = self.identity_of(asking(request, ""))?;
        Some(legible.within(frame.key()))
    }

    fn identity_of(&self, mut request: Request) -> Option<Identity> {
        self.identify(&mut request, &self.sharing.terms())
    }

    /// The nearest question and its answer, which is looked up by the identity of this request with that question in it: so all else is
    /// the same to the byte, and what is gone is not found.
    async fn alike(
        &self,
        question: &Question,
        point: &Point,
        keeping: &Keeping,
    ) -> Option<(Alike, Arc<Entry>)> {
        let Question { request, asked, from, .. } = question;
        let alike = self.responses.likeness.find(asked, point, *from)?;
        let identity = self.identity_of(asking(request, &alike.text))?;
        let wanted = Wanted { identity: &identity, ..keeping.wanted() };
        let entry = match self.responses.memory(&wanted) {
            Some(entry) => Some(entry),
            None => self.responses.deeper(&wanted).await,
        };
        if entry.is_none() && !keeping.control.is_particular() {
            self.responses.likeness.forget(&asked.frame, alike.key);
        }
        entry.map(|entry| (alike, entry))
    }

    /// Where the question lies. `None`: it was not known in time.
    async fn point(&self, question: &Question, deadline: Duration) -> Option<Point> {
        let permit = self.embedder.0.admit(Instant::now()).ok()?;
        let what = match tokio::time::timeout(deadline, self.embed_question(question)).await {
            Ok(Ok(point)) => {
                permit.succeed(Instant::now());
                return Some(point);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no vector in time".to_owned(),
        };
        permit.fail(&what, Instant::now());
        None
    }

    async fn embed_question(&self, question: &Question) -> Result<Point, Error> {
        let model = self.responses.likeness.config().model.clone().unwrap_or_default();
        let target = self.find(&model)?.ok_or(Error::ModelNotFound { name: model })?;
        let Claim { tenant, session, site, .. } = question.request.claim.clone();
        let priority = question.request.generation.priority;
        let claim = Claim { tenant, session, site, priority, ..Claim::default() };
        // A text that does not fit is not to be compared by its beginning.
        let embedding = Embedding {
            model: target.name.to_string(),
            inputs: vec![question.asked.text.to_string()],
            truncate: false,
            dimensions: None,
            num_ctx: None,
        };
        let space = format!("{} {}", target.name, self.digest_of(&target));
        let (embeddings, ..) = self.embed(&target, &claim, embedding).await?;
        let point = embeddings.vectors.first().and_then(|numbers| Point::new(space.into(), numbers));
        point.ok_or_else(|| Error::internal("a vector without a direction"))
    }

    fn likened(&self, result: &str) {
        self.metrics.semantic_requests.with_label_values(&[result]).inc();
    }

    fn observe(&self, alike: &Alike, result: &str) {
        let similarity = f64::from(alike.similarity);
        self.metrics.semantic_similarity.with_label_values(&[result]).observe(similarity);
    }
}

/// The same request with another question.
fn asking(Request { target, claim, generation }: &Request, text: &str) -> Request {
    Request { target: target.clone(), claim: claim.clone(), generation: generation.asking(text) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;
    use crate::cache::{Control, Which};
    use crate::flight::Source;

    const QUESTION: &str = "How do I reset my password for the web site?";
    const SIMILAR: &str = "How can I reset my password for the web site?";

    async fn bench(mode: &str) -> Bench {
        Bench::start(
            json!({ "semantic": { "mode": mode, "model": "e", "threshold": 0.8, "deadline": "10s" } }),
        )
        .await
    }

    fn counted(bench: &Bench, result: &str) -> u64 {
        bench.metrics.semantic_requests.with_label_values(&[result]).get()
    }

    async fn until_known(bench: &Bench, questions: i64) {
        let known = |bench: &Bench| bench.metrics.cache_entries.with_label_values(&["questions"]).get();
        bench.until("it is known", |bench| known(bench) == questions).await;
    }

    #[tokio::test]
    async fn a_similar_question_gets_the_answer_and_none_of_its_own() {
        let bench = bench("on").await;
        assert_eq!(bench.ask(QUESTION).await, (Source::Miss, None));
        until_known(&bench, 1).await;
        for _ in 0..2 {
            let (source, similarity) = bench.ask(SIMILAR).await;
            assert_eq!(source, Source::Semantic);
            assert!(similarity.is_some_and(|similarity| (0.8..1.0).contains(&similarity)), "{similarity:?}");
        }
        assert_eq!((bench.asked(), counted(&bench, "hit")), (1, 2));
        assert_eq!(bench.ask("How can I reset my 2 password for the web site?").await.0, Source::Miss);
        let another = Claim { tenant: Some("x".into()), ..Claim::default() };
        assert_eq!(bench.ask_as(another, SIMILAR).await.unwrap().0, Source::Miss);
        let control = Control { no_cache: true, ..Control::default() };
        let own = Claim { control, ..Claim::default() };
        assert_eq!(
            bench.ask_as(own, "How may I reset my password for the web site?").await.unwrap().0,
            Source::Bypass
        );
        assert_eq!(bench.asked(), 4);
    }

    #[tokio::test]
    async fn an_answer_that_is_gone_is_not_given() {
        let bench = bench("on").await;
        bench.ask(QUESTION).await;
        until_known(&bench, 1).await;
        let responses = bench.dispatch.responses();
        // As if it had been pushed out, of which the questions are not told.
        responses.renew(
            responses.prepare(&serde_json::from_value(json!({ "memory": 1 })).unwrap(), None).unwrap(),
        );
        assert!(responses.entries(&Which::default(), 1)["memory"].is_empty());
        assert_eq!(bench.ask(SIMILAR).await.0, Source::Miss);
        assert_eq!((bench.asked(), counted(&bench, "miss")), (2, 2));
    }

    #[tokio::test]
    async fn shadow_gives_nothing_and_says_whether_it_would_have_been_right() {
        let bench = bench("shadow").await;
        bench.ask(QUESTION).await;
        until_known(&bench, 1).await;
        assert_eq!(bench.ask(SIMILAR).await, (Source::Miss, None));
        bench.until("it is compared", |bench| counted(bench, "same") == 1).await;
        assert_eq!((bench.asked(), counted(&bench, "hit"), counted(&bench, "other")), (2, 0, 0));
    }

    #[tokio::test]
    async fn without_an_embedding_model_everything_is_as_ever() {
        let bench = Bench::start(json!({ "semantic": { "mode": "on", "model": "nobody" } })).await;
        for number in 0..5 {
            let text = format!("What is the meaning of the number {number}?");
            assert_eq!(bench.ask(&text).await.0, Source::Miss);
        }
        assert_eq!((bench.asked(), counted(&bench, "failed")), (5, 5));
    }
}
