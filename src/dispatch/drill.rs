//! [`Drill`]: a fault on purpose, for users who want to see what comes of one (`X-Arriero-Fault`; only where `faults.enabled`). It is
//! played on this side of the exchange with the node that is chosen first, and counts like a real one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::generation::{Event, Failure, FailureCode};
use crate::node::Node;
use crate::upstream::{Exchange, Fault};

/// How long a node seems to be silent that may be so for ever: as long as it takes at most to find a worker that stands still.
const SILENCE: Duration = Duration::from_secs(10);

/// A fault to be played once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drill {
    kind: Kind,
    /// Events that come before it; seconds that a busy node asks for.
    after: u32,
}

/// What the node seems to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Refuses the connection.
    Refuses,
    /// Resets it once the request is there.
    Resets,
    /// Never begins to answer.
    Stalls,
    /// Begins, and then nothing whole comes any more.
    Drips,
    /// Resets the connection in the middle of its answer.
    Dies,
    /// Ends its answer in good order without saying that it has ended.
    Ends,
    /// Announces a longer body than it sends.
    TooLong,
    /// Never ends the body of an answer that is whole.
    NeverCloses,
    /// Answers 500.
    Fails,
    /// Answers 429.
    Busy,
    /// Answers what means nothing.
    Garbage,
    /// Does not have the model that it offers.
    Lies,
}

impl Kind {
    const ALL: [(&'static str, Self); 12] = [
        ("refuses", Self::Refuses),
        ("resets", Self::Resets),
        ("stalls", Self::Stalls),
        ("drips", Self::Drips),
        ("dies", Self::Dies),
        ("ends", Self::Ends),
        ("too_long", Self::TooLong),
        ("never_closes", Self::NeverCloses),
        ("500", Self::Fails),
        ("busy", Self::Busy),
        ("garbage", Self::Garbage),
        ("lies", Self::Lies),
    ];
}

/// What is no fault that can be played, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct NoDrill(String);

impl fmt::Display for NoDrill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Kind::ALL.iter().map(|(name, _)| *name).collect();
        write!(
            f,
            "must be one of {}, and may have a number behind it (dies; after=3), found {:?}",
            names.join(", "),
            self.0
        )
    }
}

impl FromStr for Drill {
    type Err = NoDrill;

    fn from_str(text: &str) -> Result<Self, NoDrill> {
        let unknown = || NoDrill(text.to_owned());
        let (name, rest) =
            text.split_once(';').map_or((text, None), |(name, rest)| (name, Some(rest.trim())));
        let found = Kind::ALL.iter().find(|(known, _)| *known == name.trim());
        let (_, kind) = found.ok_or_else(unknown)?;
        let after = match rest {
            None => 1,
            Some(rest) => {
                rest.strip_prefix("after=").and_then(|count| count.trim().parse().ok()).ok_or_else(unknown)?
            }
        };
        Ok(Self { kind: *kind, after })
    }
}

impl Drill {
    /// What happens instead of an answer.
    pub(super) async fn before(&self, node: &Node) -> Result<(), Fault> {
        let failure = |code, what: &str| Failure { code, message: format!("{what} (a fault on purpose)") };
        match self.kind {
            Kind::Refuses => Err(Fault::Connect("a fault on purpose".into())),
            Kind::Resets => Err(broken("request: the connection was reset")),
            Kind::Stalls => {
                tokio::time::sleep(node.access.timeouts.first_byte.unwrap_or(SILENCE)).await;
                Err(Fault::Timeout("no byte of an answer in time (a fault on purpose)".into()))
            }
            Kind::Fails => Err(Fault::Refused(failure(FailureCode::Internal, "the node answered 500"))),
            Kind::Busy => Err(Fault::RateLimited {
                failure: failure(FailureCode::Unavailable, "the node is busy"),
                retry_after: Some(Duration::from_secs(self.after.into())),
            }),
            Kind::Garbage => Err(broken("event: it means nothing")),
            Kind::Lies => Err(Fault::Declined(failure(FailureCode::Unavailable, "the node lacks the model"))),
            Kind::Drips | Kind::Dies | Kind::Ends | Kind::TooLong | Kind::NeverCloses => Ok(()),
        }
    }

    /// What happens when `event` of an answer has come, in place of it.
    pub(super) async fn during(
        &mut self,
        event: &Event,
        node: &Node,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Fault> {
        let is_last = matches!(event, Event::Done(_));
        if is_last && self.kind == Kind::NeverCloses {
            exchange.never_end();
        }
        if self.after > 0 && !is_last {
            self.after -= 1;
            return Ok(());
        }
        self.instead(node).await
    }

    /// What happens instead of an answer in one piece.
    pub(super) async fn whole(&self, node: &Node) -> Result<(), Fault> {
        self.before(node).await?;
        self.instead(node).await
    }

    /// What happens instead of the rest of an answer.
    async fn instead(&self, node: &Node) -> Result<(), Fault> {
        match self.kind {
            Kind::Drips => {
                tokio::time::sleep(node.access.timeouts.idle.unwrap_or(SILENCE)).await;
                Err(Fault::Timeout("the answer stopped coming (a fault on purpose)".into()))
            }
            Kind::Dies => Err(broken("answer: the connection was reset")),
            Kind::Ends => Err(broken("the answer was cut off")),
            Kind::TooLong => Err(broken("answer: the body is shorter than announced")),
            _ => Ok(()),
        }
    }
}

fn broken(what: &str) -> Fault {
    Fault::Broken(format!("{what} (a fault on purpose)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_a_name_and_may_have_a_number() {
        for (name, kind) in Kind::ALL {
            assert_eq!(name.parse(), Ok(Drill { kind, after: 1 }));
        }
        assert_eq!(" dies ; after=3 ".trim().parse(), Ok(Drill { kind: Kind::Dies, after: 3 }));
        for text in
            ["", "sulks", "dies 3", "dies; 3", "dies; after=", "dies; after=-1", "dies; before=2", "Dies"]
        {
            let told = text.parse::<Drill>().unwrap_err().to_string();
            assert!(told.contains("refuses, resets") && told.contains(&format!("{text:?}")), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_is_the_one_that_a_node_would_have() {
        let node = Node::new("n", "/none".into(), 0, 1);
        let played = async |name: &str| {
            let drill: Drill = name.parse().unwrap();
            drill.whole(&node).await.err().map(|fault| fault.reason())
        };
        for (name, reason) in [
            ("refuses", Some("connect")),
            ("resets", Some("broken")),
            ("stalls", Some("timeout")),
            ("drips", Some("timeout")),
            ("dies", Some("broken")),
            ("ends", Some("broken")),
            ("too_long", Some("broken")),
            ("never_closes", None),
            ("500", Some("refused")),
            ("busy", Some("rate_limited")),
            ("garbage", Some("broken")),
            ("lies", Some("declined")),
        ] {
            assert_eq!(played(name).await, reason, "{name}");
        }
    }
}
