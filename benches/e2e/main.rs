//! End to end, side by side: the same load through nginx, HAProxy, a bare Pingora proxy and Arriero, interleaved in one
//! run against one fast stub, so that only ratios matter. `cargo bench --bench e2e`; prints Markdown.
//!
//! The client and the stub share one core, each proxy has the other. With `SGLANG_ROUTER=/path/of/sglang-router` that router
//! (PyPI) runs along.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what this program makes")]

mod cache;
#[path = "../child.rs"]
mod child;
mod client;
mod followers;
mod misses;
mod overhead;
#[path = "../parts.rs"]
mod parts;
mod process;
mod streams;
mod stub;

use std::error::Error;

use parts::wants;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    // `cargo bench` passes `--bench`; `cargo test` builds and runs benches without it, which must cost nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        process::pin_self()?;
        if ["overhead", "streams", "memory", "followers", "misses"].into_iter().any(wants) {
            let stage = process::Stage::set().await?;
            // First, while the processes are fresh: later their heaps have room for a thousand streams anyway.
            if wants("memory") {
                streams::memory(&stage).await?;
            }
            if wants("overhead") {
                overhead::run(&stage).await?;
            }
            if wants("streams") {
                streams::run(&stage).await?;
            }
            if wants("followers") {
                followers::run(&stage).await?;
            }
            if wants("misses") {
                misses::run(&stage).await?;
            }
        }
        if wants("cache") {
            cache::run().await?;
        }
        Ok(())
    })
}

/// The value at `part` (0 to 1) of a sorted slice.
fn quantile(sorted: &[u64], part: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * part).round() as usize).copied().unwrap_or_default()
}
