//! What the memory gives: the bound of decoding one stream, for which every weight is read once per token.

use std::thread;
use std::time::{Duration, Instant};

/// Far beyond any cache.
const BYTES: usize = 512 << 20;
const PASSES: usize = 3;

/// Bytes per second that `threads` threads read together; the best of some passes, for nothing makes memory faster than it is.
pub fn measure(threads: usize) -> f64 {
    let words = vec![1_u64; BYTES / 8];
    let pass = || {
        let from = Instant::now();
        thread::scope(|scope| {
            let parts = words.chunks(words.len().div_ceil(threads));
            let readers: Vec<_> = parts.map(|part| scope.spawn(|| sum(part))).collect();
            let sums = readers.into_iter().map(|reader| reader.join().unwrap_or_default());
            assert_eq!(sums.fold(0, u64::wrapping_add), words.len() as u64);
        });
        from.elapsed()
    };
    let best = (0..PASSES).map(|_| pass()).min().unwrap_or(Duration::MAX);
    BYTES as f64 / best.as_secs_f64()
}

/// In lanes, so that reading is what takes the time.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; 32];
    for row in words.chunks(lanes.len()) {
        for (lane, word) in lanes.iter_mut().zip(row) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}
