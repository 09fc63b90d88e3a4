//! [`Via`]: the Arrieros that a request has come through, or a model. Two that are nodes of each other would send both round in
//! circles: so requests carry the field `Via` (RFC 9110, section 7.6.3), and models are told with their way to whoever has one.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::Node;
use crate::generation::{Failure, FailureCode};

/// Most Arrieros on the way of a request.
pub const MOST_HOPS: usize = 4;
/// Before the number of each, in fields and lists.
const PREFIX: &str = "arriero-";

/// One Arriero process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop(NonZeroU64);

/// Not the name of one.
#[derive(Debug, PartialEq, Eq)]
pub struct NoHop;

impl Hop {
    /// A new one, which no other is.
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(super) fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:016x}", self.0)
    }
}

impl FromStr for Hop {
    type Err = NoHop;

    fn from_str(text: &str) -> Result<Self, NoHop> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 16).ok_or(NoHop)?;
        u64::from_str_radix(digits, 16).ok().and_then(Self::from_number).ok_or(NoHop)
    }
}

/// Several, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via(Vec<Hop>);

impl Via {
    /// The Arrieros in the values of `Via` fields; other proxies are left out.
    pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let entries = fields.into_iter().flat_map(|field| field.split(','));
        // Behind the protocol's version; what may come behind it is a comment.
        Self(entries.filter_map(|entry| entry.split_whitespace().nth(1)?.parse().ok()).collect())
    }

    /// Those of a list of names.
    pub fn of_names(names: &[String]) -> Self {
        Self(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Hop::to_string).collect()
    }

    /// The value of the field with which `own` sends on what came this way.
    pub fn field(&self, own: Hop) -> String {
        let entries = self.0.iter().chain([&own]).map(|hop| format!("1.1 {hop}"));
        entries.collect::<Vec<_>>().join(", ")
    }

    /// The last one.
    pub fn last(&self) -> Option<Hop> {
        self.0.last().copied()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `hop` is one of them.
    pub fn has(&self, hop: Hop) -> bool {
        self.0.contains(&hop)
    }

    /// Whether one is in both.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|hop| other.has(*hop))
    }

    /// The way with another one at its end.
    pub fn and(mut self, hop: Option<Hop>) -> Self {
        self.0.extend(hop);
        self
    }

    /// Why `own` does not take what came this way.
    pub fn fault(&self, own: Hop) -> Option<Failure> {
        let message = if self.has(own) {
            "the request has come through this Arriero before: they are nodes of each other".to_owned()
        } else if self.len() >= MOST_HOPS {
            format!("the request has come through {} Arrieros, and no more are allowed", self.len())
        } else {
            return None;
        };
        Some(Failure { code: FailureCode::Loop, message })
    }

    /// Why what came this way cannot go to `node`.
    pub fn objection(&self, node: &Node) -> Option<Failure> {
        let message = || format!("the request has come from {}, and nobody else serves the model", node.name);
        let has_come_from = node.hop().is_some_and(|hop| self.has(hop));
        has_come_from.then(|| Failure { code: FailureCode::Loop, message: message() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(number: u64) -> Hop {
        Hop::from_number(number).unwrap()
    }

    #[test]
    fn a_field_is_read_as_it_was_written_among_other_proxies() {
        let way = Via::read([]).and(Some(hop(7)));
        let field = way.field(hop(u64::MAX));
        assert_eq!(field, "1.1 arriero-0000000000000007, 1.1 arriero-ffffffffffffffff");
        let others = format!("1.1 varnish (Varnish/6.0),{field} , HTTP/2 nginx, 1.1 arriero-x, 1.1");
        assert_eq!(Via::read([others.as_str()]), way.clone().and(Some(hop(u64::MAX))));
        assert_eq!(Via::of_names(&way.names()), way);
        assert_eq!(Via::read(["1.1 arriero-0000000000000000", "", ","]), Via::default());
    }

    #[test]
    fn who_was_there_before_takes_nothing_and_nobody_takes_what_has_come_far() {
        let way = Via::default().and(Some(hop(1))).and(Some(hop(2)));
        assert_eq!(way.fault(hop(3)), None);
        assert!(way.fault(hop(1)).is_some_and(|failure| failure.code == FailureCode::Loop));
        let far = way.clone().and(Some(hop(3))).and(Some(hop(4)));
        assert!(far.fault(hop(5)).is_some_and(|failure| failure.message.contains("4 Arrieros")));
        assert!(way.meets(&far) && !way.meets(&Via::default().and(Some(hop(4)))));
    }
}
