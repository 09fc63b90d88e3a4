//! A pool of nodes of which everything is known, and requests to it; for measuring decisions.

use std::time::{Duration, Instant};

use arriero::routing::{
    Candidate, Digest, Order, Outcome, RoutingConfig, Signals, Site, Strategy, StrategyName, build_seeded,
};

/// So many nodes of five zones, in the middle of their work.
pub fn nodes(count: usize) -> Vec<Candidate> {
    let node = |i: usize| {
        let part = (i * 7 % 10) as f32 / 10.0;
        let signals = Signals { cpu: Some(part), memory: Some(part), kv: Some(part), queue: Some(part) };
        let location = format!("zone-{};{},{}", i % 5, i % 90, i % 180);
        Candidate {
            in_flight: i * 3 % 8,
            tokens_in_flight: i as u64 * 977 % 8000,
            tokens_unread: i as u64 * 577 % 3000,
            tier: (i % 3) as u8,
            cost: Some(1.0 + part),
            site: Site::parse(&location).unwrap_or_default(),
            signals,
            ..Candidate::new(format!("node-{i}"), 8)
        }
    };
    (0..count).map(node).collect()
}

/// Prompts of about 2,000 tokens in eight groups that begin alike.
pub fn digests() -> Vec<Digest> {
    let prompt = |i: u8| {
        let text: Vec<u8> = [vec![i % 8; 6000], vec![i; 2000]].concat();
        let site = Site::parse("zone-1;52.4,4.9").unwrap_or_default();
        Digest { expected_tokens: 200, ..Digest::of_bytes("m", &text) }.in_session(&[i]).from_site(site)
    };
    (0..64).map(prompt).collect()
}

/// The strategy after each node has answered a number of requests.
pub fn taught(name: StrategyName, nodes: &[Candidate], digests: &[Digest]) -> Box<dyn Strategy> {
    let strategy = build_seeded(&RoutingConfig { strategy: name, ..RoutingConfig::default() }, 7);
    let (now, mut order) = (Instant::now(), Order::default());
    for (round, digest) in digests.iter().take(30).enumerate() {
        strategy.rank(digest, nodes, now, &mut order);
        for (index, node) in nodes.iter().enumerate() {
            let Some(pick) = order.pick(index, nodes) else { continue };
            // A prompt in eight, as if each node had some of the groups.
            if (index + round) % 8 == 0 {
                strategy.observe(digest, &pick, &Outcome::Sent, now);
            }
            let read = node.tokens_unread + pick.unread(digest);
            let after = Duration::from_millis(50 + read / 2);
            strategy.observe(digest, &pick, &Outcome::FirstToken { after }, now);
        }
    }
    strategy
}
