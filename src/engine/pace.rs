//! [`Pace`]: how many tokens of prompts a step may read while other sequences generate, so that their streams do not stall.
//!
//! What streams bear depends on how long it lasts. While a usual prompt is read, no step takes longer than the target, or than a
//! few steps in which nothing is read where that is longer, and twice that where many wait for their first token. While a very
//! long one is read, which may take a minute, there are steps between in which nothing is read, so that on average a step takes a
//! small multiple of what it takes undisturbed: a few large pieces of a prompt cost much less than many small ones.
//!
//! A PID controller in its velocity form, on logarithms: a machine that is ten times faster needs other bounds, not other gains.
//! (K. J. Åström, T. Hägglund, "Advanced PID Control", 2006, section 3.5.) Pure state; durations are passed in.

use std::time::Duration;

use crate::generation::seam::PaceSettings;

/// How far off a single step may seem: whatever took a hundred times too long was not the prompt.
const MOST_ERROR: f64 = 1.0;
/// Weight of a new measurement of an undisturbed step.
const WEIGHT: f64 = 0.25;
/// A step in which nothing is read and that seems to have taken more times longer than others has waited for something else.
const MOST_SLOWER: f64 = 2.0;
/// llama.cpp's kernels for the CPU multiply four tokens at a time, and what is left over one by one, each nearly as long as four.
const ROWS: usize = 4;
/// How much longer steps may take where many prompts wait, and what each of them adds.
const MOST_PATIENCE: f64 = 2.0;
const PATIENCE_EACH: f64 = 0.25;

/// What is being read in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// How many prompts.
    pub prompts: usize,
    /// Tokens that the longest of them had to read from the start.
    pub longest: usize,
}

/// The controller.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    /// The most a batch holds.
    most: f64,
    tokens: f64,
    /// The errors of the last two steps, the last one first.
    errors: [f64; 2],
    /// Seconds of a step in which nothing is read.
    undisturbed: Option<f64>,
    /// Seconds that the steps beside very long prompts have taken beyond what they may on average.
    debt: f64,
}

impl Pace {
    /// Starts with a quarter of the `most` tokens that a batch holds.
    pub fn new(settings: PaceSettings, most: usize) -> Self {
        let most = most.max(1) as f64;
        let least = f64::from(settings.least).clamp(1.0, most);
        let tokens = (most / 4.0).max(least);
        Self { settings, most, tokens, errors: [0.0; 2], undisturbed: None, debt: 0.0 }
    }

    /// Goes on from where it is under other settings, or with another limit.
    pub fn adjust(&mut self, settings: PaceSettings, most: usize) {
        (self.settings, self.most) = (settings, most.max(1) as f64);
        let (least, most) = self.bounds();
        (self.tokens, self.errors) = (self.tokens.clamp(least, most), [0.0; 2]);
    }

    /// Tokens of prompts in the next step; none where a very long prompt is not to be read in every step.
    pub fn tokens(&self, reading: Reading) -> usize {
        if self.is_long(reading) && self.debt > 0.0 { 0 } else { self.limit(reading) }
    }

    /// Tokens of prompts in a step that reads, at least 1.
    fn limit(&self, reading: Reading) -> usize {
        let (least, most) = self.bounds();
        let tokens = (self.tokens * patience(reading)).clamp(least, most) as usize;
        (tokens - tokens % ROWS).max(least as usize)
    }

    /// A step with sequences that generate took this long, and read so many tokens of what was there to read.
    pub fn observe(&mut self, reading: Reading, read: usize, took: Duration) {
        let took = took.as_secs_f64();
        if read == 0 {
            let known = self.undisturbed.unwrap_or(took);
            self.undisturbed = Some(known + WEIGHT * (took.min(MOST_SLOWER * known) - known));
        }
        self.debt = match self.undisturbed.filter(|_| self.is_long(reading)) {
            Some(undisturbed) => (self.debt + took - self.settings.slowdown * undisturbed).max(0.0),
            None => 0.0,
        };
        // A step that had less to read than it might have says nothing about the limit.
        if read >= self.limit(reading) && took > 0.0 {
            self.correct(self.target() * patience(reading) / took);
        }
    }

    /// What a step should take, in seconds.
    fn target(&self) -> f64 {
        let stretched = self.undisturbed.unwrap_or_default() * self.settings.stretch;
        self.settings.target.as_secs_f64().max(stretched)
    }

    /// A step should have taken `factor` times as long.
    fn correct(&mut self, factor: f64) {
        let error = factor.ln().clamp(-MOST_ERROR, MOST_ERROR);
        let [last, before] = self.errors;
        let [proportional, integral, derivative] = self.settings.gains;
        let change =
            proportional * (error - last) + integral * error + derivative * (error - 2.0 * last + before);
        let (least, most) = self.bounds();
        (self.tokens, self.errors) = ((self.tokens * change.exp()).clamp(least, most), [error, last]);
    }

    fn is_long(&self, reading: Reading) -> bool {
        reading.longest > self.settings.long as usize
    }

