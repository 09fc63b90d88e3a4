//! Names of headers that no standard has. They are made once: a request looks for a dozen of them.

use http::HeaderName;

/// Gives each name a place of its own.
macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub(super) static $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    /// Both ways: which request it is.
    REQUEST_ID = "x-request-id";

    // What a request says.
    /// Who asks, where `Authorization` does not say.
    API_KEY = "x-api-key";
    /// What ties requests together.
    SESSION_ID = "x-session-id";
    /// Its place among those that wait.
    PRIORITY = "x-priority";
    /// After how many milliseconds its client gives up.
    REQUEST_TIMEOUT = "x-request-timeout-ms";
    /// When it shares what is computed.
    COALESCE = "x-arriero-coalesce";
    /// A fault to be played.
    FAULT = "x-arriero-fault";
    /// Whether its client may come back.
    EVENT_IDS = "x-arriero-event-ids";
    /// The event after which its client goes on.
    LAST_EVENT_ID = "last-event-id";

    // What an answer says.
    /// The node that answered.
    NODE = "x-arriero-node";
    /// The model that answered in place of the one asked for.
    FALLBACK = "x-arriero-fallback";
    /// What the model does without, for lack of memory.
    RUNG = "x-arriero-rung";
    /// Where the answer comes from.
    CACHE = "x-arriero-cache";
    /// How similar the question was.
    SIMILARITY = "x-arriero-similarity";
    /// Exchanges started.
    ATTEMPTS = "x-arriero-attempts";
    /// How long it has waited for a place.
    QUEUE_MS = "x-arriero-queue-ms";
    /// Asks nginx in front to hand tokens on as they come.
    ACCEL_BUFFERING = "x-accel-buffering";
}
