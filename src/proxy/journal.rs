//! The `logging` phase: one line and one set of observations per request.

use std::time::Duration;

use pingora::protocols::http::ServerSession;

use super::{Context, Proxy};
use crate::flight::Source;

/// Endpoints that are polled by machines; their lines would drown the others.
const QUIET: [&str; 3] = ["/", "/health", "/api/version"];

/// Writes the request's line and counts it.
pub(super) fn write(
    proxy: &Proxy,
    session: &ServerSession,
    error: Option<&pingora::Error>,
    ctx: &mut Context,
) {
    let total = ctx.arrived.elapsed();
    if error.is_some() && ctx.error.is_none() {
        // The connection broke while something was written to it or read from it.
        ctx.outcome = "cancelled";
    }
    observe(proxy, ctx, total);
    let status = session.response_written().map_or(0, |head| head.status.as_u16());
    let done = ctx.done.clone().unwrap_or_default();
    let (model, node) =
        (ctx.model.as_deref().unwrap_or_default(), ctx.route.as_ref().map_or("", |route| &route.node));
    let fallback = ctx.route.as_ref().and_then(|route| route.fallback.as_deref());
    let ttft_ms = ctx.first_event.map(millis);
    let cache = ctx.route.as_ref().map(|_| ctx.source.as_str());
    let reason = ctx.error.as_ref().map(crate::error::Error::detail);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                id = %ctx.id, dialect = ctx.dialect.as_str(), endpoint = ctx.endpoint, model, fallback, node, status,
                outcome = ctx.outcome, cache, error = reason, ttft_ms, total_ms = millis(total),
                prompt_tokens = done.prompt_tokens, completion_tokens = done.completion_tokens, "request"
            )
        };
    }
    match ctx.error.as_ref().map(crate::error::Error::level) {
        Some(tracing::Level::ERROR) => line!(error),
        Some(tracing::Level::WARN) => line!(warn),
        _ if QUIET.contains(&ctx.endpoint) => line!(debug),
        _ => line!(info),
    }
}

fn observe(proxy: &Proxy, ctx: &Context, total: Duration) {
    let metrics = &proxy.metrics;
    let model = ctx.model.as_deref().unwrap_or_default();
    metrics.requests.with_label_values(&[ctx.dialect.as_str(), ctx.endpoint, model, ctx.outcome]).inc();
    metrics.request_duration.with_label_values(&[ctx.endpoint, model]).observe(total.as_secs_f64());
    let Some(first) = ctx.first_event else { return };
    metrics.ttft.with_label_values(&[model]).observe(first.as_secs_f64());
    // What a follower has waited for is not what its flight has.
    if let (Some(route), Source::Miss | Source::Bypass) = (&ctx.route, ctx.source) {
        let waited = route.queued + route.loading + route.upstream;
        metrics.overhead.observe(first.saturating_sub(waited).as_secs_f64());
    }
    // The choices of one request are generated side by side.
    let tokens = ctx.done.as_ref().map_or(0, |done| done.completion_tokens) / ctx.choices.max(1);
    if tokens > 1 {
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens is far below 2^53")]
        let after_the_first = (tokens - 1) as f64;
        metrics.tpot.with_label_values(&[model]).observe((total - first).as_secs_f64() / after_the_first);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
