//! The engine beside llama-server on the same file with the same threads, in one interleaved run, so that only ratios matter:
//! `LLAMA_SERVER=/path/of/llama-server cargo bench --bench engine`; prints Markdown. Without it Arriero runs alone. `BENCH_ONLY` names
//! the parts that are wanted: `streams`, `prefix`, `beside`, `fluency`, `speculation`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what this program makes")]

mod bandwidth;
#[path = "../child.rs"]
mod child;
mod contender;
#[path = "../parts.rs"]
mod parts;
mod speculation;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use child::{family, resident};
use contender::{Answer, Contender, Shape, TEMPERATURE};
use parts::wants;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 3;
const STREAMS: [usize; 4] = [1, 4, 8, 16];
const TOKENS: usize = 64;
const CALLERS: usize = 8;
/// Words of a long prompt: about 1,000 tokens of the fixture's vocabulary.
const LONG: usize = 350;
/// Words of a very long one: about 4,000 tokens.
const VERY_LONG: usize = 1400;

const MANY: Shape = Shape { parallel: 16, context: 2048, is_pool: false, speculates: true };
/// For very long prompts.
const DEEP: Shape = Shape { parallel: 5, context: 5120, is_pool: false, speculates: true };

/// What is measured, by the name of its row; one value per round.
type Figures = Vec<(String, Vec<f64>)>;

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench`; `cargo test` builds and runs benches without it, which must cost nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let model = fixture()?;
    let (_process, _, demo) = Contender::arriero(dir.path(), None, MANY)?.start().await?;
    drop(_process);
    let llama_server = std::env::var_os("LLAMA_SERVER").map(PathBuf::from);
    if llama_server.is_none() {
        eprintln!("LLAMA_SERVER is not set: no comparison");
    }
    let weights = std::fs::metadata(&model)?.len();
    // Arriero as it is by default, with one thing changed, and llama-server.
    let contenders = |shape: Shape, changed: Shape| -> Outcome<Vec<Contender>> {
        let arriero = |shape| Contender::arriero(dir.path(), Some(&model), shape);
        let other =
            llama_server.clone().map(|program| Contender::llama_server(program, model.clone(), shape));
        Ok([arriero(shape)?, arriero(changed)?].into_iter().chain(other).collect())
    };
    let in_pool = |shape| Shape { is_pool: true, ..shape };
    if wants("streams") || wants("prefix") || wants("beside") {
        let title =
            format!("Engine (0.5B Q4_0, medians of {ROUNDS} rounds; builtin:demo starts in {demo:.2} s)");
        compare(&title, &contenders(MANY, in_pool(MANY))?, measure).await?;
    }
    if wants("fluency") {
        compare("A very long prompt beside four streams", &contenders(DEEP, in_pool(DEEP))?, fluency).await?;
    }
    if !wants("speculation") {
        return Ok(());
    }
    let contenders = contenders(MANY, Shape { speculates: false, ..MANY })?;
    let measure = async |one: &Contender, round, figures: &mut _| {
        speculation::measure(one, weights, round, figures).await
    };
    compare("Speculation (one stream)", &contenders, measure).await
}

/// Runs `measure` on each contender in turn, several times, and prints what came of it.
async fn compare(
    title: &str,
    contenders: &[Contender],
    measure: impl AsyncFn(&Contender, usize, &mut Figures) -> Outcome<()>,
) -> Outcome<()> {
    let mut all: Vec<Figures> = contenders.iter().map(|_| Figures::new()).collect();
    for round in 0..ROUNDS {
        for (contender, figures) in contenders.iter().zip(&mut all) {
            measure(contender, round, figures).await?;
        }
    }
    println!("\n### {title}\n");
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    let (first, others) = names.split_first().ok_or("nothing to measure")?;
    let others: String = others.iter().map(|name| format!(" {name} | ratio |")).collect();
    println!("| | {first} |{others}\n|---|{}", "---|".repeat(2 * names.len() - 1));
    for (row, (name, _)) in all[0].iter().enumerate() {
        let values: Vec<f64> = all.iter().map(|figures| quantile(&figures[row].1, 0.5)).collect();
        let others = values[1..].iter().map(|other| format!(" {other:.2} | {:.2} |", values[0] / other));
        println!("| {name} | {:.2} |{}", values[0], others.collect::<String>());
    }
    Ok(())
}

async fn measure(contender: &Contender, round: usize, figures: &mut Figures) -> Outcome<()> {
    let (process, address, start) = contender.start().await?;
    note(figures, "start to first token, s", start);
    if wants("streams") {
        streams(contender, address, round, figures).await?;
    }
    let system = words(LONG, 77 + round as u64);
    if wants("prefix") {
        prefix(contender, address, &system, figures).await?;
    }
    if wants("beside") {
        beside(contender, address, round, figures).await?;
    }
    let memory: u64 = family(process.0.id()).into_iter().map(resident).sum();
    note(figures, "resident, MB", memory as f64 / 1e6);
    if !wants("prefix") {
        return Ok(());
    }
    drop(process);
    let (_process, address, _) = contender.start().await?;
    let ask = |caller| format!("{system}\nQuestion {caller} (restarted):");
    let answers = together(contender, address, CALLERS, 8, ask).await?;
    note_ttft(figures, &format!("{CALLERS} callers, that prefix after a restart"), &answers);
    Ok(())
}

/// Callers that have nothing in common and come at once.
async fn streams(
    contender: &Contender,
    address: SocketAddr,
    round: usize,
    figures: &mut Figures,
) -> Outcome<()> {
    // Twice, for what these rows tell is near to one.
    for (turn, streams) in [0, 1].into_iter().flat_map(|turn| STREAMS.map(|streams| (turn, streams))) {
        let from = Instant::now();
        let answers = together(contender, address, streams, TOKENS, |caller| {
            words(20, (round * 1000 + turn * 500 + streams * 20 + caller) as u64)
        })
        .await?;
        let rate = (streams * TOKENS) as f64 / from.elapsed().as_secs_f64();
        note(figures, &format!("tokens/s, {streams} streams"), rate);
        note_ttft(figures, &format!("{streams} streams"), &answers);
    }
    Ok(())
}

/// Callers whose prompts begin alike.
async fn prefix(
    contender: &Contender,
    address: SocketAddr,
    system: &str,
    figures: &mut Figures,
) -> Outcome<()> {
    for temperature in ["new", "warm"] {
        let ask = |caller| format!("{system}\nQuestion {caller} ({temperature}):");
        let answers = together(contender, address, CALLERS, 8, ask).await?;
        note_ttft(figures, &format!("{CALLERS} callers, one {temperature} 1k-token prefix"), &answers);
    }
    for streams in [1, 4, 8] {
        let ask = |caller| format!("{system}\nStory {caller}:");
        let answers = together(contender, address, streams, TOKENS, ask).await?;
        // From the moment the last one has begun until the first one has ended.
        let from = answers.iter().filter_map(|answer| answer.0.get(1)).max();
        let to = answers.iter().filter_map(|answer| answer.0.last()).min();
        if let (Some(&from), Some(&to)) = (from, to) {
            let rate = answers.iter().map(|answer| 1.0 / answer.tpot(from, to)).sum();
            note(figures, &format!("tokens/s, {streams} streams behind one 1k-token prefix"), rate);
        }
    }
    Ok(())
}

/// How much longer the tokens of four streams take while a very long prompt is read.
async fn fluency(contender: &Contender, round: usize, figures: &mut Figures) -> Outcome<()> {
    let (_process, address, _) = contender.start().await?;
    let long = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        contender.ask(address, &words(VERY_LONG, 7000 + round as u64), 1, TEMPERATURE).await
    };
    // Where nothing repeats itself, so that undisturbed is what the engine does and not what guessing brings.
    let prompts: Vec<String> = (0..4).map(|caller| words(20, 600 + caller)).collect();
    let running = prompts.iter().map(|prompt| contender.ask(address, prompt, 6 * TOKENS, speculation::DICE));
    let running = futures::future::try_join_all(running);
    let (long, running) = futures::future::try_join(long, running).await?;
    let (asked, read) = (long.0[0], long.0.get(1).copied().unwrap_or(long.0[0]));
    let mean = |from, to| running.iter().map(|answer| answer.tpot(from, to)).sum::<f64>() / 4.0;
    let before = mean(asked - Duration::from_secs(2), asked);
    note(figures, "4k-token prompt beside 4 streams: their TPOT, x undisturbed", mean(asked, read) / before);
    note(figures, "4k-token prompt beside 4 streams: its TTFT, s", long.ttft());
    Ok(())
}

/// A long prompt that comes while four streams run: how long they stand still, and how long it takes itself.
async fn beside(
    contender: &Contender,
    address: SocketAddr,
    round: usize,
    figures: &mut Figures,
) -> Outcome<()> {
    let long = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        contender.ask(address, &words(LONG, 9000 + round as u64), 1, TEMPERATURE).await
    };
    let running = together(contender, address, 4, 4 * TOKENS, |caller| words(20, 500 + caller as u64));
    let (long, running) = futures::future::try_join(long, running).await?;
    let (from, to) = (long.0[0], long.0.get(1).copied().unwrap_or(long.0[0]));
    let gap = running.iter().map(|answer| answer.longest_gap(from, to)).fold(0.0, f64::max);
    note(figures, "1k-token prompt beside 4 streams: longest gap, s", gap);
    note(figures, "1k-token prompt beside 4 streams: its TTFT, s", long.ttft());
    Ok(())
}

async fn together(
    contender: &Contender,
    address: SocketAddr,
    callers: usize,
    tokens: usize,
    prompt: impl Fn(usize) -> String,
) -> Outcome<Vec<Answer>> {
    let prompts: Vec<String> = (0..callers).map(prompt).collect();
    futures::future::try_join_all(
        prompts.iter().map(|prompt| contender.ask(address, prompt, tokens, TEMPERATURE)),
    )
    .await
}

fn note_ttft(figures: &mut Figures, what: &str, answers: &[Answer]) {
    let times: Vec<f64> = answers.iter().map(Answer::ttft).collect();
    note(figures, &format!("{what}: TTFT median, s"), quantile(&times, 0.5));
    note(figures, &format!("{what}: TTFT p95, s"), quantile(&times, 0.95));
}

fn note(figures: &mut Figures, name: &str, value: f64) {
    match figures.iter_mut().find(|(known, _)| known == name) {
        Some((_, values)) => values.push(value),
        None => figures.push((name.to_owned(), vec![value])),
    }
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Text that no other seed gives, so that nothing of it is in a cache.
fn words(count: usize, seed: u64) -> String {
    const WORDS: [&str; 16] = [
        "the", "llama", "carries", "salt", "over", "a", "high", "pass", "and", "water", "from", "spring",
        "to", "village", "before", "night",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        WORDS[(state % 16) as usize]
    };
    (0..count).map(|_| next()).collect::<Vec<_>>().join(" ")
}

fn fixture() -> Outcome<PathBuf> {
    let made = Command::new(child::example("fixtures")?)
        .arg("bench-llama")
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    Ok(PathBuf::from(String::from_utf8(made.stdout)?.trim()))
}
