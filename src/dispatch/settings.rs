//! Changing how a model is computed while it is.

use std::sync::Arc;

use super::{Dispatch, Target};
use crate::error::Error;
use crate::generation::seam::{Change, Settings};
use crate::node::protocol::Request;
use crate::upstream::Fault;

impl Dispatch {
    /// Changes the settings of every node that serves the model now, and tells what is in force at each: none if the model is not
    /// in memory. A node that refuses ends it; the nodes of a model are alike, so the first one refuses if any does.
    pub async fn change(&self, target: &Target, change: &Change) -> Result<Vec<(Arc<str>, Settings)>, Error> {
        let mut in_force = Vec::new();
        for node in self.nodes_of(target).into_iter().filter(|node| node.protocol.is_seam()) {
            let answer = self.upstream.ask(&node, Request::post("/settings", change)).await?;
            let settings =
                serde_json::from_slice(&answer).map_err(|error| Fault::Broken(error.to_string()))?;
            in_force.push((Arc::clone(&node.name), settings));
        }
        Ok(in_force)
    }
}
