//! `arriero worker`: the process that runs one model.

use std::io::{Write, stderr};
use std::process::ExitCode;

/// Flags of `worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to be, as JSON: `generation::seam::Spec`
    #[arg(long, value_name = "JSON")]
    spec: String,
}

/// Serves the model until stdin ends or SIGTERM comes.
pub fn run(args: &Args) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err(reason) => {
            // Without a stderr the exit status has to say it.
            let _ = writeln!(stderr(), "arriero worker: {reason}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "engine")]
fn start(args: &Args) -> Result<ExitCode, String> {
    let spec = serde_json::from_str(&args.spec).map_err(|error| format!("--spec: {error}"))?;
    Ok(crate::engine::run(spec))
}

#[cfg(not(feature = "engine"))]
fn start(_args: &Args) -> Result<ExitCode, String> {
    Err("this binary was built without the feature `engine` and runs no models".to_owned())
}
