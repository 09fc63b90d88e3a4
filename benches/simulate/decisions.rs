//! What a decision among 1,000 candidates takes: time and allocations.

use std::time::{Duration, Instant};

use arriero::routing::{Order, StrategyName};

use crate::{Outcome, allocations, pool};

const CANDIDATES: usize = 1000;
const DECISIONS: usize = 20_000;

/// Measures every strategy and prints a table.
pub fn run() -> Outcome<()> {
    println!("{CANDIDATES} candidates, {DECISIONS} decisions each\n");
    println!("| strategy | median | p99 | allocations per decision |\n|---|---|---|---|");
    let (nodes, digests) = (pool::nodes(CANDIDATES), pool::digests());
    for name in StrategyName::ALL {
        let strategy = pool::taught(name, &nodes, &digests);
        let mut order = Order::default();
        let mut times: Vec<Duration> = Vec::with_capacity(DECISIONS);
        let mut before = None;
        for (number, digest) in digests.iter().cycle().take(DECISIONS).enumerate() {
            // The first one fills the buffers.
            if number == 1 {
                before = allocations::count();
            }
            let from = Instant::now();
            strategy.rank(digest, &nodes, from, &mut order);
            std::hint::black_box(order.take());
            times.push(from.elapsed());
        }
        let allocated =
            allocations::count().zip(before).map_or("not counted".to_owned(), |(after, before)| {
                format!("{}", (after - before) as f64 / DECISIONS as f64)
            });
        times.sort_unstable();
        let at = |part: f64| {
            times.get((DECISIONS as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        println!("| {} | {:.1} us | {:.1} us | {allocated} |", name.as_str(), at(0.5), at(0.99));
    }
    Ok(())
}
