//! Streams: how late each event is, and what an open stream costs in memory.

use crate::client::{Client, age};
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

const STREAMS: usize = 256;
const EVENTS: u32 = 200;
const PAUSE_MICROS: u64 = 20_000;
const IDLE_STREAMS: usize = 1_000;

/// 256 streams at 50 events per second: delay of each event from the stub's write to the client's read.
pub async fn run(stage: &Stage) -> Outcome<()> {
    println!(
        "\n### Delay of an event ({STREAMS} streams at 50 events/s each, stub's write to client's read)\n"
    );
    println!("| through | p50 | p99 | p99 over bare Pingora | events |");
    println!("|---|---|---|---|---|");
    let mut delays: Vec<Vec<u64>> = vec![Vec::new(); stage.targets.len()];
    for _ in 0..2 {
        for (target, delays) in stage.targets.iter().zip(&mut delays) {
            delays.extend(watch(target).await?);
        }
    }
    delays.iter_mut().for_each(|delays| delays.sort_unstable());
    let bare = stage.targets.iter().position(|target| target.name == "bare Pingora").unwrap_or_default();
    let bare = quantile(&delays[bare], 0.99);
    for (target, delays) in stage.targets.iter().zip(&delays) {
        println!(
            "| {} | {:.0} us | {:.0} us | {:+.0} us | {} of {} |",
            target.name,
            quantile(delays, 0.5) as f64 / 1e3,
            quantile(delays, 0.99) as f64 / 1e3,
            (quantile(delays, 0.99) as f64 - bare as f64) / 1e3,
            delays.len(),
            2 * STREAMS * EVENTS as usize,
        );
    }
    Ok(())
}

async fn watch(target: &Target) -> Outcome<Vec<u64>> {
    let request = target.request(EVENTS, PAUSE_MICROS, true);
    let streams = (0..STREAMS).map(|index| {
        let request = &request;
        async move {
            // Spread over one pause, as independent streams are.
            tokio::time::sleep(std::time::Duration::from_micros(
                PAUSE_MICROS * index as u64 / STREAMS as u64,
            ))
            .await;
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
