//! [`Pace`]: how many tokens of prompts a step may read while other sequences generate, so that their streams do not stall.
//!
//! A PID controller in its velocity form, on logarithms: a machine that is ten times faster needs other bounds, not other gains.
//! (K. J. Åström, T. Hägglund, "Advanced PID Control", 2006, section 3.5.) Pure state; durations are passed in.

use std::time::Duration;

use crate::generation::seam::PaceSettings;

/// How far off a single step may seem: whatever took a hundred times too long was not the prompt.
const MOST_ERROR: f64 = 1.0;

/// The controller.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    /// The most a batch holds.
    most: f64,
    tokens: f64,
    /// The errors of the last two steps, the last one first.
    errors: [f64; 2],
}

impl Pace {
    /// Starts with a quarter of the `most` tokens that a batch holds.
    pub fn new(settings: PaceSettings, most: usize) -> Self {
        let most = most.max(1) as f64;
        let least = f64::from(settings.least).clamp(1.0, most);
        Self { settings, most, tokens: (most / 4.0).max(least), errors: [0.0; 2] }
    }

    /// Goes on from where it is under other settings, or with another limit.
    pub fn adjust(&mut self, settings: PaceSettings, most: usize) {
        let most = most.max(1) as f64;
        let tokens = self.tokens.clamp(f64::from(settings.least).clamp(1.0, most), most);
        *self = Self { settings, most, tokens, errors: [0.0; 2] };
    }

    /// Tokens of prompts in the next step, at least 1.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// A step with sequences that generate and `read` tokens of prompts took this long.
    pub fn observe(&mut self, read: usize, took: Duration) {
        // A step that had less to read than it might have says nothing about the limit.
        if read < self.tokens() || took.is_zero() {
            return;
        }
        let error =
            (self.settings.target.as_secs_f64() / took.as_secs_f64()).ln().clamp(-MOST_ERROR, MOST_ERROR);
        let [last, before] = self.errors;
        let [proportional, integral, derivative] = self.settings.gains;
        let change =
            proportional * (error - last) + integral * error + derivative * (error - 2.0 * last + before);
        self.errors = [error, last];
        let least = f64::from(self.settings.least).clamp(1.0, self.most);
        self.tokens = (self.tokens * change.exp()).clamp(least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Steps on a machine where everything else takes `rest` and a token `each`, in seconds.
    fn run(pace: &mut Pace, steps: usize, rest: f64, each: f64) -> f64 {
        let mut took = 0.0;
        for _ in 0..steps {
            took = rest + each * pace.tokens() as f64;
            pace.observe(pace.tokens(), Duration::from_secs_f64(took));
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
        let before = pace.tokens();
        let took = run(&mut pace, 30, 0.06, 0.002);
        assert!(
            pace.tokens() < before && (0.2..0.3).contains(&took),
            "{before} to {}: {took}",
            pace.tokens()
        );
    }

    #[test]
    fn the_end_of_a_prompt_and_a_pause_of_the_machine_teach_little() {
        let mut pace = Pace::new(PaceSettings::default(), 512);
        run(&mut pace, 30, 0.03, 0.002);
        let before = pace.tokens();
        pace.observe(3, Duration::from_millis(31));
        assert_eq!(pace.tokens(), before);
        pace.observe(before, Duration::from_secs(60));
        assert!(pace.tokens() > before / 4, "{before} to {}", pace.tokens());
    }
}
