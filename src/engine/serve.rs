//! The worker's HTTP side: [`crate::generation::seam`] over a unix socket. Everything slow runs on blocking threads, everything
//! that computes in the engine's own.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nix::sys::stat::{Mode, umask};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::command::Command;
use super::embed::EmbedJob;
use super::health::Status;
use super::job::Job;
use super::model::Model;
use super::prompt;
use super::vision;
use crate::generation::seam::{self, Change, ErrorBody, Saved, Settings, Text, Tokenize, Tokens};
use crate::generation::{Embedding, Embeddings, Event, Failure, FailureCode, Generation, Ranking, Scores};

/// What stands for an image in a text that is shown; llama-server's word.
const IMAGE: &str = "<__media__>";

/// What the handlers share.
pub struct Worker {
    /// State, load and health.
    pub status: Arc<Status>,
    /// Set once the model is loaded.
    pub engine: OnceLock<Engine>,
    /// Requests under way. Closed when no more are taken.
    pub requests: TaskTracker,
}

/// The loaded model and the thread that computes with it.
pub struct Engine {
    /// For preparing requests.
    pub model: Arc<Model>,
    /// To the thread.
    pub commands: Sender<Command>,
}

/// Creates the socket, readable and writable by its owner only, in place of one that a dead worker left behind.
pub fn bind(path: &std::path::Path) -> io::Result<std::os::unix::net::UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode has to be right from the first moment on; changing it afterwards would leave a gap.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = std::os::unix::net::UnixListener::bind(path);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `end` resolves, then until what has been answered has also been sent.
pub async fn run(
    listener: std::os::unix::net::UnixListener,
    worker: Arc<Worker>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let routes = Router::new()
        .route("/health", get(health))
        .route("/generate", post(generate))
        .route("/embed", post(embed))
        .route("/rank", post(rank))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/render", post(render))
        .route("/settings", post(settings))
        .route("/snapshot", post(snapshot))
        // The proxy limits bodies; a second limit here could only disagree with it.
        .layer(DefaultBodyLimit::disable())
        .with_state(worker);
    axum::serve(listener, routes).with_graceful_shutdown(end).await
}

async fn health(State(worker): State<Arc<Worker>>) -> Response {
    let vitals = worker.status.vitals();
    let status = match vitals.state {
        seam::State::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(vitals)).into_response()
}

async fn generate(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Response, Refusal> {
    let (engine, under_way) = worker.admit()?;
    let generation: Generation = parse(&body)?;
    let job = prepare(engine, |model| Job::new(model, generation)).await?;
    let (events, mut received) = unbounded_channel();
    engine.order(Command::Generate(Box::new(job), events))?;
    match received.recv().await {
        Some(Event::Error(failure)) => Err(Refusal(failure)),
        Some(first) => Ok(stream(first, received, under_way)),
        None => Err(Refusal(gone())),
    }
}

/// The events as NDJSON, one chunk each. Dropping the body drops the receiver, which is how the engine learns that nobody
/// listens any more.
fn stream(first: Event, events: UnboundedReceiver<Event>, under_way: TaskTrackerToken) -> Response {
    let lines =
        futures::stream::unfold((Some(first), events, under_way), |(next, mut events, under_way)| async {
            let event = match next {
                Some(event) => event,
                None => events.recv().await?,
            };
            Some((Ok::<_, Infallible>(line(&event)), (None, events, under_way)))
        });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|error| {
        // Cannot happen with these types; were it to, the stream ends without `done` and is seen to be cut off.
        tracing::error!(%error, "an event cannot be written as JSON");
        Vec::new()
    });
    line.push(b'\n');
    line.into()
}

async fn embed(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Response, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let request: Embedding = parse(&body)?;
    let job = prepare(engine, move |model| EmbedJob::new(model, &request)).await?;
    Ok(Json(engine.vectors(job).await?).into_response())
}

