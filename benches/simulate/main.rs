//! A discrete-event simulation of pools of nodes behind the routing strategies: the shipped strategy code, modelled nodes.
//!
//! `cargo bench --bench simulate` plays the standard scenarios and writes `benches/simulate/results.md` and its plots. One scenario of
//! one's own: `cargo bench --bench simulate -- --nodes 100 --load 0.8 --shared 0.3 --seconds 200 --seed 7`, with `--slow 4` (every
//! second node is so many times slower), `--failing 0.1`, `--cold 0.2`, `--places 8`, `--objective 2`, `--trace FILE` (JSON lines as
//! `--record FILE` writes them) and `--only least_loaded,learned`. Everything is drawn from the seed: the same command prints the same.
//!
//! `cargo bench --no-default-features --bench simulate -- --decisions` measures what a decision takes.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what this program makes")]

mod allocations;
mod cache;
mod decisions;
mod node;
mod oracle;
mod plot;
#[path = "../pool.rs"]
mod pool;
mod report;
mod scenario;
mod standard;
mod traffic;
mod world;

use std::error::Error;

use arriero::routing::StrategyName;

use report::Outcomes;
use scenario::{Chooser, Scenario};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`; `cargo test` builds and runs benches without it, which must cost nothing.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let settings: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    match settings.as_slice() {
        [] => return standard::run(),
        ["--decisions"] => return decisions::run(),
        _ => {}
    }
    let mut scenario = Scenario::default();
    let mut choosers = Chooser::all();
    for pair in settings.chunks(2) {
        match pair {
            ["--only", names] => choosers = names.split(',').map(Chooser::named).collect::<Outcome<_>>()?,
            [key, value] => scenario.set(key, value)?,
            _ => return Err(format!("{} needs a value", pair.join(" ")).into()),
        }
    }
    println!("{}", report::head(&scenario)?);
    for chooser in choosers {
        println!("{}", Outcomes::of(&scenario, chooser)?.row());
    }
    Ok(())
}

impl Chooser {
    /// Every strategy that this model tells apart: it knows no zones, prices or tiers.
    fn all() -> Vec<Self> {
        let silent = [StrategyName::Geographic, StrategyName::Priority];
        let names = StrategyName::ALL.into_iter().filter(|name| !silent.contains(name));
        names.map(Self::Strategy).chain([Self::Oracle]).collect()
    }
}
