//! [`Order`]: what a strategy answers, the candidates in order with a score each. It is a buffer that is used again and again, so that a
//! decision allocates nothing once there have been as many candidates before.

use std::fmt;
use std::time::Duration;

use super::measures::Measures;
use super::{Candidate, Digest, StrategyName};

/// A strategy's answer: one [`Row`] per candidate, and why.
#[derive(Debug, Default)]
pub struct Order {
    strategy: StrategyName,
    rows: Vec<Row>,
    reasons: Vec<Reason>,
    /// Room for strategies that compare candidates by several measures, a row each.
    pub(super) measures: Vec<Measures>,
}

/// What a strategy makes of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Compared first: every candidate of a lower group comes before those of higher ones.
    pub group: u8,
    /// Compared within a group, less is better.
    pub score: f32,
    /// Tokens of the prompt that the node is believed to have in memory.
    pub reuse: u32,
    /// Expected time to first token in seconds; not a number where none is expected.
    ttft: f32,
    /// How far that is to be believed, 0 to 1.
    pub confidence: f32,
    is_taken: bool,
}

impl Row {
    /// A candidate that is `score` good.
    pub(super) fn new(group: u8, score: f32) -> Self {
        // What cannot be compared comes last.
        let score = if score.is_nan() { f32::MAX } else { score };
        Self { group, score, reuse: 0, ttft: f32::NAN, confidence: 0.0, is_taken: false }
    }

    /// So many groups later.
    pub(super) fn behind(self, groups: u8) -> Self {
        Self { group: self.group.saturating_add(groups), ..self }
    }

    pub(super) fn reusing(self, reuse: u32) -> Self {
        Self { reuse, ..self }
    }

    /// Expects the first token after `seconds`; nothing if that is not a number.
    pub(super) fn expecting(self, seconds: f32, confidence: f32) -> Self {
        match seconds.is_nan() {
            true => self,
            false => Self { ttft: seconds.max(0.0), confidence: confidence.clamp(0.0, 1.0), ..self },
        }
    }

    /// The expected time to first token.
    pub fn expected(&self) -> Option<Duration> {
        Duration::try_from_secs_f32(self.ttft).ok()
    }
}

/// What an order came about by, beside the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Nothing to be loyal to.
    NoSession,
    /// Nobody knows where the client is.
    NoSite,
    /// No candidate has enough of the prompt.
    NoMatch,
    /// So many candidates are left behind because they have much more to do than others.
    Overloaded(usize),
    /// The first tier that has room.
    Tier(u8),
    /// Only so many of the candidates are predicted well enough.
    Untrusted(usize, usize),
    /// The first one was sent nothing for the longest time.
    Explored,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => f.write_str("the request has no session: by load"),
            Self::NoSite => f.write_str("the client's place is not known: by load"),
            Self::NoMatch => f.write_str("no node has enough of the prompt in memory: by load"),
            Self::Overloaded(1) => f.write_str("1 node has too much to do"),
            Self::Overloaded(count) => write!(f, "{count} nodes have too much to do"),
            Self::Tier(tier) => write!(f, "tier {tier} is the first one with room"),
            Self::Untrusted(known, all) => {
                write!(f, "predictions are trusted for {known} of {all} nodes: by load")
            }
            Self::Explored => f.write_str("to learn about a node that was sent nothing for long"),
        }
    }
}

impl Order {
    /// Forgets everything; for the rows of `strategy`.
    pub(super) fn begin(&mut self, strategy: StrategyName) {
        self.strategy = strategy;
        self.rows.clear();
        self.reasons.clear();
        self.measures.clear();
    }

    /// The rows are another strategy's, used by `strategy`.
    pub(super) fn adopt(&mut self, strategy: StrategyName) {
        self.strategy = strategy;
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn extend(&mut self, rows: impl Iterator<Item = Row>) {
        self.rows.extend(rows);
    }

    pub(super) fn note(&mut self, reason: Reason) {
        self.reasons.push(reason);
    }

    pub(super) fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// The strategy that made it.
    pub fn strategy(&self) -> StrategyName {
        self.strategy
    }

    /// One per candidate, in the candidates' order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What it came about by.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// The index of the best candidate that was not returned yet; the first of equals.
    pub fn take(&mut self) -> Option<usize> {
        let free = self.rows.iter().enumerate().filter(|(_, row)| !row.is_taken);
        let best = free.min_by(|(_, a), (_, b)| a.group.cmp(&b.group).then(a.score.total_cmp(&b.score)))?.0;
        if let Some(row) = self.rows.get_mut(best) {
            row.is_taken = true;
        }
        Some(best)
    }

    /// The candidate at `index`, with what is expected of it.
    pub fn pick(&self, index: usize, candidates: &[Candidate]) -> Option<Pick> {
        let (row, candidate) = (self.rows.get(index)?, candidates.get(index)?);
        Some(Pick {
            strategy: self.strategy,
            candidate: candidate.clone(),
            reuse: row.reuse,
            expected: row.expected(),
            confidence: row.confidence,
        })
    }
}

/// A candidate that was chosen, as it was known then. Kept by whoever sends the request until it has ended, for what is learned from the
/// outcome is learned about this.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// By which strategy.
    pub strategy: StrategyName,
    /// The node as it was.
    pub candidate: Candidate,
    /// Tokens of the prompt it was believed to have in memory.
    pub reuse: u32,
    /// The expected time to first token.
    pub expected: Option<Duration>,
    /// How far that was to be believed, 0 to 1.
    pub confidence: f32,
}

impl Pick {
    /// Tokens of the prompt that the node is believed to have to read: what counts as [`Candidate::tokens_unread`] until the first
    /// token comes.
    pub fn unread(&self, digest: &Digest) -> u64 {
        u64::from(digest.prompt_tokens.saturating_sub(self.reuse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_before_scores_the_first_of_equals_wins_and_each_is_taken_once() {
        let mut order = Order::default();
        for (group, score) in [(1, 0.0), (0, 2.0), (0, 1.0), (0, 1.0), (0, f32::NAN)] {
            order.push(Row::new(group, score));
        }
        let taken: Vec<_> = std::iter::from_fn(|| order.take()).collect();
        assert_eq!(taken, [2, 3, 1, 4, 0]);
    }

    #[test]
    fn what_is_not_expected_is_unknown() {
        assert_eq!(Row::new(0, 1.0).expected(), None);
        assert_eq!(Row::new(0, 1.0).expecting(1.5, 2.0).expected(), Some(Duration::from_millis(1500)));
        assert_eq!(Row::new(0, 1.0).expecting(-1.0, 2.0).expected(), Some(Duration::ZERO));
        assert_eq!(Row::new(0, 1.0).expecting(f32::INFINITY, 1.0).expected(), None);
    }
}
