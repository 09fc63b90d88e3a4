//! Saving to disk what the workers of a model hold, now rather than when they end.

use std::sync::Arc;

use super::Dispatch;
use crate::error::Error;
use crate::generation::seam::Saved;
use crate::node::Node;
use crate::node::protocol::Request;
use crate::upstream::Fault;

impl Dispatch {
    /// Has every node of the model that `name` means save what it holds; what each has saved, by the name of the node. A model that is
    /// not in memory holds nothing.
    pub async fn snapshot(&self, name: &str) -> Result<Vec<(Arc<str>, Saved)>, Error> {
        let target = self.find(name)?.ok_or_else(|| Error::ModelNotFound { name: name.to_owned() })?;
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, None));
        let mut nodes = self.nodes_of(&target);
        nodes.retain(|node| node.protocol.is_seam());
        Ok(futures::future::try_join_all(nodes.iter().map(|node| self.snapshot_of(node))).await?)
    }

    async fn snapshot_of(&self, node: &Node) -> Result<(Arc<str>, Saved), Fault> {
        let answer = self.upstream.ask(node, Request::post("/snapshot", &serde_json::json!({}))).await?;
        let saved = serde_json::from_slice(&answer).map_err(|error| Fault::Broken(error.to_string()))?;
        Ok((Arc::clone(&node.name), saved))
    }
}