async fn rank(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<Scores>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let request: Ranking = parse(&body)?;
    let job = prepare(engine, move |model| EmbedJob::ranking(model, &request)).await?;
    let Embeddings { vectors, prompt_tokens } = engine.vectors(job).await?;
    Ok(Json(Scores { scores: vectors.concat(), prompt_tokens }))
}

async fn tokenize(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<Tokens>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let Tokenize { text, add_special, parse_special, with_pieces } = parse(&body)?;
    let tokens = prepare(engine, move |model| {
        let tokens = model.tokenize(&text, add_special, parse_special);
        let pieces = if with_pieces { model.pieces(&tokens) } else { Vec::new() };
        Ok(Tokens { tokens, pieces })
    });
    Ok(Json(tokens.await?))
}

async fn detokenize(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<Text>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let Tokens { tokens, .. } = parse(&body)?;
    let text = prepare(engine, move |model| match tokens.iter().find(|&&token| !model.knows(token)) {
        Some(unknown) => Err(Failure {
            code: FailureCode::InvalidRequest,
            message: format!("tokens holds {unknown}, which is no token of this model"),
        }),
        None => Ok(model.detokenize(&tokens)),
    });
    Ok(Json(Text { text: text.await? }))
}

async fn settings(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<Settings>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let change: Change = parse(&body)?;
    let (reply, answer) = oneshot::channel();
    engine.order(Command::Set(change, reply))?;
    Ok(Json(answer.await.map_err(|_| gone())??))
}

async fn render(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<Text>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let mut generation: Generation = parse(&body)?;
    vision::mark(&mut generation, |_| IMAGE.to_owned());
    let text = prepare(engine, move |model| prompt::render(model, &generation)).await?;
    Ok(Json(Text { text }))
}

/// Takes the body, though it says nothing: a connection on which something is left unread is closed, under the next request.
async fn snapshot(State(worker): State<Arc<Worker>>, _body: Bytes) -> Result<Json<Saved>, Refusal> {
    let (engine, _under_way) = worker.admit()?;
    let (reply, answer) = oneshot::channel();
    engine.order(Command::Save(reply))?;
    Ok(Json(answer.await.map_err(|_| gone())??))
}

impl Worker {
    /// The engine and a token to hold while a request is under way; an error while there is none to take it.
    fn admit(&self) -> Result<(&Engine, TaskTrackerToken), Failure> {
        let unavailable =
            |message: &str| Failure { code: FailureCode::Unavailable, message: message.to_owned() };
        let under_way = self.requests.token();
        if self.requests.is_closed() {
            return Err(unavailable("the worker is stopping"));
        }
        let engine = self.engine.get().ok_or_else(|| unavailable("the model is still loading"))?;
        Ok((engine, under_way))
    }
}

impl Engine {
    fn order(&self, command: Command) -> Result<(), Failure> {
        self.commands.send(command).map_err(|_| gone())
    }

    async fn vectors(&self, job: EmbedJob) -> Result<Embeddings, Failure> {
        let (reply, answer) = oneshot::channel();
        self.order(Command::Embed(job, reply))?;
        answer.await.map_err(|_| gone())?
    }
}

/// Runs something slow outside the server's own threads. A panic in it fails this request alone.
async fn prepare<T: Send + 'static>(
    engine: &Engine,
    f: impl FnOnce(&Model) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let model = engine.model.clone();
    let prepared = tokio::task::spawn_blocking(move || f(&model)).await;
    prepared.unwrap_or_else(|error| Err(internal(&format!("preparing the request failed: {error}"))))
}

/// Reads a body whatever its content type says.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure { code: FailureCode::InvalidRequest, message: error.to_string() })
}

fn gone() -> Failure {
    internal("the engine has stopped")
}

fn internal(message: &str) -> Failure {
    Failure { code: FailureCode::Internal, message: message.to_owned() }
}

/// An error before the first event.
struct Refusal(Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            FailureCode::InvalidRequest | FailureCode::ContextLength | FailureCode::Unsupported => {
                StatusCode::BAD_REQUEST
            }
            FailureCode::Loop => StatusCode::LOOP_DETECTED,
            FailureCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}
