//! Hedges: what is late in beginning to be answered is asked of a second node too, and who begins first goes on. (J. Dean and
//! L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013.) Both have the same seed, so either answer is right.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::drill::Drill;
use super::exchange::Exchange;
use super::place::able;
use super::rules::Rules;
use super::{Claim, Dispatch, Target};
use crate::node::Node;
use crate::upstream::Fault;

/// What a request may be sent to a second node with.
pub(super) struct Hedging<'a> {
    pub target: &'a Target,
    pub claim: &'a Claim,
    pub rules: &'a Rules,
    /// Those that have failed in it.
    pub tried: &'a [Arc<Node>],
}

/// How a race between two nodes ended.
struct Race<T> {
    is_second: bool,
    begun: Result<T, Fault>,
    /// How the other one has failed, if it has.
    loser: Option<Fault>,
}

impl Dispatch {
    /// Begins on the node of `choice`; where that takes too long, on another one too. The choice that goes on, with its beginning.
    pub(super) async fn begin<E: Exchange>(
        &self,
        hedging: Hedging<'_>,
        choice: Choice,
        exchange: &E,
        drill: Option<Drill>,
    ) -> (Choice, Result<E::Begun, Fault>) {
        let late = hedging.rules.retry.hedge;
        let (from, model) = (Instant::now(), &hedging.target.name);
        let patience = exchange.can_be_hedged().then(|| self.beginnings.late(model, late)).flatten();
        let (choice, begun) = match patience {
            None => {
                let begun = exchange.begin(&choice, drill).await;
                (choice, begun)
            }
            // On the heap, for few need it.
            Some(patience) => Box::pin(self.race(&hedging, choice, exchange, drill, patience)).await,
        };
        if begun.is_ok() {
            self.beginnings.note(model, late, from.elapsed());
        }
        (choice, begun)
    }

    async fn race<E: Exchange>(
        &self,
        hedging: &Hedging<'_>,
        choice: Choice,
        exchange: &E,
        drill: Option<Drill>,
        patience: Duration,
    ) -> (Choice, Result<E::Begun, Fault>) {
        let (second, race) = {
            let mut first = pin!(exchange.begin(&choice, drill));
            if let Ok(begun) = tokio::time::timeout(patience, first.as_mut()).await {
                (None, Race { is_second: false, begun, loser: None })
            } else {
                match self.second(hedging, &choice, exchange) {
                    None => (None, Race { is_second: false, begun: first.await, loser: None }),
                    Some(second) => {
                        let race = race(first, exchange.begin(&second, None)).await;
                        (Some(second), race)
                    }
                }
            }
        };
        let Some(second) = second else { return (choice, race.begun) };
        let result = if race.is_second { "won" } else { "lost" };
        self.metrics.hedges.with_label_values(&[result]).inc();
        let (winner, loser) = if race.is_second { (second, choice) } else { (choice, second) };
        tracing::debug!(node = %winner.node.name, other = %loser.node.name, "a hedge has {result}");
        if let Some(fault) = race.loser {
            self.suspect(hedging.target, &loser.node);
            loser.fail(&fault);
        }
        (winner, race.begun)
    }

    /// Another node that could have it now, if the budget allows for one.
    fn second<E: Exchange>(&self, hedging: &Hedging<'_>, first: &Choice, exchange: &E) -> Option<Choice> {
        let &Hedging { target, claim, rules, tried } = hedging;
        let now = Instant::now();
        let (mut nodes, _) = able(self.nodes_of(target), exchange);
        nodes.retain(|node| !tried.iter().chain([&first.node]).any(|known| Arc::ptr_eq(known, node)));
        let fit = self.fit(&target.name, nodes, now);
        if fit.nodes.is_empty() || !rules.budget.withdraw() {
            return None;
        }
        self.choose(target, fit, &[], || Self::digest(target, claim, exchange.digest()), now)
    }
}

/// Whoever begins well first. The other one is dropped, and its node sees the connection close.
async fn race<T>(
    mut first: impl Future<Output = Result<T, Fault>> + Unpin,
    second: impl Future<Output = Result<T, Fault>>,
) -> Race<T> {
    let mut second = pin!(second);
    tokio::select! {
        biased;
        begun = &mut first => match begun {
            Ok(begun) => Race { is_second: false, begun: Ok(begun), loser: None },
            Err(fault) => match second.await {
                Ok(begun) => Race { is_second: true, begun: Ok(begun), loser: Some(fault) },
                Err(other) => Race { is_second: false, begun: Err(fault), loser: Some(other) },
            },
        },
        begun = &mut second => match begun {
            Ok(begun) => Race { is_second: true, begun: Ok(begun), loser: None },
            Err(fault) => Race { is_second: false, begun: first.await, loser: Some(fault) },
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Begins after so many milliseconds, or fails then.
    async fn node(name: &'static str, after: u64, begins: bool) -> Result<&'static str, Fault> {
        sleep(Duration::from_millis(after)).await;
        if begins { Ok(name) } else { Err(Fault::Broken(name.into())) }
    }

    /// Who won, how, and whose fault was told.
    async fn raced(
        first: (u64, bool),
        second: (u64, bool),
    ) -> (bool, Result<&'static str, String>, Option<String>) {
        let first = pin!(node("first", first.0, first.1));
        let race = race(first, node("second", second.0, second.1)).await;
        (
            race.is_second,
            race.begun.map_err(|fault| fault.to_string()),
            race.loser.map(|fault| fault.to_string()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_first_goes_on_and_the_other_has_no_fault() {
        assert_eq!(raced((10, true), (20, true)).await, (false, Ok("first"), None));
        assert_eq!(raced((20, true), (10, true)).await, (true, Ok("second"), None));
        assert_eq!(raced((10, true), (20, false)).await, (false, Ok("first"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_leaves_it_to_the_other() {
        assert_eq!(raced((10, false), (20, true)).await, (true, Ok("second"), Some("first".into())));
        assert_eq!(raced((20, true), (10, false)).await, (false, Ok("first"), Some("second".into())));
        assert_eq!(
            raced((10, false), (20, false)).await,
            (false, Err("first".into()), Some("second".into()))
        );
        assert_eq!(
            raced((20, false), (10, false)).await,
            (false, Err("first".into()), Some("second".into()))
        );
    }
}
