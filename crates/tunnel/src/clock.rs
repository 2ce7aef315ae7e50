//! The clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

use crate::exchange::Now;

/// Milliseconds since the machine booted, its sleep included, so that a session is not used after a long one.
pub(crate) fn now_ms() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { ms: now_ms(), wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX) }
}
