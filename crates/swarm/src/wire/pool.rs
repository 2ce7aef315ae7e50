//! Connections that are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skep_identity::Credentials;
use tokio::time::Instant;

use super::CallError;
use super::channel::Channel;

/// What a connection is for. Heartbeats of the consensus do not wait behind anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Consensus,
    Calls,
}

/// One connection for each address and lane, made when first needed.
#[derive(Debug)]
pub(super) struct Pool {
    credentials: Credentials,
    slots: Mutex<HashMap<(String, Lane), Arc<Slot>>>,
}

type Slot = tokio::sync::Mutex<State>;

#[derive(Debug, Default)]
struct State {
    channel: Option<Channel>,
    /// When and why the last try to connect failed.
    failure: Option<(Instant, CallError)>,
}

impl Pool {
    pub(super) fn new(credentials: Credentials) -> Pool {
        Pool { credentials, slots: Mutex::default() }
    }

    /// A connection to `address` that stands, as far as is known.
    pub(super) async fn channel(&self, address: &str, lane: Lane) -> Result<Channel, CallError> {
        let asked = Instant::now();
        let slot = self.slot(address, lane);
        // Whoever waits here waits for the one attempt to connect, and shares what becomes of it.
        let mut state = slot.lock().await;
        let config = self.credentials.client_config();
        if let Some(channel) = state.channel.as_ref().filter(|channel| channel.is_usable(&config)) {
            return Ok(channel.clone());
        }
        if let Some((_, error)) = state.failure.as_ref().filter(|(failed, _)| *failed > asked) {
            return Err(error.clone());
        }
        let connected = Channel::connect(address, config).await;
        state.channel = connected.as_ref().ok().cloned();
        state.failure = connected.as_ref().err().map(|error| (Instant::now(), error.clone()));
        connected
    }

    fn slot(&self, address: &str, lane: Lane) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry((address.to_owned(), lane)).or_default())
    }

    /// Forgets the connections to an address; calls under way there end on their own.
    pub(super) fn forget(&self, address: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|(of, _), _| of != address);
    }
}
