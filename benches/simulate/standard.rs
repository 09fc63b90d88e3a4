//! The standard scenarios, whose table and plots are in the repository.

use std::fmt::Write as _;
use std::path::Path;

use arriero::routing::StrategyName::{Learned, LeastLoaded, PrefixAffinity, RoundRobin};

use crate::Outcome;
use crate::plot::Plot;
use crate::report::{Outcomes, head};
use crate::scenario::{Chooser, Scenario};

/// Those that plots and large pools show.
const SOME: [Chooser; 5] = [
    Chooser::Strategy(PrefixAffinity),
    Chooser::Strategy(Learned),
    Chooser::Strategy(LeastLoaded),
    Chooser::Strategy(RoundRobin),
    Chooser::Oracle,
];

/// Plays them all and writes `results.md` and the plots beside this file.
pub fn run() -> Outcome<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/simulate");
    let mut text =
        "Written by `cargo bench --bench simulate`; `benches/simulate/main.rs` says what is modelled.\n"
            .to_owned();
    for (title, scenario) in scenarios() {
        write!(text, "\n## {title}\n\n{}\n", head(&scenario)?)?;
        for chooser in Chooser::all() {
            eprintln!("{title}: {}", chooser.name());
            writeln!(text, "{}", Outcomes::of(&scenario, chooser)?.row())?;
        }
    }
    for nodes in [10, 100, 1000, 5000] {
        let scenario =
            Scenario { nodes, seconds: if nodes > 1000 { 60.0 } else { 200.0 }, ..Scenario::default() };
        write!(text, "\n## {nodes} nodes\n\n{}\n", head(&scenario)?)?;
        // The oracle looks at every sequence of every node, which takes it too long for many.
        for chooser in SOME.into_iter().filter(|chooser| nodes <= 100 || *chooser != Chooser::Oracle) {
            eprintln!("{nodes} nodes: {}", chooser.name());
            writeln!(text, "{}", Outcomes::of(&scenario, chooser)?.row())?;
        }
    }
    std::fs::write(folder.join("results.md"), &text)?;
    println!("{text}");
    std::fs::write(folder.join("load.svg"), by_load()?)?;
    std::fs::write(folder.join("shared.svg"), by_shared()?)?;
    Ok(())
}

fn scenarios() -> Vec<(&'static str, Scenario)> {
    let scenario = Scenario::default();
    vec![
        ("Shared beginnings", scenario.clone()),
        ("Shared beginnings, less load", Scenario { load: 0.7, ..scenario.clone() }),
        ("Nothing shared", Scenario { shared: 0.0, ..scenario.clone() }),
        (
            "Nodes of two speeds",
            Scenario { slow: 4.0, shared: 0.0, load: 0.8, objective: 6.0, ..scenario.clone() },
        ),
        ("Nodes that die", Scenario { failing: 0.25, load: 0.7, ..scenario.clone() }),
        ("Nodes without the model", Scenario { cold: 0.5, load: 0.4, ..scenario }),
    ]
}

fn by_load() -> Outcome<String> {
    let loads = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1];
    let played = |load| Scenario { load, ..Scenario::default() };
    let x = "load: requests in relation to what the nodes can do if shared beginnings are read once";
    plot("First tokens within 3 s, 32 nodes, 60% shared beginnings", x, &loads, played)
}

fn by_shared() -> Outcome<String> {
    let shares = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9];
    let played = |shared| Scenario { shared, ..Scenario::default() };
    plot(
        "First tokens within 3 s, 32 nodes, load 0.9",
        "part of the prompts with a shared beginning",
        &shares,
        played,
    )
}

fn plot(title: &str, x: &str, values: &[f64], played: impl Fn(f64) -> Scenario) -> Outcome<String> {
    let mut series = Vec::new();
    for chooser in SOME {
        eprintln!("{title}: {}", chooser.name());
        let points = values.iter().map(|x| Ok((*x, Outcomes::of(&played(*x), chooser)?.good * 100.0)));
        series.push((chooser.name().to_owned(), points.collect::<Outcome<_>>()?));
    }
    Ok(Plot { title, x, y: "requests in time, %", series }.svg()?)
}
