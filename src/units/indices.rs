//! [`Indices`]: a set of CPUs or GPUs by their numbers, in the list syntax of Linux: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What `sched_setaffinity` can name (`CPU_SETSIZE`); there are fewer GPUs anywhere.
const LIMIT: u16 = 1024;

/// At least one number, each below 1024.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices(BTreeSet<u16>);

/// Why a text is no such set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndicesFault {
    /// No number where one belongs.
    #[error("expected numbers and ranges such as 0-3,8")]
    Syntax,
    /// A range that ends before it begins.
    #[error("the range {0}-{1} ends before it begins")]
    Reversed(u16, u16),
    /// A number that is too large.
    #[error("numbers must be below {LIMIT}")]
    TooLarge,
}

impl Indices {
    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|index| usize::from(*index))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that are not among `others`; `None`: all are.
    pub fn beyond(&self, others: &Self) -> Option<Self> {
        let rest: BTreeSet<u16> = self.0.difference(&others.0).copied().collect();
        (!rest.is_empty()).then_some(Self(rest))
    }
}

impl FromIterator<u16> for Indices {
    fn from_iter<I: IntoIterator<Item = u16>>(indices: I) -> Self {
        Self(indices.into_iter().collect())
    }
}

impl FromStr for Indices {
    type Err = IndicesFault;

    fn from_str(text: &str) -> Result<Self, IndicesFault> {
        let mut indices = BTreeSet::new();
        for range in text.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(IndicesFault::Reversed(first, last));
            }
            indices.extend(first..=last);
        }
        Ok(Self(indices))
    }
}

fn number(text: &str) -> Result<u16, IndicesFault> {
    let text = text.trim();
    // `parse` would take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(IndicesFault::Syntax);
    }
    text.parse().ok().filter(|index| *index < LIMIT).ok_or(IndicesFault::TooLarge)
}

impl fmt::Display for Indices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl Serialize for Indices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Indices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Indices;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers such as \"0-3,8\"")
    }

    fn visit_u64<E: Error>(self, index: u64) -> Result<Indices, E> {
        let index = u16::try_from(index).ok().filter(|index| *index < LIMIT);
        index.map(|index| Indices(BTreeSet::from([index]))).ok_or_else(|| E::custom(IndicesFault::TooLarge))
    }

    fn visit_i64<E: Error>(self, index: i64) -> Result<Indices, E> {
        match u64::try_from(index) {
            Ok(index) => self.visit_u64(index),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(index), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Indices, E> {
        text.parse().map_err(|fault| match fault {
            IndicesFault::Syntax => E::invalid_value(Unexpected::Str(text), &self),
            fault => E::custom(fault),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{from_value, json};

    use super::*;

    fn indices(text: &str) -> Indices {
        text.parse().unwrap()
    }

    #[test]
    fn the_kernels_syntax_is_read_and_written() {
        let list = indices("\t0-2, 5,7-8\n");
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(list.to_string(), "0-2,5,7-8");
        assert_eq!(indices("3,2,3,1").to_string(), "1-3");
        assert_eq!(from_value::<Indices>(json!(7)).unwrap(), indices("7"));
        assert_eq!(json!(indices("1,2")), json!("1-2"));
    }

    #[test]
    fn what_is_no_set_is_refused_with_the_reason() {
        for text in ["", " ", ",", "1,", "a", "-1", "1-", "+1", "1-2-3", "0x1"] {
            assert_eq!(text.parse::<Indices>(), Err(IndicesFault::Syntax), "{text:?}");
        }
        assert_eq!("3-1".parse::<Indices>(), Err(IndicesFault::Reversed(3, 1)));
        for text in ["1024", "0-99999999999999999999"] {
            assert_eq!(text.parse::<Indices>(), Err(IndicesFault::TooLarge), "{text}");
        }
        assert!(from_value::<Indices>(json!(-1)).is_err() && from_value::<Indices>(json!(1024)).is_err());
    }

    #[test]
    fn those_that_are_not_there_are_told() {
        assert_eq!(indices("0-9").beyond(&indices("0-3,8")), Some(indices("4-7,9")));
        assert_eq!(indices("1").beyond(&indices("0-3")), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(set in prop::collection::btree_set(0..LIMIT, 1..40)) {
            let indices = Indices(set);
            prop_assert_eq!(indices.to_string().parse(), Ok(indices));
        }
    }
}
