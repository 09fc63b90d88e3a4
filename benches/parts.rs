//! The parts of a benchmark, which may be run alone.

/// Whether a part is wanted: `BENCH_ONLY` names those that are, with commas between; without it all are.
pub fn wants(part: &str) -> bool {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    only.is_empty() || only.split(',').any(|wanted| wanted == part)
}
