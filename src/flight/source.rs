//! [`Source`]: where an answer comes from.

/// Where an answer comes from; the value of `X-Arriero-Cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It was computed for this request.
    #[default]
    Miss,
    /// It was being computed for another one.
    Coalesced,
}

impl Source {
    /// As the header has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
        }
    }
}
