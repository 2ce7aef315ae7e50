//! Waiting for a state, never for a time.

use std::time::{Duration, Instant};

/// Asks `state` until it gives an answer, and returns that.
///
/// # Panics
/// After `limit`, with what the last try said.
pub fn eventually<T>(what: &str, limit: Duration, mut state: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match state() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("{what}: not within {limit:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