    fn bounds(&self) -> (f64, f64) {
        (f64::from(self.settings.least).clamp(1.0, self.most), self.most)
    }
}

/// How much longer a step may take: those that wait for a first token are streams, too.
fn patience(reading: Reading) -> f64 {
    (1.0 + PATIENCE_EACH * reading.prompts.saturating_sub(1) as f64).min(MOST_PATIENCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Reading = Reading { prompts: 1, longest: 1000 };
    const LONG: Reading = Reading { prompts: 1, longest: 4000 };

    /// Steps on a machine where everything else takes `rest` and a token `each`, in seconds.
    fn run(pace: &mut Pace, steps: usize, rest: f64, each: f64) -> f64 {
        run_on(pace, ONE, steps, rest, each)
    }

    fn run_on(pace: &mut Pace, reading: Reading, steps: usize, rest: f64, each: f64) -> f64 {
        let mut took = 0.0;
        for _ in 0..steps {
            took = rest + each * pace.tokens(reading) as f64;
            pace.observe(reading, pace.tokens(reading), Duration::from_secs_f64(took));
        }
        took
    }

    proptest! {
        #[test]
        fn steps_come_to_take_what_they_should_wherever_that_is_possible(rest in 0.0f64..0.1, each in 1e-5f64..0.02) {
            let settings = PaceSettings::default();
            let mut pace = Pace::new(settings.clone(), 512);
            let took = run(&mut pace, 60, rest, each);
            let target = settings.target.as_secs_f64();
            let (fastest, slowest) = (rest + each * f64::from(settings.least), rest + each * 512.0);
            let possible = target.clamp(fastest, slowest);
            let rows = each * ROWS as f64;
            prop_assert!((took - possible).abs() <= 0.15 * possible + rows, "{took} instead of {possible}");
        }
    }

    #[test]
    fn a_machine_that_becomes_busy_is_followed() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        run(&mut pace, 30, 0.03, 0.001);
        let before = pace.tokens(ONE);
        let took = run(&mut pace, 30, 0.06, 0.002);
        assert!(
            pace.tokens(ONE) < before && (0.2..0.3).contains(&took),
            "{before} to {}: {took}",
            pace.tokens(ONE)
        );
    }

    #[test]
    fn the_end_of_a_prompt_and_a_pause_of_the_machine_teach_little() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        run(&mut pace, 30, 0.03, 0.002);
        let before = pace.tokens(ONE);
        pace.observe(ONE, 3, Duration::from_millis(31));
        assert_eq!(pace.tokens(ONE), before);
        pace.observe(ONE, before, Duration::from_secs(60));
        assert!(pace.tokens(ONE) > before / 4, "{before} to {}", pace.tokens(ONE));
    }

    #[test]
    fn beside_a_very_long_prompt_steps_take_twice_on_average_what_they_take_alone() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        let idle = Reading { prompts: 0, longest: 0 };
        (0..20).for_each(|_| pace.observe(idle, 0, Duration::from_millis(40)));
        let (mut time, mut read, mut longest) = (0.0, 0, 0.0_f64);
        for _ in 0..400 {
            let tokens = pace.tokens(LONG);
            let took = 0.04 + 0.002 * tokens as f64;
            pace.observe(LONG, tokens, Duration::from_secs_f64(took));
            (time, read, longest) = (time + took, read + tokens, longest.max(took));
        }
        assert!((0.07..0.085).contains(&(time / 400.0)), "{time} s for 400 steps");
        assert!(read > 4000, "{read} tokens in {time} s");
        assert!(longest < 0.35, "a step took {longest} s");
        assert!(pace.tokens(ONE) > 0, "a usual prompt is read in every step");
    }

    #[test]
    fn where_a_step_alone_takes_long_a_prompt_is_read_all_the_same() {
        let settings = PaceSettings { stretch: 6.0, ..PaceSettings::default() };
        let idle = Reading { prompts: 0, longest: 0 };
        let took = |settings: &PaceSettings| {
            let mut pace = Pace::new(settings.clone(), 512);
            (0..20).for_each(|_| pace.observe(idle, 0, Duration::from_millis(200)));
            run(&mut pace, 60, 0.2, 0.01)
        };
        assert!((1.1..1.3).contains(&took(&settings)), "six times 200 ms: {}", took(&settings));
        let strict = PaceSettings { stretch: 0.0, ..settings };
        assert!(took(&strict) < 0.4, "the least there is: {}", took(&strict));
    }

    #[test]
    fn where_many_wait_for_their_first_token_steps_may_take_longer() {
        let many = Reading { prompts: 7, longest: 60 };
        let mut pace = Pace::new(PaceSettings::default(), 512);
        let took = run_on(&mut pace, many, 40, 0.02, 0.002);
        assert!((0.4..0.6).contains(&took), "{took}");
        assert!((pace.tokens(many) / 2).abs_diff(pace.tokens(ONE)) <= ROWS);
    }
}
