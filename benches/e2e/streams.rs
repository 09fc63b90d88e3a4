//! Streams: how late each event is, and what an open stream costs in memory.

use std::time::Duration;

use crate::client::{Client, age};
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

const STREAMS: usize = 256;
const EVENTS: u32 = 150;
const ROUNDS: usize = 5;
const PAUSE_MICROS: u64 = 20_000;
const OPENING: Duration = Duration::from_secs(1);
const IDLE_STREAMS: usize = 1_000;

/// 256 streams at 50 events per second: delay of each event from the stub's write to the client's read, and what it cost.
///
/// A round is short and each way has several, interleaved; the table shows the medians of the rounds, for a pause of this
/// machine of some milliseconds is the p99 of a whole round.
pub async fn run(stage: &Stage) -> Outcome<()> {
    println!(
        "\n### Delay of an event ({STREAMS} streams at 50 events/s each, stub's write to client's read, medians of {ROUNDS} rounds)\n"
    );
    println!("| through | p50 | p99 | p99 over bare Pingora | CPU per event | events |");
    println!("|---|---|---|---|---|---|");
    let mut rounds: Vec<Vec<Round>> = stage.targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (target, rounds) in stage.targets.iter().zip(&mut rounds) {
            rounds.push(round(target).await?);
        }
    }
    let bare = stage.targets.iter().position(|target| target.name == "bare Pingora").unwrap_or_default();
    let bare = median(&rounds[bare], |round| round.p99);
    for (target, rounds) in stage.targets.iter().zip(&rounds) {
        let p99 = median(rounds, |round| round.p99);
        println!(
            "| {} | {:.0} us | {:.0} us | {:+.0} us | {:.1} us | {} of {} |",
            target.name,
            median(rounds, |round| round.p50) as f64 / 1e3,
            p99 as f64 / 1e3,
            (p99 as f64 - bare as f64) / 1e3,
            median(rounds, |round| round.cpu) as f64 / 1e3,
            rounds.iter().map(|round| round.events).sum::<usize>(),
            ROUNDS * STREAMS * EVENTS as usize,
        );
    }
    Ok(())
}

/// What one round showed; times in nanoseconds.
struct Round {
    p50: u64,
    p99: u64,
    /// Of the proxy, per event.
    cpu: u64,
    events: usize,
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> u64) -> u64 {
    let mut values: Vec<u64> = rounds.iter().map(of).collect();
    values.sort_unstable();
    quantile(&values, 0.5)
}

async fn round(target: &Target) -> Outcome<Round> {
    let before = target.cpu();
    let mut delays = watch(target).await?;
    delays.sort_unstable();
    let events = delays.len();
    let cpu = (target.cpu() - before) / events.max(1) as u64;
    Ok(Round { p50: quantile(&delays, 0.5), p99: quantile(&delays, 0.99), cpu, events })
}

async fn watch(target: &Target) -> Outcome<Vec<u64>> {
    let request = target.request(EVENTS, PAUSE_MICROS, true);
    let streams = (0..STREAMS).map(|index| {
        let request = &request;
        async move {
            // Opened over a second: all at once would make it a test of opening.
            tokio::time::sleep(OPENING * index as u32 / STREAMS as u32).await;
            let mut delays = Vec::with_capacity(EVENTS as usize);
            Client::connect(target.address).await?.exchange(request, |stamp| delays.push(age(stamp))).await?;
            Outcome::Ok(delays)
        }
    });
    Ok(futures::future::try_join_all(streams).await?.concat())
}

/// Resident memory idle, and per open stream that waits for its next event.
pub async fn memory(stage: &Stage) -> Outcome<()> {
    println!("\n### Memory (resident)\n");
    println!("| process | now | per open stream, {IDLE_STREAMS} open |");
    println!("|---|---|---|");
    for target in stage.targets.iter().filter(|target| target.resident() > 0) {
        let before = target.resident();
        let request = target.request(2, 60_000_000, true);
        let mut open = Vec::with_capacity(IDLE_STREAMS);
        for _ in 0..IDLE_STREAMS {
            let mut client = Client::connect(target.address).await?;
            client.open(&request).await?;
            open.push(client);
        }
        let each = target.resident().saturating_sub(before) / IDLE_STREAMS as u64;
        println!("| {} | {:.1} MB | {:.1} KB |", target.name, before as f64 / 1e6, each as f64 / 1e3);
    }
    Ok(())
}
