//! Places at which a test lets the process die.

/// A place between two steps that a crash could separate.
#[cfg(not(test))]
pub(crate) fn point(_name: &str) {}

/// Aborts the process at the place whose number the environment variable `SKEP_FAULT` gives.
#[cfg(test)]
pub(crate) fn point(_name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Ok(wanted) = std::env::var("SKEP_FAULT") else { return };
    let number = PASSED.fetch_add(1, Ordering::SeqCst);
    if wanted.parse() == Ok(number) {
        // As the kernel would: no destructor runs.
        std::process::abort();
    }
}
