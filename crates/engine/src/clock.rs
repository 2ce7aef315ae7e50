//! The machine's clock.

use skep_types::Time;

/// The time now.
pub(crate) fn now() -> Time {
    std::time::SystemTime::now().into()
}
