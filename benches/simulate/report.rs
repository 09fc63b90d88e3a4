//! [`Outcomes`]: what came of a scenario, as a row of a Markdown table.

use crate::Outcome;
use crate::scenario::{Chooser, Scenario};
use crate::traffic;
use crate::world::World;

/// Figures of one run.
pub struct Outcomes {
    pub chooser: Chooser,
    /// Part of the requests whose first token came within the objective.
    pub good: f64,
    /// The same per second.
    pub goodput: f64,
    /// Times to first token, sorted; those that had none by the end are infinite.
    pub ttft: Vec<f64>,
    /// Part of the tokens of prompts that were not read again.
    pub reuse: f64,
    /// The busiest node's time in relation to the mean, each by its own speed.
    pub imbalance: f64,
    /// How far predictions were off, in relation to what came; not a number where there were none.
    pub error: f64,
}

/// The description of a scenario and the head of its table.
pub fn head(scenario: &Scenario) -> Outcome<String> {
    let requests = traffic::requests(scenario)?;
    let Scenario { nodes, places, load, shared, slow, failing, cold, seconds, objective, seed, .. } =
        scenario;
    let mut also = String::new();
    if *slow > 1.0 {
        also += &format!(", every second node {slow} times slower");
    }
    if *failing > 0.0 {
        also += &format!(", {:.0}% of the nodes die and come back", failing * 100.0);
    }
    if *cold > 0.0 {
        also += &format!(", {:.0}% of the nodes have to load the model", cold * 100.0);
    }
    Ok(format!(
        "{nodes} nodes of {places} places, load {:.0}%, {:.0}% shared beginnings{also}; {} requests in {seconds} s, objective {objective} s, \
         seed {seed}\n\n\
         | strategy | in time | per second | TTFT p50 | p90 | p99 | not read again | busiest node | off by |\n\
         |---|---|---|---|---|---|---|---|---|",
        load * 100.0,
        shared * 100.0,
        requests.len(),
    ))
}

impl Outcomes {
    /// Plays the scenario.
    pub fn of(scenario: &Scenario, chooser: Chooser) -> Outcome<Self> {
        let mut world = World::new(scenario, chooser, traffic::requests(scenario)?);
        world.run();
        // Those whose time is not up at the end are not counted.
        let (from, to) = (scenario.seconds / 5.0, scenario.seconds - scenario.objective);
        let counted: Vec<_> = world.requests.iter().filter(|r| r.at >= from && r.at <= to).collect();
        let after = |first: Option<f64>, at: f64| first.map_or(f64::INFINITY, |first| first - at);
        let mut ttft: Vec<f64> = counted.iter().map(|r| after(r.first_token, r.at)).collect();
        ttft.sort_by(f64::total_cmp);
        let in_time = ttft.iter().filter(|ttft| **ttft <= scenario.objective).count() as f64;
        let read: f64 = counted.iter().filter(|r| r.first_token.is_some()).map(|r| r.tokens).sum();
        let reused: f64 = counted.iter().filter(|r| r.first_token.is_some()).map(|r| r.reused).sum();
        let busy: Vec<f64> = world.nodes.iter().map(|node| node.busy).collect();
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        let predicted = counted.iter().filter_map(|r| {
            let expected = r.pick.as_ref()?.expected?.as_secs_f64();
            r.first_token.is_some().then_some((expected, r.read_at - r.sent))
        });
        let (off, came) = predicted.fold((0.0, 0.0), |(off, came), (a, b)| (off + (a - b).abs(), came + b));
        Ok(Self {
            chooser,
            error: off / came,
            good: in_time / ttft.len().max(1) as f64,
            goodput: in_time / (to - from),
            reuse: reused / read.max(1.0),
            imbalance: busy.iter().copied().fold(0.0, f64::max) / mean.max(f64::MIN_POSITIVE),
            ttft,
        })
    }

    /// The time to first token that this part of the requests did not exceed.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.ttft.len().saturating_sub(1);
        self.ttft.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::INFINITY)
    }

    /// One row of the table.
    pub fn row(&self) -> String {
        let seconds = |part| match self.quantile(part) {
            time if time.is_finite() => format!("{time:.2} s"),
            _ => "never".to_owned(),
        };
        format!(
            "| {} | {:.1}% | {:.2} | {} | {} | {} | {:.0}% | {:.2} | {} |",
            self.chooser.name(),
            self.good * 100.0,
            self.goodput,
            seconds(0.5),
            seconds(0.9),
            seconds(0.99),
            self.reuse * 100.0,
            self.imbalance,
            if self.error.is_nan() { String::new() } else { format!("{:.0}%", self.error * 100.0) },
        )
    }
}
