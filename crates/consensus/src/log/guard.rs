//! Panics of the store over a damaged file, caught and told as damage.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::LogError;

thread_local! {
    /// Whether this thread is at the log's file just now.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and means that the log is damaged. A process that ends on panics must
/// let this one pass.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Does `work`. redb checks its pages when it repairs a file, not when it reads one, and panics over one that makes
/// no sense. What it worked with must not be used any more after that but to drop it, in here as well.
pub(crate) fn guarded<T>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, LogError>,
) -> Result<T, LogError> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|_| {
        let detail = "a page of it cannot be read".to_owned();
        Err(LogError::Damaged { action, detail })
    })
}
