//! What a kept answer costs beside nginx's `proxy_cache`, and what looking for one costs where there is none.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

const KEYS: usize = 1_000;
const ROUNDS: usize = 4;
const CROWD: usize = 64;
const TIME: Duration = Duration::from_secs(2);

#[derive(Default, Clone)]
struct Row {
    hits: u64,
    misses: u64,
    /// Of hits at one connection, nanoseconds.
    latencies: Vec<u64>,
}

/// Prints the tables.
pub async fn run() -> Outcome<()> {
    let stage = Stage::caching().await?;
    let mut rows = vec![Row::default(); stage.targets.len()];
    for target in &stage.targets {
        let mut client = Client::connect(target.address).await?;
        for key in 0..KEYS {
            client.time(&target.numbered(key)).await?;
        }
    }
    // Numbers that were never asked for, in each round and for each target anew.
    let fresh = Cell::new(KEYS);
    for _ in 0..ROUNDS {
        for (target, row) in stage.targets.iter().zip(&mut rows) {
            let mut client = Client::connect(target.address).await?;
            for key in 0..KEYS {
                row.latencies.push(client.time(&target.numbered(key)).await?);
            }
            let turn = Cell::new(0);
            row.hits += crowd(target, || turn.replace(turn.get() + 1) % KEYS).await?;
            row.misses += crowd(target, || fresh.replace(fresh.get() + 1)).await?;
        }
    }
    report(&stage, &mut rows);
    Ok(())
}

/// Requests done at 64 connections.
async fn crowd(target: &Target, number: impl Fn() -> usize) -> Outcome<u64> {
    let deadline = Instant::now() + TIME;
    let clients = (0..CROWD).map(|_| async {
        let mut client = Client::connect(target.address).await?;
        let mut done = 0;
        while Instant::now() < deadline {
            client.time(&target.numbered(number())).await?;
            done += 1;
        }
        Outcome::Ok(done)
    });
    let done = futures::future::try_join_all(clients).await?;
    Ok(done.into_iter().sum())
}

fn report(stage: &Stage, rows: &mut [Row]) {
    rows.iter_mut().for_each(|row| row.latencies.sort_unstable());
    let row = |name: &str| stage.targets.iter().position(|target| target.name == name).unwrap_or_default();
    let (nginx, off) = (rows[row("nginx, proxy_cache")].clone(), rows[row("Arriero, nothing kept")].clone());
    let median = |row: &Row| quantile(&row.latencies, 0.5) as f64 / 1e3;
    println!("\n### Kept answers ({KEYS} of them, whole, 500-byte requests)\n");
    println!(
        "| through | hits/s at 64 connections | to nginx | median at one connection | 99th percentile | misses/s, to nothing kept |"
    );
    println!("|---|---|---|---|---|---|");
    let seconds = TIME.as_secs_f64() * ROUNDS as f64;
    for (target, row) in stage.targets.iter().zip(rows.iter()) {
        println!(
            "| {} | {:.0} | {:.2} | {:.1} us | {:.1} us | {:.3} |",
            target.name,
            row.hits as f64 / seconds,
            row.hits as f64 / nginx.hits as f64,
            median(row),
            quantile(&row.latencies, 0.99) as f64 / 1e3,
            row.misses as f64 / off.misses as f64,
        );
    }
}
