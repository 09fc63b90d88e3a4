//! [`Worth`]: how many tokens to guess in a step, from what steps were measured to take and how often guesses were right. Pure
//! state; durations are passed in.
//!
//! A token more in a step costs next to nothing where reading the weights takes the time (a GPU, few streams), and half a step or
//! more where computing does (a CPU): nothing but measuring tells. What is sought is the greatest product of all streams' speeds:
//! a stream that becomes twice as fast may not make another half as fast.

use std::time::Duration;

/// Lengths of guesses that are considered: each with the token before it is a power of two, which matrix kernels like best.
const LENGTHS: [usize; 6] = [1, 3, 7, 15, 31, 63];

/// A measurement is believed for as many times the time it took: contexts grow, machines become busy, and it may have come at a
/// bad moment. So measuring again takes a hundredth of the time at most.
const BELIEVED: f64 = 100.0;

/// Weight of a new measurement.
const WEIGHT: f64 = 0.25;

/// How much faster, as a logarithm, it has to become: estimates are not exact.
const MARGIN: f64 = 0.05;

/// What one stream could guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    /// How likely each token is right if those before it were, 0 to 1.
    pub odds: f64,
    /// Most tokens to guess; 0: none.
    pub most: usize,
    /// Seconds that guessing a token takes; streams guess side by side.
    pub cost: f64,
}

/// The controller of one worker.
#[derive(Debug, Default)]
pub struct Worth {
    /// What computing so many tokens together takes, by their number.
    costs: Vec<Option<Cost>>,
    /// Seconds that all steps took so far.
    clock: f64,
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    /// Until when it is believed, by [`Worth::clock`].
    until: f64,
}

/// How many of the streams guess, and how many tokens each; all the same number, because llama.cpp computes together what
/// streams have in the same number, and the rest apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Streams in the step.
    pub streams: usize,
    /// Those that guess.
    pub guessing: usize,
    /// What each of them guesses.
    pub length: usize,
}

impl Worth {
    /// How many tokens each stream should guess, at most `room` together.
    pub fn plan(&self, chances: &[Chance], room: usize) -> Vec<usize> {
        let streams = chances.len();
        let mut lengths = vec![0; streams];
        // Without knowing what it takes to go without guesses there is nothing to compare with: so this step goes without.
        let Some(without) = self.known(streams) else { return lengths };
        let mut order: Vec<usize> = (0..streams).collect();
        order.sort_by(|&a, &b| chances[b].odds.total_cmp(&chances[a].odds));
        let (mut best, mut chosen) = (MARGIN, Vec::new());
        for length in LENGTHS {
            let (mut gain, mut slowest) = (0.0, 0.0_f64);
            let able = order.iter().copied().filter(|&stream| chances[stream].most >= length);
            let able: Vec<usize> = able.take(room / length).collect();
            for (place, &stream) in able.iter().enumerate() {
                gain += (1.0 + expected(chances[stream].odds, length)).ln();
                slowest = slowest.max(chances[stream].cost);
                let shape = Shape { streams, guessing: place + 1, length };
                let took = self.cost(shape) + slowest * length as f64;
                let worth = gain - streams as f64 * (took / without).ln();
                if worth > best {
                    best = worth;
                    chosen = able[..=place].iter().map(|&stream| (stream, length)).collect();
                }
            }
        }
        for (stream, length) in chosen {
            lengths[stream] = length;
        }
        lengths
    }

    /// A step of this shape took this long, guessing not counted.
    pub fn observe(&mut self, shape: Shape, took: Duration) {
        let took = took.as_secs_f64();
        self.clock += took;
        let Shape { streams, guessing, length } = shape;
        if guessing == 0 {
            self.note(streams, took);
        } else if guessing == streams {
            self.note(streams * (length + 1), took);
        } else {
            // The second of two computations.
            let rest = took - self.estimate(streams);
            self.note(guessing * length, rest.max(took / 10.0));
        }
    }

    fn note(&mut self, tokens: usize, took: f64) {
        if self.costs.len() <= tokens {
            self.costs.resize(tokens + 1, None);
        }
        let seconds = match self.known(tokens) {
            // Something else kept the machine busy if a step takes much longer than the last.
            Some(known) => known + WEIGHT * (took.min(2.0 * known) - known),
            None => took,
        };
        self.costs[tokens] = Some(Cost { seconds, until: self.clock + BELIEVED * took });
    }

    /// What a step of this shape is expected to take.
    fn cost(&self, shape: Shape) -> f64 {
        let Shape { streams, guessing, length } = shape;
        match guessing == streams {
            true => self.estimate(streams * (length + 1)),
            false => self.estimate(streams) + self.estimate(guessing * length),
        }
    }

    fn known(&self, tokens: usize) -> Option<f64> {
        let cost = (*self.costs.get(tokens)?)?;
        (self.clock < cost.until).then_some(cost.seconds)
    }

    /// Between measurements a straight line. Beyond them half the price for each further token, which is a little less than a CPU
    /// takes, or the price of the last ones if that is less: what may pay is tried, and its cost known from then on.
    fn estimate(&self, tokens: usize) -> f64 {
        let at = |tokens: usize| Some((tokens as f64, self.known(tokens)?));
        let mut below = (1..=tokens).rev().filter_map(at);
        let above = (tokens..self.costs.len()).find_map(at);
        let tokens = tokens as f64;
        let half = |(known, cost): (f64, f64)| cost * (1.0 + tokens / known) / 2.0;
        match (below.next(), above) {
            (Some(low), Some(high)) => line(low, high, tokens),
            (Some(low), None) => {
                below.next().map_or(half(low), |lower| half(low).min(line(lower, low, tokens))).max(low.1)
            }
            (None, Some(high)) => half(high),
            (None, None) => 0.0,
        }
    }
}

