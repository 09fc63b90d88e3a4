//! The admin port: liveness, readiness, metrics and status, for orchestrators and people, and what they can have done. What it
//! shows and does is handed in.

mod cache;
mod load;
mod models;
mod nodes;
mod register;
mod reload;
mod router;
mod server;
mod settings;
mod snapshot;
mod status;

pub use cache::{Kept, kept};
pub use load::Loads;
pub use models::models;
pub use nodes::Nodes;
pub use register::{Entry, NotRegistered, Registrar};
pub use reload::{NotReloaded, Reload};
pub use router::{AdminState, router};
pub use server::serve;
pub use settings::{ChangeSettings, change_settings};
pub use snapshot::{SaveSnapshot, save_snapshot};
pub use status::status;
