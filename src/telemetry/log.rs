//! Logging: text for a terminal, JSON lines otherwise.

/// The `log` section.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default)]
pub enum LogFormat {
    /// Text if stderr is a terminal, else JSON.
    #[default]
    Auto,
}

/// Starts logging.
pub fn start(_config: &LogConfig) {}
