//! `arriero serve`.

use std::io::stderr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{config, server, telemetry};

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file; without it $ARRIERO_CONFIG, else the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data port, over what the configuration says
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The admin port, or off, over what the configuration says
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Serves until told to stop; a configuration with mistakes is printed as `check` prints it.
pub fn run(args: Args) -> ExitCode {
    let sources = config::Sources { listen: args.listen, admin: args.admin, ..super::sources(args.config) };
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(config::Refused { problems, notices }) => {
            let mut err = stderr().lock();
            // Without a stderr the exit status has to say it.
            let _ = super::notify(&notices, &mut err).and_then(|()| super::report(&problems, &mut err));
            return super::MISUSE.into();
        }
    };
    telemetry::start_log(&loaded.config.log);
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    for problem in &loaded.missing_files {
        tracing::warn!("{problem}");
    }
    server::serve(loaded.config, sources)
}
