//! How many requests of a Zipf-distributed trace the response cache answers, by policy, tier and size: the shipped tiers, a drawn trace.
//!
//! `cargo bench --no-default-features --bench zipf` writes `benches/zipf/results.md` and its plot. Everything is drawn from the seed; what
//! moves from run to run is a part of a percent, for memory decides what it keeps in the background.

#![expect(clippy::print_stderr, reason = "it says what it does")]

#[path = "../simulate/plot.rs"]
mod plot;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arriero::cache::{Entry, Responses, Wanted};
use arriero::generation::{Delta, Done, Event, Identity};
use arriero::telemetry::Metrics;
use plot::Plot;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

const SEED: u64 = 7;
/// Different questions, and requests for them.
const QUESTIONS: usize = 20_000;
const REQUESTS: usize = 200_000;
/// The question of rank r is asked in proportion to 1 / r^skew.
const SKEWS: [f64; 3] = [0.7, 0.9, 1.1];
/// What memory takes, as parts of all answers in percent.
const PARTS: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];
const POLICIES: [&str; 2] = ["tiny_lfu", "lru"];
/// The disk is so many times as large as memory.
const DISK: u64 = 4;
/// The least that a disk may be told.
const LEAST_DISK: u64 = 4 << 20;

/// How many of a hundred requests were answered by which tier.
struct Ratio {
    memory: f64,
    disk: f64,
}

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench`; `cargo test` builds and runs benches without it, which must cost nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let entries = entries()?;
    let all: u64 = entries.iter().map(|entry| entry.size() as u64).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = String::from(
        "| skew | memory | policy | in memory | on disk | of both |\n|---|---|---|---|---|---|\n",
    );
    let mut series = Vec::new();
    for skew in SKEWS {
        let trace = trace(skew);
        for policy in POLICIES {
            let mut points = Vec::new();
            for part in PARTS {
                let memory = (all as f64 * part / 100.0) as u64;
                let ratio = runtime.block_on(play(&entries, &trace, policy, memory))?;
                let both = ratio.memory + ratio.disk;
                writeln!(
                    table,
                    "| {skew} | {part}% | `{policy}` | {:.1}% | {:.1}% | {both:.1}% |",
                    ratio.memory, ratio.disk
                )?;
                eprintln!("skew {skew}, memory {part}%, {policy}: {:.1}%, {:.1}%", ratio.memory, ratio.disk);
                points.push((part, ratio.memory));
            }
            series.push((format!("{policy}, skew {skew}"), points));
        }
    }
    let plot =
        Plot { title: "answered from memory", x: "memory, % of all answers", y: "% of requests", series };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/zipf");
    std::fs::write(folder.join("memory.svg"), plot.svg()?)?;
    let head = format!(
        "# Hit ratios\n\nWritten by `cargo bench --no-default-features --bench zipf`: {REQUESTS} requests for {QUESTIONS} questions, drawn by Zipf's law \
         (the question of rank r in proportion to 1 / r^skew), answers of 1 to 5 KB. Memory is given as a part of all answers, the disk is \
         told {DISK} times as much; a file takes whole pages, so it holds about as many answers as memory does twice.\n\n![](memory.svg)\n\n"
    );
    std::fs::write(folder.join("results.md"), head + &table)?;
    Ok(())
}

/// Plays the trace: look in memory, then on disk, else compute and keep.
async fn play(entries: &[Entry], trace: &[usize], policy: &str, memory: u64) -> Outcome<Ratio> {
    let folder = tempfile::tempdir()?;
    let disk = (memory * DISK).max(LEAST_DISK);
    let config = json!({ "memory": memory, "policy": policy, "ttl": "24h", "disk": { "budget": disk } });
    let responses =
        Responses::new(&serde_json::from_value(config)?, Some(folder.path()), &Arc::new(Metrics::new()?))?;
    let (mut in_memory, mut on_disk) = (0_u32, 0_u32);
    for (turn, question) in trace.iter().enumerate() {
        let entry = &entries[*question];
        let wanted = Wanted {
            identity: &entry.identity,
            model: &entry.model,
            tenant: &entry.tenant,
            now: SystemTime::now(),
            max_age: None,
        };
        if responses.memory(&wanted).is_some() {
            in_memory += 1;
        } else if responses.deeper(&wanted).await.is_some() {
            on_disk += 1;
        } else {
            let entry = Arc::new(entry.clone());
            responses.keep(&entry);
            responses.keep_deeper(&entry).await;
        }
        // Computing an answer takes long enough for the disk; a trace does not.
        if turn % 256 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let percent = |count: u32| f64::from(count) * 100.0 / trace.len() as f64;
    Ok(Ratio { memory: percent(in_memory), disk: percent(on_disk) })
}

/// A question and its answer of each rank.
fn entries() -> Outcome<Vec<Entry>> {
    let (mut rng, now) = (StdRng::seed_from_u64(SEED), SystemTime::now());
    let mut entry = |rank: usize| {
        let text: String = (0..rng.random_range(500..4000)).map(|_| rng.random_range('a'..='z')).collect();
        let request = json!({ "model": "m", "input": { "kind": "raw", "prompt": rank.to_string() } });
        let events = [Event::Delta(Delta { text, ..Delta::default() }), Event::Done(Done::default())];
        Ok(Entry {
            identity: Identity::of(&serde_json::from_value(request)?, Default::default())?,
            model: "m".into(),
            tenant: "".into(),
            node: "n".into(),
            created: now,
            expires: now + Duration::from_secs(24 * 3600),
            events: events.map(Arc::new).into(),
            times: [Duration::ZERO; 2].into(),
        })
    };
    (0..QUESTIONS).map(&mut entry).collect()
}

/// The ranks that are asked for, in order.
fn trace(skew: f64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut sum = 0.0;
    let weights = (1..=QUESTIONS).map(|rank| (rank as f64).powf(-skew));
    let until: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let mut draw = || {
        let place = rng.random_range(0.0..sum);
        until.partition_point(|end| *end <= place).min(QUESTIONS - 1)
    };
    (0..REQUESTS).map(|_| draw()).collect()
}
