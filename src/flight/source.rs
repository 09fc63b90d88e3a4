//! [`Source`]: where an answer comes from.

/// Where an answer comes from; the value of `X-Arriero-Cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It was computed for this request.
    #[default]
    Miss,
    /// It was being computed for another one.
    Coalesced,
    /// It was kept.
    Hit,
    /// It was kept of a similar question.
    Semantic,
    /// It was computed because the request takes no kept one.
    Bypass,
}

impl Source {
    /// As the header has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Hit => "hit",
            Self::Semantic => "semantic",
            Self::Bypass => "bypass",
        }
    }
}
