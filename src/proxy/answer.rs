//! Inference: parse, dispatch, render, write.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version};
use pingora::protocols::http::ServerSession;
use time::OffsetDateTime;

use super::choices::Choices;
use super::deadline::Deadline;
use super::{Context, Proxy, claim, header, reply};
use crate::dialect::sse::EVENT_STREAM;
use crate::dialect::{self, Call, Endpoint, Render, Spent, Whole, Work};
use crate::dispatch::Claim;
use crate::error::Error;
use crate::flight::Route;
use crate::generation::{Done, Event, Generation};

/// A body that takes longer to parse than a stream may be held up, in bytes.
const LARGE: usize = 256 << 10;

/// Why an answer was not given.
pub(super) enum Cut {
    /// To be told to the client.
    Failed(Error),
    /// The client is gone.
    Gone,
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Answers an inference request.
pub(super) async fn serve(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    endpoint: &Endpoint,
    body: Bytes,
) -> pingora::Result<()> {
    if let Some(error) = proxy.dispatch.refusal(&ctx.via) {
        return reply::error(proxy, session, ctx, error).await;
    }
    let is_large = body.len() > LARGE;
    let parsed = aside(is_large, || dialect::parse(endpoint, &body));
    drop(body);
    let outcome = match parsed {
        Ok(call) => run(proxy, session, ctx, endpoint, call, is_large).await?,
        Err(error) => Err(Cut::Failed(error)),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(Cut::Failed(error)) => reply::error(proxy, session, ctx, error).await,
        Err(Cut::Gone) => {
            ctx.outcome = "cancelled";
            Ok(())
        }
    }
}

/// Parsing and hashing megabytes takes milliseconds, and other streams of this thread must not wait for them.
fn aside<T>(is_large: bool, work: impl FnOnce() -> T) -> T {
    if is_large { tokio::task::block_in_place(work) } else { work() }
}

/// The outer error is the connection's, the inner one the request's.
async fn run(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    endpoint: &Endpoint,
    mut call: Call,
    is_large: bool,
) -> pingora::Result<Result<(), Cut>> {
    let target = match proxy.dispatch.target(&mut call) {
        Ok(target) => target,
        Err(Error::ModelNotFound { name }) => return Ok(Err(endpoint.unknown_model(name).into())),
        Err(error) => return Ok(Err(error.into())),
    };
    ctx.model = Some(target.name.clone());
    let deadline = Deadline::of(session, ctx.arrived, &proxy.dispatch, target.name.clone());
    let priority = match claim::priority(session) {
        Ok(priority) => priority,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut claim = match claim::of(proxy, session, ctx, call.keep_alive, priority) {
        Ok(claim) => claim,
        Err(error) => return Ok(Err(error.into())),
    };
    let render = call.render.as_mut();
    let body = match call.work {
        Work::Generate(generations) => {
            if call.stream && generations.len() == 1 && render.stream_type() == EVENT_STREAM {
                claim.ids = match claim::ids(session) {
                    Ok(ids) => ids,
                    Err(error) => return Ok(Err(error.into())),
                };
            }
            let start = |(choice, mut generation): (usize, Generation)| {
                generation.priority = priority.unwrap_or(generation.priority);
                proxy.dispatch.generate(&target, Claim { choice, ..claim.clone() }, generation)
            };
            let choices = match aside(is_large, || generations.into_iter().enumerate().map(start).collect()) {
                Ok(answers) => Choices::new(answers),
                Err(error) => return Ok(Err(Cut::Failed(error))),
            };
            return if call.stream {
                stream(proxy, session, ctx, choices, render, &deadline).await
            } else {
                gathered(proxy, session, ctx, choices, render, &deadline).await
            };
        }
        // On the heap, so that streams, which share this function, do not pay for the size of these.
        Work::Embed(embedding) => {
            let work = Box::pin(proxy.dispatch.embed(&target, &claim, embedding));
            patiently(session, &deadline, work).await.and_then(|(embeddings, route, source)| {
                ctx.source = source;
                let spent = read(ctx, route, embeddings.prompt_tokens);
                Ok(render.embeddings(&embeddings, &spent)?)
            })
        }
        Work::Rank(ranking) => {
            let work = Box::pin(proxy.dispatch.rank(&target, &claim, ranking));
            patiently(session, &deadline, work).await.and_then(|(scores, route)| {
                read(ctx, route, scores.prompt_tokens);
                Ok(render.scores(&scores)?)
            })
        }
        Work::Ask(question) => {
            let work = Box::pin(proxy.dispatch.ask(&target, question));
            patiently(session, &deadline, work).await.map(|(reply, route)| {
                ctx.route = Some(route);
                render.reply(&reply)
            })
        }
        Work::Load => {
            let from = Instant::now();
            let loaded = patiently(session, &deadline, proxy.dispatch.load(&target, call.keep_alive)).await;
            loaded.map(|()| render.loaded(true, &spent(ctx, from.elapsed())))
        }
        Work::Unload => {
            proxy.dispatch.unload(&target);
            Ok(render.loaded(false, &spent(ctx, Duration::ZERO)))
        }
    };
    match body {
        Ok(body) => reply::json(proxy, session, ctx, body).await.map(Ok),
        Err(cut) => Ok(Err(cut)),
    }
}

/// Writes events as they come. Nothing is written before the first one, so that a failure until then is a plain error.
async fn stream(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    mut choices: Choices,
    render: &mut dyn Render,
    deadline: &Deadline<'_>,
) -> pingora::Result<Result<(), Cut>> {
    let mut next = match patiently(session, deadline, choices.next()).await {
        Ok(next) => next,
        Err(cut) => return Ok(Err(cut)),
    };
    first_event(ctx, &choices);
    let mut head = reply::head(proxy, ctx, StatusCode::OK, render.stream_type());
    if session.req_header().version == Version::HTTP_11 {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    head.headers.insert(&header::ACCEL_BUFFERING, HeaderValue::from_static("no"));
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply::begin(session, head).await?;
    let mut out = BytesMut::with_capacity(1024);
    while let Some((choice, event)) = next {
        if let Event::Done(done) = &*event {
            ctx.count(done);
        }
        render.event(choice, &event, &spent_on(ctx, &choices), &mut out);
        choices.place(&mut out);
        // One write per event: none merged, none held back. Only the very last goes out with the end of the body.
        if !out.is_empty() && !choices.are_complete() {
            session.write_response_body(out.split().freeze(), false).await?;
        }
        next = match patiently(session, deadline, choices.next()).await {
            Ok(next) => next,
            Err(Cut::Gone) => return Ok(Err(Cut::Gone)),
            Err(Cut::Failed(error)) => {
                render.failure(&error, &mut out);
                ctx.outcome = error.code();
                ctx.error = Some(error);
                session.write_response_body(out.split().freeze(), true).await?;
                return Ok(Ok(()));
            }
        };
    }
    render.finish(&spent_on(ctx, &choices), &mut out);
    session.write_response_body(out.freeze(), true).await?;
    Ok(Ok(()))
}

/// Waits for all choices and writes one JSON body.
async fn gathered(
    proxy: &Proxy,
    session: &mut ServerSession,
    ctx: &mut Context,
    mut choices: Choices,
    render: &mut dyn Render,
    deadline: &Deadline<'_>,
) -> pingora::Result<Result<(), Cut>> {
    let mut wholes = vec![Whole::default(); choices.len()];
    loop {
        match patiently(session, deadline, choices.next()).await {
            Ok(Some((choice, event))) => {
                if ctx.first_event.is_none() {
                    first_event(ctx, &choices);
                }
                if let Some(whole) = wholes.get_mut(choice) {
                    gather(whole, &event);
                }
            }
            Ok(None) => break,
            Err(cut) => return Ok(Err(cut)),
        }
    }
    for whole in &wholes {
        ctx.count(&whole.done);
    }
    let body = render.whole(&wholes, &spent_on(ctx, &choices));
    reply::json(proxy, session, ctx, body).await.map(Ok)
}

fn gather(whole: &mut Whole, event: &Event) {
    match event {
        Event::Delta(delta) => {
            whole.text.push_str(&delta.text);
            whole.thinking.push_str(&delta.thinking);
            whole.logprobs.extend_from_slice(&delta.logprobs);
        }
        Event::ToolCall { call, .. } => whole.tool_calls.push(call.clone()),
        Event::Done(done) => whole.done = done.clone(),
        // A flight turns these into its own end.
        Event::Error(_) => {}
    }
}

/// Waits for `work` as long as the client does and its deadline allows.
async fn patiently<T>(
    session: &mut ServerSession,
    deadline: &Deadline<'_>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Cut> {
    tokio::select! {
        biased;
        done = work => done.map_err(Cut::Failed),
        // The request body is read, so this only ever returns when the client closes or breaks the connection.
        _ = session.read_body_or_idle(true) => Err(Cut::Gone),
        error = deadline.passed() => Err(Cut::Failed(error)),
    }
}

/// Notes the end of a request that only reads.
fn read(ctx: &mut Context, route: Route, prompt_tokens: u64) -> Spent {
    let spent = spent(ctx, route.loading);
    ctx.first_event = Some(ctx.arrived.elapsed());
    ctx.route = Some(route);
    ctx.count(&Done { prompt_tokens, ..Done::default() });
    spent
}

fn first_event(ctx: &mut Context, choices: &Choices) {
    ctx.first_event = Some(ctx.arrived.elapsed());
    ctx.route = choices.route().cloned();
    ctx.source = choices.source();
}

fn spent_on(ctx: &Context, choices: &Choices) -> Spent {
    spent(ctx, choices.route().map_or(Duration::ZERO, |route| route.loading))
}

fn spent(ctx: &Context, load: Duration) -> Spent {
    Spent { total: nanos(ctx.arrived.elapsed()), load: nanos(load).max(1), now: OffsetDateTime::now_utc() }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
