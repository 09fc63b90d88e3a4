//! The admin port: liveness, readiness, metrics and status, for orchestrators and people, and what they can have done. What it
//! shows and does is handed in.

mod router;
mod server;
mod snapshot;
mod status;

pub use router::{AdminState, router};
pub use server::serve;
pub use snapshot::snapshot;
pub use status::status;
