//! The wall clock, made to never run backwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use skep_types::Time;

/// Gives times that never fall, whatever becomes of the system's clock.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    latest: AtomicU64,
}

impl Clock {
    /// The time now, or the latest that was given when that lies ahead.
    pub(crate) fn now(&self) -> Time {
        let Time(now) = SystemTime::now().into();
        Time(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }
}
