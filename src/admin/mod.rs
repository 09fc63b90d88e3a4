//! The admin port: liveness, readiness, metrics and status, for orchestrators and people. It only reads; what it shows is
//! handed in.

mod router;
mod server;
mod status;

pub use router::{AdminState, router};
pub use server::serve;
pub use status::status;
