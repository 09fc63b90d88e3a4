//! (being built)

mod config;

pub use config::RetryConfig;