/// The height at `x` of the line through two points, or of both if they are one.
fn line((x1, y1): (f64, f64), (x2, y2): (f64, f64), x: f64) -> f64 {
    if x1 == x2 { y1 } else { y1 + (y2 - y1) * (x - x1) / (x2 - x1) }
}

/// How many of `length` guessed tokens are right on average, up to the first that is wrong.
fn expected(odds: f64, length: usize) -> f64 {
    let mut all = 0.0;
    let mut right = 1.0;
    for _ in 0..length {
        right *= odds;
        all += right;
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A two-core CPU with half a billion weights of four bits: milliseconds, as measured.
    fn cpu(tokens: usize) -> f64 {
        let tokens = tokens as f64;
        if tokens < 4.0 { 13.0 * tokens } else { 18.0 + 4.7 * tokens }
    }

    /// One where reading the weights takes nearly all the time.
    fn gpu(tokens: usize) -> f64 {
        10.0 + 0.05 * tokens as f64
    }

    fn took(shape: Shape, machine: fn(usize) -> f64) -> f64 {
        let Shape { streams, guessing, length } = shape;
        match guessing {
            0 => machine(streams),
            all if all == streams => machine(streams * (length + 1)),
            some => machine(streams) + machine(some * length),
        }
    }

    /// Streams whose guesses are right with these odds, on a machine. How many times as fast the product of their speeds is as
    /// without guessing, per stream, over steps that include those spent learning.
    fn run(odds: &[f64], machine: fn(usize) -> f64, steps: usize) -> f64 {
        let mut worth = Worth::default();
        let chances: Vec<_> = odds.iter().map(|&odds| Chance { odds, most: 15, cost: 0.0 }).collect();
        let (mut time, mut tokens) = (0.0, vec![0.0; odds.len()]);
        for _ in 0..steps {
            let lengths = worth.plan(&chances, 500);
            let guessing = lengths.iter().filter(|&&length| length > 0).count();
            let length = lengths.iter().copied().max().unwrap_or(0);
            let shape = Shape { streams: odds.len(), guessing, length };
            time += took(shape, machine);
            worth.observe(shape, Duration::from_secs_f64(took(shape, machine) / 1e3));
            for ((tokens, &odds), &length) in tokens.iter_mut().zip(odds).zip(&lengths) {
                *tokens += 1.0 + expected(odds, length);
            }
        }
        let speed = |tokens: &f64| tokens / time * machine(odds.len());
        tokens.iter().map(speed).product::<f64>().powf(1.0 / odds.len() as f64)
    }

    proptest! {
        #[test]
        fn whatever_the_odds_guessing_costs_next_to_nothing(
            odds in prop::collection::vec(0.0..1.0f64, 1..9), is_cpu in any::<bool>(),
        ) {
            let speed = run(&odds, if is_cpu { cpu } else { gpu }, 1000);
            prop_assert!(speed > 0.98, "{speed}");
        }
    }

    #[test]
    fn on_a_cpu_one_stream_guesses_when_it_is_sure_and_many_hardly_ever() {
        assert!(run(&[0.99], cpu, 500) > 1.8, "{}", run(&[0.99], cpu, 500));
        let doubtful = run(&[0.6], cpu, 500);
        assert!((0.99..1.01).contains(&doubtful), "{doubtful}");
        let others_wait = run(&[0.99, 0.0, 0.0, 0.0], cpu, 500);
        assert!((0.98..1.02).contains(&others_wait), "{others_wait}");
    }

    #[test]
    fn where_tokens_are_cheap_even_doubtful_guesses_pay() {
        assert!(run(&[0.6], gpu, 500) > 1.9, "{}", run(&[0.6], gpu, 500));
        assert!(run(&[0.9; 4], gpu, 500) > 3.0, "{}", run(&[0.9; 4], gpu, 500));
    }

    #[test]
    fn the_price_of_making_a_guess_counts() {
        let mut worth = Worth::default();
        worth.observe(Shape { streams: 1, ..Shape::default() }, Duration::from_millis(10));
        let chance = |cost| Chance { odds: 0.95, most: 15, cost };
        assert!(worth.plan(&[chance(0.0)], 500)[0] > 0);
        assert_eq!(worth.plan(&[chance(0.01)], 500), [0]);
    }

    #[test]
    fn room_and_what_a_stream_can_guess_are_limits() {
        let mut worth = Worth::default();
        worth.observe(Shape { streams: 3, ..Shape::default() }, Duration::from_millis(10));
        worth.observe(Shape { streams: 3, guessing: 3, length: 15 }, Duration::from_millis(11));
        let chance = |most| Chance { odds: 0.99, most, cost: 0.0 };
        let lengths = worth.plan(&[chance(15), chance(0), chance(4)], 500);
        assert_eq!(lengths[1], 0);
        assert!(lengths[0] > 0 && lengths[2] <= 4, "{lengths:?}");
        let narrow = worth.plan(&[chance(15); 3], 9);
        assert!(narrow.iter().sum::<usize>() <= 9, "{narrow:?}");
        assert_eq!(worth.plan(&[chance(15); 3], 0), [0; 3]);
    }

    #[test]
    fn it_goes_without_now_and_then_to_know_what_that_takes() {
        let mut worth = Worth::default();
        let chance = [Chance { odds: 0.99, most: 15, cost: 0.0 }];
        let mut without = 0;
        for _ in 0..1000 {
            let length = worth.plan(&chance, 500)[0];
            without += usize::from(length == 0);
            let shape = Shape { streams: 1, guessing: usize::from(length > 0), length };
            worth.observe(shape, Duration::from_secs_f64(gpu(length + 1)));
        }
        assert!((5..20).contains(&without), "{without}");
    }
}
