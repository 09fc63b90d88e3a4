//! The admin port: liveness, readiness, metrics and status, for orchestrators and people. It only reads; what it shows is
//! handed in.

mod router;
mod server;

pub use router::{AdminState, router};
pub use server::serve;
