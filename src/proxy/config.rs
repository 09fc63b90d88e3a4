//! The `limits` and `passthrough` sections.

use std::time::Duration;

/// What one client may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// Largest request body in bytes.
    pub body: u64,
    /// How long a stop waits for running requests.
    pub drain: Duration,
    /// How long one write to a client that does not read may take.
    pub client_write: Duration,
}

/// A server that gets the paths this process does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PassthroughConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
}
