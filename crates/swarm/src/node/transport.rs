//! The consensus's messages over the nodes' connections.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use skep_consensus::{RaftId, Transport, TransportError};

use crate::wire::Connections;

/// Carries messages between managers.
#[derive(Debug)]
pub(crate) struct ManagerTransport {
    connections: Connections,
}

impl ManagerTransport {
    /// Over these connections.
    pub(crate) fn new(connections: Connections) -> ManagerTransport {
        ManagerTransport { connections }
    }
}

impl Transport for ManagerTransport {
    fn send(
        &self,
        _to: RaftId,
        address: &str,
        message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>> {
        let (connections, address) = (self.connections.clone(), address.to_owned());
        Box::pin(async move {
            let answered = connections.consensus(&address, message).await;
            answered.map_err(|error| TransportError { reason: error.to_string() })
        })
    }
}
