//! [`Candidate`]: what a strategy sees of a node, as it was when the request was to be sent.

use std::sync::Arc;
use std::time::Duration;

use super::draw::number_of;
use super::site::Site;

/// What a request takes of a node however short it is: its place in every batch. In tokens, so that load can be counted in them.
const TOKENS_OF_A_PLACE: f32 = 64.0;

/// A node's name as a number: the same in every process, and nearly certainly no other node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u64);

impl NodeId {
    /// The number of `name`.
    pub fn of(name: &str) -> Self {
        Self(number_of(name))
    }
}

/// A node as a strategy sees it. What is not known is `None`, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The node's name.
    pub name: Arc<str>,
    /// Its number; what strategies remember of nodes is filed under it.
    pub id: NodeId,
    /// Differs between a process and its replacement, which remembers no prompts.
    pub incarnation: u64,
    /// Sequences it can run at once, at least 1.
    pub parallel: usize,
    /// Exchanges of this proxy that run on it.
    pub in_flight: usize,
    /// Tokens of the prompts of these exchanges and of the answers expected; a finished exchange counts no more.
    pub tokens_in_flight: u64,
    /// Tokens of those prompts that have no first token yet, without what the node is believed to have in memory: what it has to
    /// read before a new prompt ([`Pick::unread`](super::Pick::unread)).
    pub tokens_unread: u64,
    /// Tokens of prompts that it keeps in memory after their requests.
    pub keeps: Option<u64>,
    /// How much it is to get beside others; more than 0.
    pub weight: f32,
    /// The part of its places it may fill, 0 to 1; less than 1 while it recovers.
    pub slow_start: f32,
    /// Nodes of the lowest tier go first where tiers count.
    pub tier: u8,
    /// Where it is.
    pub site: Site,
    /// Price of a token, in whatever unit all nodes have in common.
    pub cost: Option<f32>,
    /// Whether it has the model in memory.
    pub residency: Residency,
    /// What it says of itself.
    pub signals: Signals,
}

/// Whether a node has a model in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// It has.
    #[default]
    Resident,
    /// It has to load it, which is believed to take so long.
    Loads(Duration),
}

/// What a node says of itself, unless that is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// Part of its processors in use, 0 to 1.
    pub cpu: Option<f32>,
    /// Part of its memory in use, 0 to 1.
    pub memory: Option<f32>,
    /// Part of its KV cells in use, 0 to 1.
    pub kv: Option<f32>,
    /// Requests that wait there, whoever sent them.
    pub queue: Option<f32>,
}

impl Candidate {
    /// An idle node of which nothing else is known.
    pub fn new(name: impl Into<Arc<str>>, parallel: usize) -> Self {
        let name = name.into();
        Self {
            id: NodeId::of(&name),
            name,
            incarnation: 0,
            parallel,
            in_flight: 0,
            tokens_in_flight: 0,
            tokens_unread: 0,
            keeps: None,
            weight: 1.0,
            slow_start: 1.0,
            tier: 0,
            site: Site::default(),
            cost: None,
            residency: Residency::Resident,
            signals: Signals::default(),
        }
    }

    /// Places that it may fill now, at least 1.
    pub fn places(&self) -> f32 {
        let all = self.parallel.max(1) as f32;
        // Nearly always all of them; rounding is a call on processors that are not assumed to have an instruction for it.
        if self.slow_start >= 1.0 { all } else { (all * self.slow_start).ceil().max(1.0) }
    }

    /// Part of its places in use; more than 1 where requests wait.
    pub fn usage(&self) -> f32 {
        self.in_flight as f32 / self.places()
    }

    /// Whether a further request would run at once.
    pub fn has_room(&self) -> bool {
        (self.in_flight as f32) < self.places()
    }

    /// What runs on it in tokens per place and weight.
    pub fn load(&self) -> f32 {
        let tokens = self.tokens_in_flight as f32 + self.in_flight as f32 * TOKENS_OF_A_PLACE;
        tokens / (self.places() * self.weight.max(f32::MIN_POSITIVE))
    }

    /// What the model's load takes first.
    pub fn load_time(&self) -> Duration {
        match self.residency {
            Residency::Resident => Duration::ZERO,
            Residency::Loads(time) => time,
        }
    }

    /// The same in seconds; nearly always 0, which is not to cost a division.
    pub fn load_seconds(&self) -> f32 {
        match self.residency {
            Residency::Resident => 0.0,
            Residency::Loads(time) => time.as_secs_f32(),
        }
    }
}
