//! [`Guesser`]: what one sequence guesses, and how often it was right. Pure state.

use super::lookup::Lookup;
use super::odds::Odds;
use crate::engine::sampling::Token;

/// What guesses from earlier text are believed to be worth at first: matches of 2 tokens, 4, 8, and 16 or more.
const LOOKUP: [f64; 4] = [0.3, 0.5, 0.7, 0.85];

/// The same for a draft model. Hopeful, for that it can only show where it is asked.
const DRAFT: f64 = 0.9;

/// Where a guess comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Earlier text.
    Lookup,
    /// A draft model.
    Draft,
}

/// The guesses about one sequence.
#[derive(Debug)]
pub struct Guesser {
    lookup: Lookup,
    by_match: [Odds; LOOKUP.len()],
    by_draft: Odds,
    source: Source,
    /// What was guessed for the step under way.
    guess: Vec<Token>,
    /// Tokens guessed, and those of them that were right.
    pub guessed: u64,
    /// See [`Guesser::guessed`].
    pub accepted: u64,
}

impl Default for Guesser {
    fn default() -> Self {
        Self {
            lookup: Lookup::default(),
            by_match: LOOKUP.map(Odds::new),
            by_draft: Odds::new(DRAFT),
            source: Source::Lookup,
            guess: Vec::new(),
            guessed: 0,
            accepted: 0,
        }
    }
}

impl Guesser {
    /// Takes in what was added to `text`, which learns for free: what earlier text would have said is known without asking.
    pub fn follow(&mut self, text: &[Token]) {
        let by_match = &mut self.by_match;
        self.lookup.follow(text, |matched, right| by_match[class(matched)].learn(right));
    }

    /// The likeliest source and its odds; a draft model only if there is one.
    pub fn likeliest(&self, has_draft: bool) -> Option<(Source, f64)> {
        let matched = self.lookup.matched();
        let lookup = (matched > 0).then(|| (Source::Lookup, self.by_match[class(matched)].now()));
        let draft = has_draft.then(|| (Source::Draft, self.by_draft.now()));
        lookup.into_iter().chain(draft).max_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// Guesses `count` tokens that follow `text`, 0 too, from earlier text. What is known of a draft model fades meanwhile, so that
    /// it gets another chance.
    pub fn look_up(&mut self, text: &[Token], count: usize) {
        self.by_draft.forget();
        self.set(Source::Lookup, self.lookup.guess(text, count));
    }

    /// A guess from elsewhere.
    pub fn set(&mut self, source: Source, guess: Vec<Token>) {
        self.source = source;
        self.guess = guess;
    }

    /// What was guessed for the step under way.
    pub fn guess(&self) -> &[Token] {
        &self.guess
    }

    /// The guess was decoded with the step: it counts, and is over.
    pub fn take(&mut self) -> Vec<Token> {
        self.guessed += self.guess.len() as u64;
        std::mem::take(&mut self.guess)
    }

    /// What became of a token of the guess that was taken.
    pub fn learn(&mut self, is_right: bool) {
        self.accepted += u64::from(is_right);
        if self.source == Source::Draft {
            self.by_draft.learn(is_right);
        }
    }
}

fn class(matched: usize) -> usize {
    (matched.max(2).ilog2() as usize - 1).min(LOOKUP.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_match_is_believed_more_and_one_that_disappoints_less() {
        let mut guesser = Guesser::default();
        let verse: Vec<Token> = (1..=20).collect();
        let mut text = [&verse[..], &[90, 1, 2]].concat();
        guesser.follow(&text);
        let (_, short) = guesser.likeliest(false).unwrap();
        text.extend(3..=18);
        guesser.follow(&text);
        let (source, long) = guesser.likeliest(false).unwrap();
        assert_eq!(source, Source::Lookup);
        assert!(short < 0.5 && long > 0.8, "{short} {long}");
        guesser.look_up(&text, 2);
        assert_eq!(guesser.guess(), [19, 20]);
        // The verse begins again and again and goes on differently each time.
        for other in 200..230 {
            text.extend([1, 2, other]);
            guesser.follow(&text);
        }
        text.extend([1, 2]);
        guesser.follow(&text);
        assert!(guesser.likeliest(false).unwrap().1 < 0.2);
    }

    #[test]
    fn a_draft_model_that_fails_is_left_alone_for_a_while() {
        let mut guesser = Guesser::default();
        guesser.set(Source::Draft, vec![1]);
        (0..40).for_each(|_| guesser.learn(false));
        let (source, odds) = guesser.likeliest(true).unwrap();
        assert!(source == Source::Draft && odds < 0.2);
        (0..600).for_each(|_| guesser.look_up(&[], 0));
        assert!(guesser.likeliest(true).unwrap().1 > 0.8);
        assert_eq!(guesser.likeliest(false), None);
    }

    #[test]
    fn matches_are_classed_by_their_length() {
        assert_eq!([2, 3, 4, 7, 8, 15, 16, 32].map(class), [0, 0, 1, 1, 2, 2, 3, 3]);
    }
}
