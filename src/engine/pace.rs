//! [`Pace`]: how many tokens of prompts a step may read while other sequences generate, so that their streams do not stall.
//!
//! What streams bear depends on how long it lasts. While a usual prompt is read, no step takes longer than the target, and twice
//! that where many wait for their first token. While a very long one is read, which may take a minute, steps take a small multiple
//! of what they take undisturbed.
//!
//! PID controllers in their velocity form, on logarithms: a machine that is ten times faster needs other bounds, not other gains.
//! (K. J. Åström, T. Hägglund, "Advanced PID Control", 2006, section 3.5.) Pure state; durations are passed in.

use std::time::Duration;

use crate::generation::seam::PaceSettings;

/// How far off a single step may seem: whatever took a hundred times too long was not the prompt.
const MOST_ERROR: f64 = 1.0;
/// Weight of a new measurement of an undisturbed step.
const WEIGHT: f64 = 0.25;
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

/// The controllers.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    /// The most a batch holds.
    most: f64,
    /// For usual prompts.
    usual: Controller,
    /// For very long ones.
    long: Controller,
    /// Seconds of a step in which nothing is read.
    undisturbed: Option<f64>,
}

/// Keeps steps at a target.
#[derive(Debug)]
struct Controller {
    tokens: f64,
    /// The errors of the last two steps, the last one first.
    errors: [f64; 2],
}

impl Pace {
    /// Starts with a quarter of the `most` tokens that a batch holds, and with the least for very long prompts.
    pub fn new(settings: PaceSettings, most: usize) -> Self {
        let most = most.max(1) as f64;
        let least = f64::from(settings.least).clamp(1.0, most);
        let [usual, long] =
            [(most / 4.0).max(least), least].map(|tokens| Controller { tokens, errors: [0.0; 2] });
        Self { settings, most, usual, long, undisturbed: None }
    }

    /// Goes on from where it is under other settings, or with another limit.
    pub fn adjust(&mut self, settings: PaceSettings, most: usize) {
        (self.settings, self.most) = (settings, most.max(1) as f64);
        let bounds = self.bounds();
        for controller in [&mut self.usual, &mut self.long] {
            let tokens = controller.tokens.clamp(bounds.0, bounds.1);
            *controller = Controller { tokens, errors: [0.0; 2] };
        }
    }

    /// Tokens of prompts in the next step, at least 1.
    pub fn tokens(&self, reading: Reading) -> usize {
        let (least, most) = self.bounds();
        let tokens = match self.undisturbed_target(reading) {
            Some(_) => self.long.tokens,
            None => self.usual.tokens * patience(reading),
        };
        tokens.clamp(least, most) as usize
    }

    /// A step with sequences that generate and `read` tokens of prompts took this long.
    pub fn observe(&mut self, reading: Reading, read: usize, took: Duration) {
        // A step that had less to read than it might have says nothing about the limit.
        if read < self.tokens(reading) || took.is_zero() {
            return;
        }
        let (gains, bounds, usual) = (self.settings.gains, self.bounds(), self.settings.target.as_secs_f64());
        match self.undisturbed_target(reading) {
            Some(target) => self.long.observe(target, took, gains, bounds),
            None => self.usual.observe(usual * patience(reading), took, gains, bounds),
        }
    }

    /// A step in which nothing was read took this long.
    pub fn observe_undisturbed(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.undisturbed.unwrap_or(took);
        self.undisturbed = Some(known + WEIGHT * (took - known));
    }

    /// What a step shall take beside a very long prompt, if there is one and it is known what it takes without.
    fn undisturbed_target(&self, reading: Reading) -> Option<f64> {
        let is_long = reading.longest > self.settings.long as usize;
        let target = self.undisturbed.filter(|_| is_long)? * self.settings.slowdown;
        Some(target.min(self.settings.target.as_secs_f64()))
    }

    fn bounds(&self) -> (f64, f64) {
        (f64::from(self.settings.least).clamp(1.0, self.most), self.most)
    }
}

impl Controller {
    /// A step took this long, and should have taken `target` seconds.
    fn observe(&mut self, target: f64, took: Duration, gains: [f64; 3], (least, most): (f64, f64)) {
        let error = (target / took.as_secs_f64()).ln().clamp(-MOST_ERROR, MOST_ERROR);
        let [last, before] = self.errors;
        let [proportional, integral, derivative] = gains;
        let change =
            proportional * (error - last) + integral * error + derivative * (error - 2.0 * last + before);
        self.errors = [error, last];
        self.tokens = (self.tokens * change.exp()).clamp(least, most);
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
            prop_assert!((took - possible).abs() <= 0.15 * possible + each, "{took} instead of {possible}");
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
    fn beside_a_very_long_prompt_steps_take_twice_what_they_take_alone() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        (0..20).for_each(|_| pace.observe_undisturbed(Duration::from_millis(40)));
        let took = run_on(&mut pace, LONG, 40, 0.04, 0.0005);
        assert!((0.07..0.09).contains(&took), "{took}");
        let took = run(&mut pace, 40, 0.04, 0.002);
        assert!((0.2..0.3).contains(&took), "a usual one is read as ever: {took}");
    }

    #[test]
    fn on_a_slow_machine_a_very_long_prompt_makes_no_step_longer_than_a_usual_one() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        pace.observe_undisturbed(Duration::from_millis(200));
        let took = run_on(&mut pace, LONG, 40, 0.2, 0.001);
        assert!((0.2..0.3).contains(&took), "{took}");
    }

    #[test]
    fn where_many_wait_for_their_first_token_steps_may_take_longer() {
        let many = Reading { prompts: 7, longest: 60 };
        let mut pace = Pace::new(PaceSettings::default(), 512);
        let took = run_on(&mut pace, many, 40, 0.02, 0.002);
        assert!((0.4..0.6).contains(&took), "{took}");
        assert_eq!(pace.tokens(many) / 2, pace.tokens(ONE));
    }
}
