//! What clients ask: generated, or read from a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};

use arriero::routing::{Digest, Pick, Prefix};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::node::{READ_RATE, STEP, STEP_PER_SEQUENCE};
use crate::scenario::Scenario;

/// Tokens that a shared beginning has at least and at most, evenly spread.
const SHARED: (f64, f64) = (1000.0, 3000.0);
/// Tokens behind it: the mean of a logarithmic normal distribution, and its spread.
const OWN: (f64, f64) = (400.0, 0.8);
/// The same of answers.
const ANSWER: (f64, f64) = (150.0, 0.7);
/// Shared beginnings per node: more than one node remembers, fewer than all do.
const BEGINNINGS_PER_NODE: usize = 8;
/// How unevenly they are asked for (Zipf).
const SKEW: f64 = 0.8;
/// A burst has this many times the requests of other times, and so many seconds lie between two, and pass in one.
const BURST: (f64, f64, f64) = (2.0, 20.0, 4.0);
/// Bytes of a token, as the proxy estimates them.
const BYTES: f64 = 4.0;

/// One line of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Seconds from the start.
    at: f64,
    /// Tokens.
    prompt: f64,
    /// Tokens.
    answer: u32,
    /// Which beginning it shares; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    /// Tokens of that beginning.
    #[serde(default)]
    shared: f64,
}

/// A request, and how it goes.
pub struct Request {
    pub at: f64,
    /// Tokens of the prompt as the node counts them; the proxy's estimate is off.
    pub tokens: f64,
    pub answer: u32,
    pub digest: Digest,
    /// Where it is, since when, and what that was expected to be.
    pub pick: Option<Pick>,
    pub sent: f64,
    /// For the client.
    pub first_token: Option<f64>,
    /// On the node where it is.
    pub read_at: f64,
    pub is_done: bool,
    pub reused: f64,
    pub failed_on: Vec<usize>,
}

/// All requests of a scenario, in order.
pub fn requests(scenario: &Scenario) -> Outcome<Vec<Request>> {
    let mut lines = match &scenario.trace {
        Some(file) => read(file)?,
        None => generate(scenario),
    };
    lines.sort_by(|a, b| a.at.total_cmp(&b.at));
    if let Some(file) = &scenario.record {
        let mut out = BufWriter::new(File::create(file)?);
        for line in &lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
    }
    let mut rng = StdRng::seed_from_u64(scenario.seed ^ 0x7e57);
    Ok(lines.iter().enumerate().map(|(number, line)| request(number as u64, line, &mut rng)).collect())
}

fn read(file: &std::path::Path) -> Outcome<Vec<Line>> {
    let lines = BufReader::new(File::open(file)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

fn generate(scenario: &Scenario) -> Vec<Line> {
    let mut rng = StdRng::seed_from_u64(scenario.seed);
    let groups = scenario.nodes * BEGINNINGS_PER_NODE;
    let beginnings: Vec<f64> = (0..groups).map(|_| rng.random_range(SHARED.0..SHARED.1)).collect();
    let popularity: Vec<f64> = (1..=groups).map(|rank| (rank as f64).powf(-SKEW)).collect();
    let (burst, calm_for, burst_for) = BURST;
    // So that the mean is as asked for.
    let calm = (calm_for + burst_for) / (calm_for + burst_for * burst);
    let mean = rate(scenario);
    let (mut at, mut is_burst, mut until) = (0.0, false, calm_for);
    let mut lines = Vec::new();
    let mut cumulative = popularity;
    (1..groups).for_each(|i| cumulative[i] += cumulative[i - 1]);
    loop {
        let now = mean * calm * if is_burst { burst } else { 1.0 };
        let next = at + exponential(&mut rng, now);
        if next > until {
            at = until;
            is_burst = !is_burst;
            until += if is_burst { burst_for } else { calm_for };
            continue;
        }
        at = next;
        if at > scenario.seconds {
            return lines;
        }
        let place = rng.random_range(0.0..1.0) * cumulative.last().copied().unwrap_or_default();
        let group = cumulative.partition_point(|sum| *sum < place).min(groups - 1);
        let is_shared = rng.random_range(0.0..1.0) < scenario.shared;
        let own = log_normal(&mut rng, OWN);
        lines.push(Line {
            at,
            prompt: beginnings[group] + own,
            answer: log_normal(&mut rng, ANSWER).clamp(2.0, 2000.0) as u32,
            group: is_shared.then_some(group as u64),
            shared: if is_shared { beginnings[group] } else { 0.0 },
        });
    }
}

/// Requests per second at the scenario's load: what the nodes can do if every shared beginning is read once.
fn rate(scenario: &Scenario) -> f64 {
    let beginning = (SHARED.0 + SHARED.1) / 2.0;
    let read = (1.0 - scenario.shared) * beginning + OWN.0;
    let places = scenario.places as f64;
    let generate = ANSWER.0 * (STEP + STEP_PER_SEQUENCE * places) / places;
    let per_second = |slowness: f64| 1.0 / ((read / READ_RATE + generate) * slowness);
    scenario.load * (0..scenario.nodes).map(|node| per_second(scenario.slowness(node))).sum::<f64>()
}

fn request(number: u64, line: &Line, rng: &mut StdRng) -> Request {
    let shared = (line.shared * BYTES) as usize;
    let own = (line.prompt * BYTES) as usize - shared;
    let mut text = Vec::with_capacity(shared + own + 16);
    let group = line.group.unwrap_or_default().to_le_bytes();
    text.extend(group.iter().cycle().take(shared));
    let own_bytes = (number + 1).to_be_bytes();
    text.extend(own_bytes.iter().cycle().take(own));
    let prefix = Prefix::of("m", &text);
    let digest = Digest {
        model: "m".into(),
        prompt_tokens: line.prompt as u32,
        expected_tokens: ANSWER.0 as u32,
        session: None,
        prefix,
        client: Default::default(),
    };
    Request {
        at: line.at,
        tokens: line.prompt * rng.random_range(0.85..1.15),
        answer: line.answer,
        digest,
        pick: None,
        sent: 0.0,
        first_token: None,
        read_at: 0.0,
        is_done: false,
        reused: 0.0,
        failed_on: Vec::new(),
    }
}

fn exponential(rng: &mut StdRng, rate: f64) -> f64 {
    -(1.0 - rng.random_range(0.0..1.0_f64)).ln() / rate
}

/// By Box and Muller.
fn log_normal(rng: &mut StdRng, (mean, spread): (f64, f64)) -> f64 {
    let (a, b) = (1.0 - rng.random_range(0.0..1.0_f64), rng.random_range(0.0..1.0_f64));
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    (mean.ln() - spread * spread / 2.0 + spread * normal).exp()
}
