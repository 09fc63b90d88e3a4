//! A dispatch in front of one node, which is part of the test.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};

use super::{Claim, Dispatch, Parts};
use crate::cache::{CacheConfig, Control, Responses, Vectors};
use crate::dialect::{self, Endpoint, Work};
use crate::error::Error;
use crate::flight::Source;
use crate::library::Library;
use crate::node::{Node, NodeConfig, Pool};
use crate::telemetry::Metrics;
use crate::worker::Supervisor;

/// Until something that was started comes true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A dispatch whose node has the models `m`, which generates, and `e`, which embeds.
pub(super) struct Bench {
    pub dispatch: Arc<Dispatch>,
    pub metrics: Arc<Metrics>,
    asked: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Under this `cache` section.
    pub(super) async fn start(cache: Value) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let url = serve(Arc::clone(&asked)).await;
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let config: CacheConfig = serde_json::from_value(cache).unwrap();
        let node = json!({ "name": "box", "url": url, "protocol": "ollama", "models": ["m", "e"], "max_in_flight": 2 });
        let library = Library::open([], dir.path());
        let dispatch = Arc::new(dispatch(library, node, &config, dir.path(), &metrics));
        Self { dispatch, metrics, asked, _dir: dir }
    }

    /// Generations that the node was asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Asks a question and reads the answer: where it is from, and how similar its question is.
    pub(super) async fn ask(&self, text: &str) -> (Source, Option<f32>) {
        self.ask_as(Claim::default(), text).await.unwrap()
    }

    pub(super) async fn ask_as(&self, claim: Claim, text: &str) -> Result<(Source, Option<f32>), Error> {
        let options = json!({ "temperature": 0, "num_predict": 4 });
        let messages = json!([{ "role": "user", "content": text }]);
        let body = json!({ "model": "m", "messages": messages, "options": options }).to_string();
        let mut call = dialect::parse(&Endpoint::Chat, body.as_bytes())?;
        let target = self.dispatch.target(&mut call)?;
        let Work::Generate(mut generations) = call.work else { panic!("it generates") };
        let mut answer = self.dispatch.generate(&target, claim, generations.remove(0))?;
        while answer.next().await?.is_some() {}
        Ok((answer.source(), answer.route().and_then(|route| route.similarity)))
    }

    /// A look at what is in memory.
    pub(super) async fn is_kept(&self, text: &str) -> bool {
        let control = Control { only_if_cached: true, ..Control::default() };
        self.ask_as(Claim { control, is_expected: true, ..Claim::default() }, text).await.is_ok()
    }

    /// Waits until `is_so`.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
    }
}

/// A dispatch over the models of `library` and one node.
pub(super) fn dispatch(
    library: Library,
    node: Value,
    cache: &CacheConfig,
    dir: &Path,
    metrics: &Arc<Metrics>,
) -> Dispatch {
    let (library, pool) = (Arc::new(library), Arc::new(Pool::default()));
    let node: NodeConfig = serde_json::from_value(node).unwrap();
    let remote = Arc::new(Node::remote(&node).unwrap());
    for model in &node.models.0 {
        pool.add(&library.canonical(&model.name), Arc::clone(&remote));
    }
    let supervisor = Arc::new(Supervisor::new(
        Default::default(),
        Default::default(),
        Arc::clone(&library),
        Arc::clone(&pool),
        Arc::clone(metrics),
        "/bin/false".into(),
        dir.to_owned(),
    ));
    let responses = Responses::new(&cache.responses, None, metrics).unwrap();
    responses.likeness.configure(&cache.semantic);
    responses.prefetch.configure(&cache.prefetch);
    Dispatch::new(Parts {
        library,
        supervisor,
        pool,
        routing: Default::default(),
        breaker: Default::default(),
        queue: Default::default(),
        retry: Default::default(),
        coalesce: Default::default(),
        responses: Arc::new(responses),
        vectors: Arc::new(Vectors::new(&cache.embeddings, Arc::clone(metrics))),
        upstream: Default::default(),
        metrics: Arc::clone(metrics),
    })
}

/// A node that speaks Ollama's API: it answers every chat in the same words, and texts lie as close to each other as they have words in common.
async fn serve(asked: Arc<AtomicUsize>) -> String {
    let chat = |State(asked): State<Arc<AtomicUsize>>| async move {
        asked.fetch_add(1, Ordering::SeqCst);
        let said =
            json!({ "model": "m", "message": { "role": "assistant", "content": "so" }, "done": false });
        let done = json!({ "model": "m", "message": { "role": "assistant", "content": "" }, "done": true,
            "done_reason": "stop", "prompt_eval_count": 1, "eval_count": 1 });
        format!("{said}\n{done}\n")
    };
    let embed = |Json(body): Json<Value>| async move {
        let vector = |text: &Value| {
            let mut vector = vec![0; 512];
            for word in text.as_str().unwrap_or_default().split(' ') {
                vector[word.bytes().fold(7, |hash, byte| (hash * 31 + usize::from(byte)) % 509)] += 1;
            }
            vector
        };
        let vectors: Vec<_> = body["input"].as_array().unwrap().iter().map(vector).collect();
        Json(json!({ "model": "e", "embeddings": vectors, "prompt_eval_count": 1 }))
    };
    let router = axum::Router::new().route("/api/chat", post(chat)).route("/api/embed", post(embed));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router.with_state(asked)).await });
    url
}
