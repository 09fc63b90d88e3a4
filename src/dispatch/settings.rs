//! Changing how a model is computed while it is.

use std::sync::Arc;

use super::exchange::Exchange;
use super::place::{Trip, Waited};
use super::{Dispatch, Target};
use crate::error::Error;
use crate::generation::seam::{Change, Settings};

impl Dispatch {
    /// Changes the settings of every node that serves the model now, and tells what is in force at each: none if the model is not
    /// in memory. A node that refuses ends it; the nodes of a model are alike, so the first one refuses if any does.
    pub async fn change(&self, target: &Target, change: &Change) -> Result<Vec<(Arc<str>, Settings)>, Error> {
        let mut in_force = Vec::new();
        for node in self.pool.of(&target.name).into_iter().filter(|node| node.protocol.is_seam()) {
            let mut exchange = self.ask_workers("/settings", change);
            let trip = Trip { node: &node, attempt: 1, waited: Waited::default() };
            let (settings, _) = exchange.run(trip).await?;
            in_force.push((Arc::clone(&node.name), settings));
        }
        Ok(in_force)
    }
}
