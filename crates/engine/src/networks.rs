//! Networks that this machine knows: bridge, host, none, and cluster networks that tasks here use.

use skep_types::assignment::Endpoint;
use skep_types::network::Network;
use skep_types::{NetworkId, ServiceId};

use crate::view::NetworkView;
use crate::{Engine, Result};

impl Engine {
    /// All networks of this machine, by name.
    pub fn networks(&self) -> Vec<NetworkView> {
        todo!()
    }

    /// One network, by name, id or unique prefix of an id.
    ///
    /// # Errors
    /// 404 `network x not found`.
    pub fn inspect_network(&self, _name: &str) -> Result<NetworkView> {
        todo!()
    }

    /// Makes sure that tasks here can be attached to a cluster network. Repeating it changes nothing.
    ///
    /// # Errors
    /// Internal, when the kernel refuses.
    pub async fn ensure_network(&self, _network: &Network) -> Result<()> {
        todo!()
    }

    /// Forgets a cluster network. One that is not there is fine.
    ///
    /// # Errors
    /// Conflict while containers run on it; internal, when the kernel refuses.
    pub async fn remove_network(&self, _id: NetworkId) -> Result<()> {
        todo!()
    }

    /// Serves the published ports of a service with exactly these backends, in turn.
    ///
    /// # Errors
    /// Conflict for a port that another process or container holds.
    pub async fn serve_endpoint(&self, _endpoint: &Endpoint) -> Result<()> {
        todo!()
    }

    /// Serves a service no longer. One that is not served is fine.
    ///
    /// # Errors
    /// Internal, when the kernel refuses.
    pub async fn remove_endpoint(&self, _service: ServiceId) -> Result<()> {
        todo!()
    }
}
