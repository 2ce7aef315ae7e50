//! Answering other nodes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use skep_types::NodeId;

use super::{Answers, Credentials};

/// Listens for other nodes. Dropping it cuts all connections; [`Listener::stop`] lets calls end first.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`, port 0 for any. New connections are made with what `credentials` holds at that time.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn start<A: Answers>(
        _address: SocketAddr,
        _credentials: Credentials,
        _answers: Arc<A>,
    ) -> io::Result<Listener> {
        todo!()
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the connections of a node that was removed, or whose role changed: it comes again with what it has.
    pub(crate) fn disconnect(&self, _node: NodeId) {
        todo!()
    }

    /// Takes no more connections and no more calls, gives those under way a moment to end, then cuts them.
    pub(crate) async fn stop(self) {
        todo!()
    }
}
