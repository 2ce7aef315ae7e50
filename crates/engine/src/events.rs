//! Events of this engine: a bounded memory of the past, and subscriptions to what comes.

use skep_types::events::Event;

/// A client's view of the events it asked for.
#[derive(Debug)]
pub struct EventStream {}

impl EventStream {
    /// The next event; `None` when `until` has passed or the engine shuts down.
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }
}
