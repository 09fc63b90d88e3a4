//! [`Priority`]: which of those that wait goes first.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How urgent a request is: less is earlier, as in vLLM's `priority` and in mail's `X-Priority`. -100 to 100, 0 where nobody
/// says; `high`, `normal` and `low` are -10, 0 and 10. It decides when an answer comes, never what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Priority(i8);

/// What is no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be high, normal, low or a whole number from -100 (first) to 100 (last)")]
pub struct NoPriority;

impl Priority {
    /// Where nobody says.
    pub const NORMAL: Self = Self(0);
    /// The word `low`.
    pub const LOW: Self = Self(10);
    const FIRST: i8 = -100;
    const LAST: i8 = 100;
    const WORDS: [(&'static str, i8); 3] = [("high", -10), ("normal", 0), ("low", 10)];

    /// Nobody said anything, or just this.
    pub fn is_normal(&self) -> bool {
        *self == Self::NORMAL
    }

    /// One step more urgent.
    #[must_use]
    pub fn raised(self) -> Self {
        Self((self.0 - 1).max(Self::FIRST))
    }
}

impl TryFrom<i64> for Priority {
    type Error = NoPriority;

    fn try_from(number: i64) -> Result<Self, NoPriority> {
        let priority = i8::try_from(number).map_err(|_| NoPriority)?;
        if (Self::FIRST..=Self::LAST).contains(&priority) { Ok(Self(priority)) } else { Err(NoPriority) }
    }
}

impl FromStr for Priority {
    type Err = NoPriority;

    /// Reads a word or a number, as the header `X-Priority` has them.
    fn from_str(text: &str) -> Result<Self, NoPriority> {
        let text = text.trim();
        match Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, priority)) => Ok(Self(*priority)),
            None => text.parse::<i64>().map_err(|_| NoPriority)?.try_into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_read_and_less_is_earlier() {
        let order = ["-100", "HIGH", "-1", " normal ", "1", "low", "100"].map(|text| text.parse().unwrap());
        assert!(order.is_sorted_by(|a: &Priority, b: &Priority| a < b), "{order:?}");
        assert_eq!("0".parse(), Ok(Priority::NORMAL));
        for nonsense in ["", "urgent", "1.5", "-101", "101", "99999999999999999999", "high,low"] {
            assert_eq!(nonsense.parse::<Priority>(), Err(NoPriority), "{nonsense}");
        }
    }

    #[test]
    fn nothing_is_more_urgent_than_the_first() {
        let first: Priority = "-100".parse().unwrap();
        assert_eq!(first.raised(), first);
        assert!(Priority::NORMAL.raised() < Priority::NORMAL);
    }
}
