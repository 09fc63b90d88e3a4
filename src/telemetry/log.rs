//! Logging: text with short times for a terminal, JSON lines otherwise; always on stderr.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::reload;

/// What Pingora says at `info` is about its own insides, once per connection.
const NOISY: [&str; 4] = ["pingora", "pingora_core", "pingora_proxy", "pingora_load_balancing"];

/// The `log` section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important lines that are written. `RUST_LOG` overrides it.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something broke.
    Error,
    /// Something is wrong but was dealt with.
    Warn,
    /// One line per request, starts and stops.
    #[default]
    Info,
    /// Decisions.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text if stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Changes the level, once logging has started.
static LEVEL: OnceLock<Box<dyn Fn(LogLevel) + Send + Sync>> = OnceLock::new();

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(config: &LogConfig) {
    let builder = tracing_subscriber::fmt().with_env_filter(current(config.level)).with_writer(stderr);
    let is_text = match config.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // Only fails if a subscriber is there already.
    let _ = if is_text {
        let builder = builder.with_ansi(stderr().is_terminal()).with_target(false).with_timer(ShortTime);
        let builder = builder.with_filter_reloading();
        remember(builder.reload_handle());
        builder.try_init()
    } else {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        remember(builder.reload_handle());
        builder.try_init()
    };
}

/// Writes lines of another level from now on; `RUST_LOG` overrides it as ever.
pub fn set_level(level: LogLevel) {
    LEVEL.get().iter().for_each(|set| set(level));
}

fn remember<S: 'static>(handle: reload::Handle<EnvFilter, S>) {
    let set = move |level| {
        // Fails only without the subscriber, and then nothing is written.
        let _ = handle.reload(current(level));
    };
    let _ = LEVEL.set(Box::new(set));
}

fn current(level: LogLevel) -> EnvFilter {
    filter(level, std::env::var("RUST_LOG").ok().as_deref())
}

/// `rust_log` where it can be understood, else `level` with Pingora kept to warnings.
fn filter(level: LogLevel, rust_log: Option<&str>) -> EnvFilter {
    let given = rust_log.filter(|directives| !directives.trim().is_empty());
    if let Some(Ok(filter)) = given.map(EnvFilter::try_new) {
        return filter;
    }
    let mut directives = level.as_str().to_owned();
    if level != LogLevel::Error {
        for target in NOISY {
            directives += &format!(",{target}=warn");
        }
    }
    EnvFilter::new(directives)
}

/// `12:34:56.789` UTC: the terminal's user knows the day.
struct ShortTime;

impl FormatTime for ShortTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let (hour, minute, second, milli) = OffsetDateTime::now_utc().to_hms_milli();
        write!(w, "{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pingora_is_kept_to_warnings_unless_less_is_asked_for() {
        let debug = filter(LogLevel::Debug, None).to_string();
        assert!(debug.contains("pingora_core=warn") && debug.contains("debug"), "{debug}");
        assert_eq!(filter(LogLevel::Error, None).to_string(), "error");
    }

    #[test]
    fn rust_log_overrides_unless_empty_or_broken() {
        assert_eq!(filter(LogLevel::Info, Some("trace")).to_string(), "trace");
        assert!(filter(LogLevel::Error, Some(" ")).to_string().contains("error"));
        assert!(filter(LogLevel::Error, Some("a=b=c")).to_string().contains("error"));
    }
}
