//! The cluster-wide networks, and this node's guests on them.

use std::net::Ipv4Addr;

use skep_cluster::{Answer, Request};
use skep_types::network::{Network, NetworkSpec};
use skep_types::{ContainerId, NetworkId};

use crate::lookup::find;
use crate::wire::GuestCall;
use crate::{Swarm, SwarmError};

impl Swarm {
    /// The cluster-wide networks, ordered by id; none where this node is no manager.
    pub async fn networks(&self) -> Vec<Network> {
        self.read(|objects| objects.networks().cloned().collect()).await.unwrap_or_default()
    }

    /// The cluster-wide network with this id, name or unique id prefix.
    ///
    /// # Errors
    /// 404 `network x not found`; 400 when several match; 503 when this node is no manager.
    pub async fn network(&self, name: &str) -> Result<Network, SwarmError> {
        self.read(|objects| {
            let networks: Vec<&Network> = objects.networks().collect();
            let found = find("network", name, networks.iter(), |it| it.id, |it| it.name.clone());
            found.map(|network| Network::clone(network))
        })
        .await?
    }

    /// Creates a cluster-wide network; returns once it is durable.
    ///
    /// # Errors
    /// 409 for a name in use; 400 for a specification that makes no sense, overlaps or finds no addresses; 503 when
    /// this node is no manager.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, SwarmError> {
        match self.manager()?.request(Request::CreateNetwork(Box::new(spec))).await? {
            Answer::Network(id) => Ok(id),
            Answer::Done | Answer::Service(_) | Answer::Attached(_) => {
                Err(SwarmError::Internal("a created network has no id".to_owned()))
            }
        }
    }

    /// Removes a cluster-wide network that nothing uses.
    ///
    /// # Errors
    /// 404; 400 where a service, a task or a guest uses it; 503 when this node is no manager.
    pub async fn remove_network(&self, id: NetworkId) -> Result<(), SwarmError> {
        self.manager()?.request(Request::RemoveNetwork(id)).await.map(|_| ())
    }

    /// Lets a container of this node that is no task onto the attachable network with this id or name, or changes what
    /// it is called there. Works on every node of a swarm. The network's duties reach the node by its session, perhaps
    /// after this returns.
    ///
    /// # Errors
    /// 404 for an unknown network; 400 for one that is not attachable or has no such address free; 503 outside a swarm
    /// or without a leader.
    pub async fn attach(
        &self,
        container: ContainerId,
        network: &str,
        names: Vec<String>,
        address: Option<Ipv4Addr>,
    ) -> Result<(NetworkId, Ipv4Addr), SwarmError> {
        let call = GuestCall::Attach { container, network: network.to_owned(), names, address };
        let attached = self.resident()?.shared.ask_about_guests(call).await?;
        attached.ok_or_else(|| SwarmError::Internal("an attached container has no address".to_owned()))
    }

    /// Takes a container of this node off a network; that it is not on it is no error.
    ///
    /// # Errors
    /// 503 outside a swarm or without a leader.
    pub async fn detach(&self, container: ContainerId, network: NetworkId) -> Result<(), SwarmError> {
        self.resident()?.shared.ask_about_guests(GuestCall::Detach { container, network }).await.map(drop)
    }
}
