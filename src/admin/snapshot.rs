//! `POST /admin/v1/models/NAME/snapshot`: has a model's workers save to disk what they hold.

use serde_json::{Value, json};

use crate::dispatch::Dispatch;
use crate::error::Error;

/// `{nodes: [{name, snapshots, tokens, bytes}]}`: what each node has written; what was on disk already is not written again.
pub async fn snapshot(dispatch: &Dispatch, model: &str) -> Result<Value, Error> {
    let saved = dispatch.snapshot(model).await?.into_iter();
    let nodes = saved.map(|(name, saved)| {
        json!({ "name": &*name, "snapshots": saved.snapshots, "tokens": saved.tokens, "bytes": saved.bytes })
    });
    Ok(json!({ "nodes": nodes.collect::<Vec<_>>() }))
}
