//! The `nodes` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::range;

/// One entry of `nodes`: a process this Arriero does not own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Unique among nodes and models.
    pub name: String,
    /// `unix:/path/of/socket`.
    pub url: String,
    /// How to talk to it. Only `worker` is built.
    #[serde(default)]
    pub protocol: Protocol,
    /// The models it serves; at least one while models cannot be discovered.
    pub models: Vec<String>,
    /// Exchanges at once; 1 to a million.
    #[serde(default = "four")]
    pub max_in_flight: usize,
}

fn four() -> usize {
    4
}

impl NodeConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.socket().is_none() {
            faults.push(("url", "expected unix:/path/of/socket".to_owned()));
        }
        if self.models.is_empty() {
            faults.push(("models", "must name at least one model".to_owned()));
        }
        let in_flight = range::fault(self.max_in_flight as u64, 1..=1_000_000);
        faults.extend(in_flight.map(|message| ("max_in_flight", message)));
        faults
    }

    /// The path of a `unix:` URL.
    pub fn socket(&self) -> Option<PathBuf> {
        self.url.strip_prefix("unix:").filter(|path| path.starts_with('/')).map(PathBuf::from)
    }
}

/// How the proxy talks to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Canonical JSON over HTTP/1.1: [`crate::generation::seam`].
    #[default]
    Worker,
}
