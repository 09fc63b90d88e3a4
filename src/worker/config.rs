//! The `workers` section.

/// How workers are run.
#[derive(Clone, Debug)]
pub struct WorkersConfig {}
