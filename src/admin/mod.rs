//! The admin port: liveness, readiness, metrics, status and settings, for orchestrators and people. What it shows and changes is
//! handed in.

mod router;
mod server;
mod settings;
mod status;

pub use router::{AdminState, router};
pub use server::serve;
pub use settings::{ChangeSettings, change_settings};
pub use status::status;
