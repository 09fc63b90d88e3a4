//! What a request costs on its way: added latency at one connection, CPU, requests per second at 64 connections.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

const ROUNDS: usize = 6;
const REQUESTS: usize = 1_500;
const CROWD: usize = 64;
const CROWD_TIME: Duration = Duration::from_secs(2);

#[derive(Default, Clone)]
struct Row {
    latencies: Vec<u64>,
    cpu: u64,
    crowd: u64,
}

/// Prints the table.
pub async fn run(stage: &Stage) -> Outcome<()> {
    let mut rows = vec![Row::default(); stage.targets.len()];
    for _ in 0..ROUNDS {
        for (target, row) in stage.targets.iter().zip(&mut rows) {
            alone(target, row).await?;
        }
    }
    for _ in 0..2 {
        for (target, row) in stage.targets.iter().zip(&mut rows) {
            row.crowd += crowd(target).await?;
        }
    }
    report(stage, &mut rows);
    Ok(())
}

async fn alone(target: &Target, row: &mut Row) -> Outcome<()> {
    let request = target.request(1, 0, false);
    let mut client = Client::connect(target.address).await?;
    for _ in 0..100 {
        client.time(&request).await?;
    }
    let before = target.cpu();
    for _ in 0..REQUESTS {
        row.latencies.push(client.time(&request).await?);
    }
    row.cpu += target.cpu() - before;
    Ok(())
}

/// Requests done at 64 connections.
async fn crowd(target: &Target) -> Outcome<u64> {
    let deadline = Instant::now() + CROWD_TIME;
    let clients = (0..CROWD).map(|_| async {
        let request = target.request(1, 0, false);
        let mut client = Client::connect(target.address).await?;
        let mut done = 0;
        while Instant::now() < deadline {
            client.time(&request).await?;
            done += 1;
        }
        Outcome::Ok(done)
    });
    let done = futures::future::try_join_all(clients).await?;
    Ok(done.into_iter().sum())
}

fn report(stage: &Stage, rows: &mut [Row]) {
    for row in rows.iter_mut() {
        row.latencies.sort_unstable();
    }
    let direct = quantile(&rows[0].latencies, 0.5);
    let added = |row: &Row| quantile(&row.latencies, 0.5).saturating_sub(direct) as f64 / 1e3;
    let each = |row: &Row| row.cpu as f64 / 1e3 / (ROUNDS * REQUESTS) as f64;
    let bare = stage.targets.iter().position(|target| target.name == "bare Pingora").unwrap_or_default();
    let (bare_added, bare_cpu, bare_crowd) = (added(&rows[bare]), each(&rows[bare]), rows[bare].crowd as f64);
    println!(
        "\n### Cost of a request (one connection, 500-byte bodies; ratios against bare Pingora in the same run)\n"
    );
    println!(
        "| through | median | added median | ratio | CPU per request | ratio | requests at 64 connections, ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (target, row) in stage.targets.iter().zip(rows.iter()) {
        println!(
            "| {} | {:.1} us | {:.1} us | {:.2} | {:.1} us | {:.2} | {:.2} |",
            target.name,
            quantile(&row.latencies, 0.5) as f64 / 1e3,
            added(row),
            added(row) / bare_added,
            each(row),
            each(row) / bare_cpu,
            row.crowd as f64 / bare_crowd,
        );
    }
}
