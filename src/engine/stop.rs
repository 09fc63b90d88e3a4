//! [`StopMatcher`]: finds the first stop sequence in streamed text and lets no part of one out. Pure state.

/// Watches streamed text for stop sequences. Text is released as soon as no stop sequence can begin in it.
#[derive(Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text not released yet: it ends with what may be the start of a stop sequence.
    held: String,
}

/// What became of pushed text.
#[derive(Debug, PartialEq, Eq)]
pub enum Released {
    /// No match so far; this text is safe to send.
    Text(String),
    /// A stop sequence was completed; this is the last text before it.
    Stopped(String),
}

impl StopMatcher {
    /// Empty stop sequences would end every answer at once and are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> Released {
        self.held.push_str(text);
        // Of the matches that are complete, the one that begins first wins.
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Released::Stopped(std::mem::take(&mut self.held));
        }
        let rest = self.held.split_off(self.safe_length());
        Released::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The text still held, at the end of an answer that no stop sequence ended.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest front part of `held` that no stop sequence can reach into.
    fn safe_length(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `pieces`; the text sent and whether a stop sequence ended it.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut sent = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Released::Text(text) => sent += &text,
                Released::Stopped(text) => return (sent + &text, true),
            }
        }
        (sent + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_sequence_cut_anywhere_is_found_and_never_leaks() {
        let text = "one<|end|>two";
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(run(&["<|end|>"], [head, tail]), ("one".to_owned(), true), "cut at {cut}");
        }
    }

    #[test]
    fn what_only_looked_like_a_stop_sequence_is_delivered() {
        assert_eq!(run(&["\n\n"], ["a\n", "b\n"]), ("a\nb\n".to_owned(), false));
        assert_eq!(run(&["aab"], ["a", "a", "a", "b"]), ("a".to_owned(), true));
    }

    #[test]
    fn text_is_released_as_soon_as_it_is_safe() {
        let mut matcher = StopMatcher::new(&["END".to_owned()]);
        assert_eq!(matcher.push("hello E"), Released::Text("hello ".to_owned()));
        assert_eq!(matcher.push("X"), Released::Text("EX".to_owned()));
    }

    #[test]
    fn of_complete_matches_the_one_that_begins_first_wins() {
        assert_eq!(run(&["c", "bcd"], ["ab", "cd"]), ("a".to_owned(), true));
        assert_eq!(run(&["bcd", "c"], ["abcd"]), ("a".to_owned(), true));
    }

    #[test]
    fn empty_stop_sequences_do_nothing() {
        assert_eq!(run(&[""], ["abc"]), ("abc".to_owned(), false));
    }

    proptest! {
        #[test]
        fn pieces_never_change_a_single_stop_sequence(
            text in "[abß]{0,16}", stop in "[abß]{1,4}", cuts in proptest::collection::vec(1usize..4, 1..8)
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            let mut sizes = cuts.iter().cycle();
            while !rest.is_empty() {
                let size = *sizes.next().unwrap();
                let at = rest.char_indices().nth(size).map_or(rest.len(), |(at, _)| at);
                let (piece, after) = rest.split_at(at);
                pieces.push(piece);
                rest = after;
            }
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_owned(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], pieces), expected);
        }
    }
}
