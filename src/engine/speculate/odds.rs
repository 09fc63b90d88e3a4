//! [`Odds`]: how likely guesses about one sequence are right, learned from those that were. Pure state.

/// How much of what was learned remains with each token: some twenty count.
const MEMORY: f64 = 0.95;

/// The same per token while nothing is learned; after some hundred tokens the first belief is back.
const FORGETTING: f64 = 0.99;

/// As how many tokens the first belief counts.
const FIRST_BELIEF: f64 = 2.0;

/// The odds of one kind of guess.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    first: f64,
    right: f64,
    wrong: f64,
}

impl Odds {
    /// Believed to be `first` before anything is known, 0 to 1.
    pub fn new(first: f64) -> Self {
        Self { first, right: 0.0, wrong: 0.0 }
    }

    /// How likely the next token of a guess is right.
    pub fn now(&self) -> f64 {
        (self.right + FIRST_BELIEF * self.first) / (self.right + self.wrong + FIRST_BELIEF)
    }

    /// A guessed token was right, or not.
    pub fn learn(&mut self, is_right: bool) {
        self.scale(MEMORY);
        if is_right {
            self.right += 1.0;
        } else {
            self.wrong += 1.0;
        }
    }

    /// A token went by without a guess.
    pub fn forget(&mut self) {
        self.scale(FORGETTING);
    }

    fn scale(&mut self, by: f64) {
        self.right *= by;
        self.wrong *= by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_follow_what_happens_and_come_back_when_nothing_does() {
        let mut odds = Odds::new(0.9);
        assert!((odds.now() - 0.9).abs() < 1e-9);
        (0..40).for_each(|_| odds.learn(false));
        assert!(odds.now() < 0.15, "{}", odds.now());
        (0..400).for_each(|_| odds.forget());
        assert!(odds.now() > 0.6, "{}", odds.now());
        (0..100).for_each(|_| odds.learn(true));
        assert!(odds.now() > 0.97, "{}", odds.now());
    }
}
