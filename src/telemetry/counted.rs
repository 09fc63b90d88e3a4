//! [`Counted`]: one more on a gauge while it lives.

use prometheus::IntGauge;

/// One more on a gauge; dropping it takes it off again.
pub struct Counted(IntGauge);

impl Counted {
    /// Counts one.
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
