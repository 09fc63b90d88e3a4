//! What holds for every strategy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

/// The best candidate for a request of which nothing is known.
pub(super) fn best(strategy: &dyn Strategy, candidates: &[Candidate]) -> Option<usize> {
    best_for(strategy, &Digest::default(), candidates)
}

pub(super) fn best_for(strategy: &dyn Strategy, digest: &Digest, candidates: &[Candidate]) -> Option<usize> {
    let mut order = Order::default();
    strategy.rank(digest, candidates, Instant::now(), &mut order);
    order.take()
}

pub(super) fn best_at(strategy: &dyn Strategy, candidates: &[Candidate], now: Instant) -> Option<usize> {
    let mut order = Order::default();
    strategy.rank(&Digest::default(), candidates, now, &mut order);
    order.take()
}

/// As if `candidate` had been chosen.
pub(super) fn pick(candidate: &Candidate) -> Pick {
    let mut order = Order::default();
    order.push(Row::new(0, 0.0));
    order.pick(0, std::slice::from_ref(candidate)).unwrap()
}

/// The request goes to the candidate at `index`.
pub(super) fn send(strategy: &dyn Strategy, digest: &Digest, candidates: &[Candidate], index: usize) {
    strategy.observe(digest, &pick(&candidates[index]), &Outcome::Sent, Instant::now());
}

fn each() -> impl Iterator<Item = (StrategyName, Box<dyn Strategy>)> {
    let config = RoutingConfig::default();
    StrategyName::ALL.into_iter().map(move |name| (name, strategy(name, &config, 7)))
}

fn idle(count: usize) -> Vec<Candidate> {
    (0..count).map(|i| Candidate::new(format!("n{i}"), 4)).collect()
}

#[test]
fn each_gives_every_candidate_a_row_under_its_name_and_none_to_nobody() {
    for (name, strategy) in each() {
        let mut order = Order::default();
        for count in [3, 0, 5] {
            strategy.rank(&Digest::default(), &idle(count), Instant::now(), &mut order);
            assert_eq!((order.strategy(), order.rows().len()), (name, count));
            let taken: std::collections::BTreeSet<_> = std::iter::from_fn(|| order.take()).collect();
            assert_eq!(taken.len(), count, "{name:?}");
        }
        assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
    }
}

#[test]
fn asking_changes_nothing_where_nothing_is_left_to_chance() {
    let digest = Digest::of_bytes("m", &[1; 5000]).in_session(b"s");
    let nodes = idle(7);
    for (name, strategy) in each() {
        if matches!(name, StrategyName::Random | StrategyName::PowerOfTwo) {
            continue;
        }
        for sent in 0..20 {
            let first = best_for(&*strategy, &digest, &nodes).unwrap();
            assert!((0..5).all(|_| best_for(&*strategy, &digest, &nodes) == Some(first)), "{name:?}");
            send(&*strategy, &digest, &nodes, sent % 7);
        }
    }
}

#[test]
fn an_explanation_is_the_decision() {
    let nodes = idle(4);
    for (name, strategy) in
        each().filter(|(name, _)| *name != StrategyName::Random && *name != StrategyName::PowerOfTwo)
    {
        let best = best(&*strategy, &nodes).unwrap();
        let decision = explain(&*strategy, &Digest::default(), &nodes, Instant::now());
        assert_eq!(decision.node, Some(std::sync::Arc::clone(&nodes[best].name)), "{name:?}");
        assert_eq!((decision.candidates.len(), decision.strategy), (4, name));
    }
    let nobody = explain(
        &*strategy(StrategyName::LeastLoaded, &RoutingConfig::default(), 0),
        &Digest::default(),
        &[],
        Instant::now(),
    );
    assert_eq!((nobody.node, nobody.confidence), (None, 0.0));
}

#[test]
fn turns_are_fair_and_by_weight() {
    for (name, weights) in [(StrategyName::RoundRobin, [1.0; 3]), (StrategyName::Weighted, [1.0, 2.0, 3.0])] {
        let strategy = strategy(name, &RoutingConfig::default(), 0);
        let mut nodes = idle(3);
        nodes.iter_mut().zip(weights).for_each(|(node, weight)| node.weight = weight);
        let sum: f32 = weights.iter().sum();
        let mut counts = [0.0_f32; 3];
        for sent in 1..=600 {
            let index = best(&*strategy, &nodes).unwrap();
            send(&*strategy, &Digest::default(), &nodes, index);
            counts[index] += 1.0;
            // At any time, not only in the end.
            for (count, weight) in counts.iter().zip(weights) {
                assert!(
                    (count - sent as f32 * weight / sum).abs() < 1.01,
                    "{name:?} after {sent}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn who_comes_back_has_no_turns_to_make_up_for() {
    let strategy = strategy(StrategyName::Weighted, &RoutingConfig::default(), 0);
    let nodes = idle(2);
    let turn = |nodes: &[Candidate]| {
        let index = best(&*strategy, nodes).unwrap();
        send(&*strategy, &Digest::default(), nodes, index);
        index
    };
    (0..100).for_each(|_| assert_eq!(turn(&nodes[..1]), 0));
    let second = (0..10).filter(|_| turn(&nodes) == 1).count();
    assert!((5..=6).contains(&second), "{second}");
}

#[test]
fn draws_are_by_weight() {
    let strategy = strategy(StrategyName::Random, &RoutingConfig::default(), 3);
    let mut nodes = idle(2);
    nodes[1].weight = 4.0;
    let drawn = (0..5000).filter(|_| best(&*strategy, &nodes) == Some(1)).count();
    assert!((3900..4100).contains(&drawn), "{drawn}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever is sent and whatever comes of it, no strategy panics, forgets a candidate or expects nonsense.
    #[test]
    fn each_bears_whatever_happens(steps in prop::collection::vec((0..12_usize, 0..6_u8, any::<u16>(), 0..4_u8), 1..60), seed: u64) {
        let config = RoutingConfig::default();
        for name in StrategyName::ALL {
            let strategy = strategy(name, &config, seed);
            let mut nodes = idle(12);
            let mut now = Instant::now();
            let mut sent: HashMap<usize, (Digest, Pick)> = HashMap::new();
            for (node, kind, size, text) in &steps {
                now += Duration::from_millis(u64::from(*size));
                let digest = Digest::of_bytes("m", &[*text].repeat(usize::from(*size)));
                let mut order = Order::default();
                strategy.rank(&digest, &nodes, now, &mut order);
                prop_assert_eq!(order.rows().len(), nodes.len());
                prop_assert!(order.rows().iter().all(|row| !row.score.is_nan() && (0.0..=1.0).contains(&row.confidence)));
                let (after, ttft) = (Duration::from_millis(u64::from(*size)), Duration::from_millis(9));
                let outcome = match kind {
                    0 | 1 => Outcome::Sent,
                    2 => Outcome::FirstToken { after },
                    3 => Outcome::Done { after, ttft, tokens: u64::from(*text) },
                    4 => Outcome::Failed { after },
                    _ => Outcome::Cancelled,
                };
                if outcome == Outcome::Sent {
                    let index = order.take().unwrap();
                    nodes[index].in_flight += 1;
                    nodes[index].tokens_unread += u64::from(*size);
                    sent.insert(index, (digest, order.pick(index, &nodes).unwrap()));
                }
                if let Some((digest, pick)) = sent.get(node) {
                    strategy.observe(digest, pick, &outcome, now);
                }
            }
        }
    }
}
