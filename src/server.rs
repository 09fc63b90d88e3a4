//! (being built)

use std::process::ExitCode;

use crate::config::Config;

/// Serves until told to stop.
pub fn serve(_config: Config) -> ExitCode {
    ExitCode::FAILURE
}
