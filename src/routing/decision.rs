//! [`Decision`]: an order in words and numbers, for people who want to know why.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{Candidate, Digest, Order, Strategy, StrategyName};

/// Where a request would go, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The model.
    pub model: Arc<str>,
    /// The best node; `None` if there is none.
    pub node: Option<Arc<str>>,
    /// By which strategy.
    pub strategy: StrategyName,
    /// Expected time to first token there, if the strategy predicts any.
    pub expected_ttft_seconds: Option<f64>,
    /// How far that is to be believed, 0 to 1.
    pub confidence: f32,
    /// In words, beside the scores.
    pub reasons: Vec<String>,
    /// All candidates, best first.
    pub candidates: Vec<Scored>,
}

/// What a strategy makes of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// The node's name.
    pub node: Arc<str>,
    /// Candidates of a lower group come first.
    pub group: u8,
    /// Within a group less is better; what it is made of is the strategy's.
    pub score: f32,
    /// As in [`Decision`].
    pub expected_ttft_seconds: Option<f64>,
    /// As in [`Decision`].
    pub confidence: f32,
    /// Tokens of the prompt that it is believed to have in memory.
    pub reused_tokens: u32,
}

/// What `strategy` would do with the request now. Nothing is sent and nothing is learned.
pub fn explain(strategy: &dyn Strategy, digest: &Digest, candidates: &[Candidate], now: Instant) -> Decision {
    let mut order = Order::default();
    strategy.rank(digest, candidates, now, &mut order);
    let mut scored = Vec::with_capacity(candidates.len());
    while let Some(index) = order.take() {
        let (Some(row), Some(candidate)) = (order.rows().get(index), candidates.get(index)) else { break };
        scored.push(Scored {
            node: Arc::clone(&candidate.name),
            group: row.group,
            score: row.score,
            expected_ttft_seconds: row.expected().map(|expected| expected.as_secs_f64()),
            confidence: row.confidence,
            reused_tokens: row.reuse,
        });
    }
    let best = scored.first();
    Decision {
        model: Arc::clone(&digest.model),
        node: best.map(|best| Arc::clone(&best.node)),
        strategy: order.strategy(),
        expected_ttft_seconds: best.and_then(|best| best.expected_ttft_seconds),
        confidence: best.map_or(0.0, |best| best.confidence),
        reasons: order.reasons().iter().map(ToString::to_string).collect(),
        candidates: scored,
    }
}
