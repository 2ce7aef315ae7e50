//! How messages reach other members.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::RaftId;

/// Carries messages to other members and their answers back. Connections are the implementor's: it may open one
/// a call, or keep them. Calls to the same member run side by side, and a call that is given up is dropped.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to the member `to`, last known at `address`, whose [`crate::Consensus::receive`] takes it;
    /// returns what that gave back. There is no retry below this: the caller has a deadline of its own.
    fn send(
        &self,
        to: RaftId,
        address: &str,
        message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>>;
}

/// Why a message got no answer. Whether it arrived is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TransportError {
    /// What happened, in words for a log.
    pub reason: String,
}
