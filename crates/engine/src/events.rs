//! Events of this engine: a bounded memory of the past, and subscriptions to what comes.
//!
//! A subscription is a position in that memory, not a queue of its own: a client that reads slowly costs no
//! memory. One that falls behind by more than the memory holds misses the oldest events; the log says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_types::Time;
use skep_types::events::{Event, EventKind, Scope};
use tokio::sync::watch;

use crate::clock::now;
use crate::options::EventQuery;

/// How many past events are kept. Docker keeps 256.
const EVENT_MEMORY_LIMIT: usize = 1024;

/// How many bytes of text they may have together: an exec's event holds its whole command, which may be a long script.
const EVENT_BYTES_LIMIT: usize = 1 << 20;

/// What a subscriber waits on: level-triggered, so that no wake-up is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Number of the event that comes next.
    next: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Memory {
    /// Number of the oldest event in `events`.
    first: u64,
    events: VecDeque<Event>,
    /// Of their text.
    bytes: usize,
}

/// Bytes of an event's text.
fn weight(event: &Event) -> usize {
    let attributes = event.attributes.iter().map(|(name, value)| name.len() + value.len());
    event.action.len() + event.id.len() + attributes.sum::<usize>()
}

/// The events of an engine. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    memory: Arc<Mutex<Memory>>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { memory: Arc::default(), progress: Arc::new(watch::Sender::new(Progress::default())) }
    }

    /// Tells of something that happened now on this machine.
    pub(crate) fn emit(
        &self,
        kind: EventKind,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, id) = (action.into(), id.into());
        self.push(Event { kind, action, id, attributes, scope: Scope::Local, time: now() });
    }

    fn push(&self, event: Event) {
        let mut memory = lock(&self.memory);
        memory.bytes += weight(&event);
        while memory.events.len() == EVENT_MEMORY_LIMIT || memory.bytes > EVENT_BYTES_LIMIT {
            // One that is too large by itself is kept alone.
            let Some(oldest) = memory.events.pop_front() else { break };
            memory.bytes -= weight(&oldest);
            memory.first += 1;
        }
        memory.events.push_back(event);
        let next = memory.first + memory.events.len() as u64;
        // Inside the lock, so that numbers are announced in order.
        self.progress.send_modify(|progress| progress.next = next);
    }

    /// Ends every subscription.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// How many clients follow.
    pub(crate) fn listeners(&self) -> usize {
        self.progress.receiver_count()
    }

    /// Follows events.
    pub(crate) fn subscribe(&self, query: EventQuery) -> EventStream {
        let memory = lock(&self.memory);
        let position = match query.since {
            Some(_) => memory.first,
            None => memory.first + memory.events.len() as u64,
        };
        EventStream { memory: Arc::clone(&self.memory), progress: self.progress.subscribe(), position, query }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    // Nothing panics while it is held half-changed, so a poisoned memory is still whole.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's view of the events it asked for.
#[derive(Debug)]
pub struct EventStream {
    memory: Arc<Mutex<Memory>>,
    progress: watch::Receiver<Progress>,
    /// Number of the event to be read next.
    position: u64,
    query: EventQuery,
}

impl EventStream {
    /// The next event; `None` when `until` has passed or the engine shuts down.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let progress = *self.progress.borrow_and_update();
            while let Some(event) = self.take() {
                if self.query.until.is_some_and(|until| event.time > until) {
                    return None;
                }
                if self.query.since.is_none_or(|since| event.time >= since) {
                    return Some(event);
                }
            }
            if progress.closed {
                return None;
            }
            match self.query.until {
                None => self.progress.changed().await.ok()?,
                Some(until) => {
                    let left = until.since(now());
                    if left == Duration::ZERO {
                        return None;
                    }
                    match tokio::time::timeout(left, self.progress.changed()).await {
                        Ok(changed) => changed.ok()?,
                        Err(_) => return None,
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Option<Event> {
        let memory = lock(&self.memory);
        if self.position < memory.first {
            let missed = memory.first - self.position;
            tracing::warn!("a client that follows events is too slow: it missed {missed} of them");
            self.position = memory.first;
        }
        let event = memory.events.get((self.position - memory.first) as usize)?.clone();
        self.position += 1;
        Some(event)
    }
}

/// Attributes from pairs.
pub(crate) fn attributes<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The whole seconds from `start` to `end`, as events give durations.
pub(crate) fn whole_seconds(start: Option<Time>, end: Time) -> String {
    start.map_or(0, |start| end.since(start).as_secs()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event {
            kind: EventKind::Container,
            action: "start".to_owned(),
            id: number.to_string(),
            attributes: BTreeMap::new(),
            scope: Scope::Local,
            time: Time(number),
        }
    }

    async fn read(stream: &mut EventStream) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(event) = stream.next().await {
            numbers.push(event.time.0);
        }
        numbers
    }

    #[tokio::test]
    async fn the_past_is_replayed_between_its_bounds() {
        let events = Events::new();
        (1..=9).for_each(|number| events.push(event(number)));
        let query = EventQuery { since: Some(Time(3)), until: Some(Time(5)) };
        assert_eq!(read(&mut events.subscribe(query)).await, [3, 4, 5]);
    }

    #[tokio::test]
    async fn without_since_only_what_comes_is_seen() {
        let events = Events::new();
        events.push(event(1));
        let mut stream = events.subscribe(EventQuery::default());
        events.push(event(2));
        events.close();
        assert_eq!(read(&mut stream).await, [2]);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_a_slow_reader_misses_the_oldest() {
        let events = Events::new();
        let mut stream = events.subscribe(EventQuery::default());
        let last = EVENT_MEMORY_LIMIT as u64 + 10;
        (1..=last).for_each(|number| events.push(event(number)));
        events.close();
        assert_eq!(read(&mut stream).await, (11..=last).collect::<Vec<_>>());
        assert_eq!(lock(&events.memory).events.len(), EVENT_MEMORY_LIMIT);
    }

    #[tokio::test]
    async fn long_commands_are_forgotten_sooner() {
        let events = Events::new();
        let mut stream = events.subscribe(EventQuery::default());
        for number in 1..=100 {
            events.push(Event { action: "x".repeat(EVENT_BYTES_LIMIT / 4), ..event(number) });
        }
        assert_eq!(lock(&events.memory).events.len(), 3);
        events.push(Event { action: "x".repeat(EVENT_BYTES_LIMIT * 2), ..event(101) });
        (102..=103).for_each(|number| events.push(event(number)));
        events.close();
        assert_eq!(read(&mut stream).await, [102, 103]);
        assert!(lock(&events.memory).bytes < 100);
    }

    #[tokio::test]
    async fn a_stream_ends_when_until_comes() {
        let events = Events::new();
        let mut stream =
            events.subscribe(EventQuery { since: None, until: Some(now() + Duration::from_millis(20)) });
        assert_eq!(stream.next().await, None);
    }
}
