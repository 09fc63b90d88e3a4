//! `arriero check`: every problem of a configuration with its place.

use std::io::{self, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Config, Loaded, Refused, Sources};

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The config file; without it $ARRIERO_CONFIG, else the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// 0 if there is nothing wrong, 2 if there is. A model file that cannot be opened is wrong here, though `serve` starts without it.
pub fn run(args: Args) -> ExitCode {
    match check(&super::sources(args.config), &mut stdout().lock(), &mut stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => super::MISUSE.into(),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Problems and notices go to `err`, the summary to `out`. Whether there was no problem.
fn check(sources: &Sources, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    match config::load(sources) {
        Ok(Loaded { config, missing_files, notices }) if missing_files.is_empty() => {
            super::notify(&notices, err)?;
            writeln!(out, "{}", summary(sources, &config))?;
            Ok(true)
        }
        Ok(Loaded { missing_files: problems, notices, .. }) | Err(Refused { problems, notices }) => {
            super::notify(&notices, err)?;
            super::report(&problems, err)?;
            Ok(false)
        }
    }
}

fn summary(sources: &Sources, config: &Config) -> String {
    let file = match &sources.file {
        Some(path) => path.display().to_string(),
        None => "no config file".to_owned(),
    };
    let models: Vec<&str> = config.models.keys().map(String::as_str).collect();
    let admin = config.admin.map_or_else(|| "off".to_owned(), |address| address.to_string());
    format!(
        "{file}: ok; models: {}; nodes: {}; listen: {}; admin: {admin}",
        if models.is_empty() { "none".to_owned() } else { models.join(", ") },
        config.nodes.len(),
        config.listen,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (bool, String, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let is_ok = check(&sources, &mut out, &mut err).unwrap();
        let shown = |bytes| String::from_utf8(bytes).unwrap().replace(&name, "a.yaml");
        (is_ok, shown(out), shown(err))
    }

    #[test]
    fn a_file_with_three_mistakes_gets_all_three_with_their_places() {
        let (is_ok, out, err) = checked(
            "queue:\n  depht: 10\nmodels:\n  small: { path: 'builtin:demo', parallel: 0 }\nretry: { attempts: many }\n",
        );
        assert!(!is_ok);
        assert_eq!(out, "");
        assert_eq!(
            err.lines().collect::<Vec<_>>(),
            [
                "a.yaml:2:3: queue.depht: unknown key, did you mean \"depth\"?",
                "a.yaml:4:44: models.small.parallel: must be at least 1, found 0",
                "a.yaml:5:20: retry.attempts: expected a whole number from 0, found \"many\"",
                "3 problems in the configuration",
            ]
        );
    }

    #[test]
    fn a_missing_model_file_alone_is_a_problem_too() {
        let (is_ok, _, err) = checked("models: { small: { path: /no/such.gguf } }\n");
        assert!(!is_ok);
        assert!(err.ends_with("\n1 problem in the configuration\n"), "{err}");
    }

    #[test]
    fn notices_are_printed_whether_or_not_there_are_problems() {
        for (listen, is_sound) in [("127.0.0.1:1", true), ("here", false)] {
            let env = [("OLLAMA_MODELS", "/m"), ("ARRIERO__LISTEN", listen)];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let mut err = Vec::new();
            assert_eq!(
                check(&Sources { env, ..Sources::default() }, &mut Vec::new(), &mut err).unwrap(),
                is_sound
            );
            assert!(err.starts_with(b"OLLAMA_MODELS has no effect"));
        }
    }

    #[test]
    fn a_sound_file_is_summed_up_in_one_line() {
        let (is_ok, out, err) = checked("admin: off\nmodels: { a: { path: 'builtin:demo' } }\n");
        assert!(is_ok, "{err}");
        assert_eq!(out, "a.yaml: ok; models: a; nodes: 0; listen: 127.0.0.1:11434; admin: off\n");
    }

    #[test]
    fn nothing_at_all_is_a_sound_configuration() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert!(check(&Sources::default(), &mut out, &mut err).unwrap());
        assert!(String::from_utf8(out).unwrap().starts_with("no config file: ok; models: demo;"));
        assert_eq!(err, b"");
    }
}
