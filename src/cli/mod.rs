//! The command line: one file per subcommand.

mod check;
mod serve;
mod worker;

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Problem, Sources};

/// Exit status of a command that was used or configured wrongly, as clap has it too.
const MISUSE: u8 = 2;

/// A sidecar in front of co-located llama.cpp workers: a drop-in for Ollama-style and OpenAI-style endpoints.
#[derive(Debug, Parser)]
#[command(name = "arriero", arg_required_else_help = true)]
struct Cli {
    /// Print the version, the features and what they run on
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configured models; without a configuration the embedded demo model
    Serve(serve::Args),
    /// Check a configuration and print every problem with its place
    Check(check::Args),
    /// Run one model; started by `serve`
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that cannot be printed has no reader either.
            let _ = error.print();
            return if error.use_stderr() { MISUSE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        _ if cli.version => print(&version()),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Worker(args)) => worker::run(&args),
        None => print(&Cli::command().render_help().to_string()),
    }
}

/// `arriero 0.1.0`, then what is built in.
fn version() -> String {
    let features: Vec<&str> = [
        ("engine", cfg!(feature = "engine")),
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("dynamic-backends", cfg!(feature = "dynamic-backends")),
    ]
    .into_iter()
    .filter_map(|(name, is_on)| is_on.then_some(name))
    .collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!("arriero {}\nfeatures: {features}\n{}", env!("CARGO_PKG_VERSION"), computes())
}

/// What llama.cpp computes with on this machine: the same that a worker's health says.
#[cfg(feature = "engine")]
fn computes() -> String {
    let backend = crate::engine::backend::describe();
    format!("devices: {}\ncpu features: {}\n", backend.devices.join(", "), backend.cpu_features.join(", "))
}

#[cfg(not(feature = "engine"))]
fn computes() -> String {
    String::new()
}

fn print(text: &str) -> ExitCode {
    match stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The sources of a configuration: `file`, else the one that `ARRIERO_CONFIG` names, and this process' environment.
fn sources(file: Option<std::path::PathBuf>) -> Sources {
    let env: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let named = || env.get("ARRIERO_CONFIG").filter(|path| !path.is_empty()).map(Into::into);
    Sources { file: file.or_else(named), env, listen: None, admin: None }
}

/// One line per notice.
fn notify(notices: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    notices.iter().try_for_each(|notice| writeln!(out, "{notice}"))
}

/// One line per problem, then how many there are.
fn report(problems: &[Problem], out: &mut dyn Write) -> std::io::Result<()> {
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    let count = problems.len();
    writeln!(out, "{count} problem{} in the configuration", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_hides_the_worker_and_shows_the_rest() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("serve") && help.contains("check"), "{help}");
        assert!(!help.contains("worker "), "{help}");
    }

    #[test]
    fn no_arguments_print_help() {
        let error = Cli::try_parse_from(["arriero"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn the_version_names_the_features() {
        let version = version();
        let (first, second) = version.split_once('\n').unwrap();
        assert_eq!(first, concat!("arriero ", env!("CARGO_PKG_VERSION")));
        assert_eq!(second.contains("engine"), cfg!(feature = "engine"), "{second}");
    }
}
