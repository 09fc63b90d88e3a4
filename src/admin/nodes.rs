//! `/admin/v1/nodes`, `/admin/v1/route/explain` and `/admin/v1/decisions`: who takes requests, and why this one.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminState;
use super::router::{error, refused};
use crate::dialect::{self, Endpoint, Work};
use crate::dispatch::{Claim, Deed, Dispatch};
use crate::error::Error;

/// Decisions that are shown where nobody says how many.
const DECISIONS: usize = 50;

/// What the admin port shows of nodes and has done to them.
pub trait Nodes: Send + Sync {
    /// Every node with its state: a list.
    fn list(&self) -> Value;
    /// Brings the metrics of nodes up to date that are only looked at.
    fn show_shares(&self);
    /// Does something to a node, for a reason.
    fn act(&self, node: &str, deed: Deed, reason: &str) -> Result<(), Error>;
    /// Where a request to this endpoint would go.
    fn explain(&self, endpoint: &Endpoint, body: &[u8]) -> Result<Value, Error>;
    /// The last decisions, the latest first: a list.
    fn decisions(&self, count: usize) -> Value;
}

impl Nodes for Dispatch {
    fn list(&self) -> Value {
        json!(self.node_reports())
    }

    fn show_shares(&self) {
        Dispatch::show_shares(self);
    }

    fn act(&self, node: &str, deed: Deed, reason: &str) -> Result<(), Error> {
        Dispatch::act(self, node, deed, reason)
    }

    fn explain(&self, endpoint: &Endpoint, body: &[u8]) -> Result<Value, Error> {
        let mut call = dialect::parse(endpoint, body)?;
        let target = self.target(&mut call)?;
        match call.work {
            Work::Generate(generations) if !generations.is_empty() => {
                Ok(json!(Dispatch::explain(self, &target, &Claim::default(), &generations[0])))
            }
            _ => Err(Error::invalid("only a request for text has a choice that can be explained")),
        }
    }

    fn decisions(&self, count: usize) -> Value {
        json!(Dispatch::decisions(self, count))
    }
}

/// `{nodes: [...]}`.
pub(super) async fn nodes(State(state): State<AdminState>) -> Json<Value> {
    Json(json!({ "nodes": state.nodes.list() }))
}

/// Why something is done.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Why {
    reason: Option<String>,
}

/// `POST /admin/v1/nodes/NAME/DEED?reason=...`: `drain`, `enable`, `open`, `close` or `reset`.
pub(super) async fn act(
    State(state): State<AdminState>,
    Path((node, deed)): Path<(String, String)>,
    Query(why): Query<Why>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let deed = match deed.as_str() {
        "drain" => Deed::Drain,
        "enable" => Deed::Enable,
        "open" => Deed::Open,
        "close" => Deed::Close,
        "reset" => Deed::Reset,
        _ => return error(StatusCode::NOT_FOUND, "expected drain, enable, open, close or reset"),
    };
    let reason = why.reason.unwrap_or_else(|| "by the admin port".to_owned());
    match state.nodes.act(&node, deed, &reason) {
        Ok(()) => Json(json!({ "node": node })).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// Whose request the body of an explanation is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Whose {
    path: Option<String>,
}

/// `POST /admin/v1/route/explain?path=/v1/chat/completions`: the body is a request to that path, without one to `/api/chat` if it has
/// `messages`, else to `/api/generate`. Nothing is sent.
pub(super) async fn explain(
    State(state): State<AdminState>,
    Query(whose): Query<Whose>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = state.access.check(&headers) {
        return refused(&refusal);
    }
    let is_chat = || serde_json::from_slice::<Value>(&body).is_ok_and(|body| body.get("messages").is_some());
    let path = whose.path.unwrap_or_else(|| if is_chat() { "/api/chat" } else { "/api/generate" }.to_owned());
    let explained =
        Endpoint::of(&Method::POST, &path).and_then(|endpoint| state.nodes.explain(&endpoint, &body));
    match explained {
        Ok(explanation) => Json(explanation).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// How many.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Count {
    count: Option<usize>,
}

/// `{decisions: [...]}`.
pub(super) async fn decisions(State(state): State<AdminState>, Query(count): Query<Count>) -> Json<Value> {
    Json(json!({ "decisions": state.nodes.decisions(count.count.unwrap_or(DECISIONS)) }))
}
