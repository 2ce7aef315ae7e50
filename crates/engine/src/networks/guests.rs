//! Containers that are no tasks on networks of the cluster: the managers give them their addresses.
//!
//! A guest is announced before its container starts and given up after the container has ended. What cannot be told to the
//! managers then is told when they are heard again; and whatever is forgotten on the way is put right by the list of guests
//! that this node gives with each session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_types::container::{ClusterAttachment, EndpointRequest};
use skep_types::network::{Network, Stay};
use skep_types::{ContainerId, NetworkId};

use crate::containers::registry::Container;
use crate::{Engine, Error, Result};

/// What the cluster answers.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// The cluster, as containers that are no tasks need it.
pub trait Cluster: Send + Sync {
    /// The network of this name, id or unique prefix of an id.
    ///
    /// # Errors
    /// 400 for what several networks fit.
    fn find(&self, network: &str) -> Answer<Lookup>;

    /// Lets a container onto a network of this name or id under these names, at the address that it asks for or at any; one that is on it
    /// already keeps the address that it has. Waits for managers within bounds.
    ///
    /// # Errors
    /// Why the container is not let on, in Docker's words.
    fn attach(
        &self,
        container: ContainerId,
        network: &str,
        names: Vec<String>,
        address: Option<Ipv4Addr>,
    ) -> Answer<(NetworkId, Ipv4Addr)>;

    /// Takes a container off a network; one that is not on it is fine.
    ///
    /// # Errors
    /// When the managers could not be told.
    fn detach(&self, container: ContainerId, network: NetworkId) -> Answer<()>;
}

/// What is known of a network of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is this one.
    Found(Box<Network>),
    /// The cluster has none of that name, or there is no cluster.
    Missing,
    /// Only the managers know, and this node is none or hears none.
    Unknown,
}

/// How long a start waits for the network to be brought up as the managers want it, once the container was let on.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks.
const READY_PAUSE: Duration = Duration::from_millis(10);

/// First and longest wait between two attempts to tell the managers that a guest has left.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A container's standing as a guest.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// Serialises what the managers are told of this container.
    turn: tokio::sync::Mutex<()>,
    networks: Mutex<Standing>,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    /// The networks that the managers may have it on.
    on: BTreeSet<NetworkId>,
    /// Those of them that it has left.
    leaving: BTreeSet<NetworkId>,
    /// How many attempts to let it onto one are under way.
    arriving: usize,
}

impl Standing {
    /// What the managers are told of it; `None` for who is nobody's guest.
    fn stay(&self) -> Option<Stay> {
        if self.arriving > 0 {
            return Some(Stay::Arrives);
        }
        let on: BTreeSet<NetworkId> = self.on.difference(&self.leaving).copied().collect();
        (!on.is_empty()).then_some(Stay::On(on))
    }
}

impl Guest {
    fn networks(&self) -> MutexGuard<'_, Standing> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The networks that the managers may have it on.
    pub(crate) fn all(&self) -> BTreeSet<NetworkId> {
        self.networks().on.clone()
    }

    /// Notes a network that a container was found on.
    pub(crate) fn found(&self, network: NetworkId) {
        self.networks().on.insert(network);
    }
}

impl Engine {
    /// Says who speaks for the cluster.
    pub fn set_cluster(&self, cluster: Arc<dyn Cluster>) {
        *self.shared.cluster.write().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    }

    pub(crate) fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        self.shared.cluster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The containers that are guests on networks of the cluster, or about to be, and on which.
    pub fn guests(&self) -> BTreeMap<ContainerId, Stay> {
        let containers = self.shared.containers.all().into_iter();
        containers.filter_map(|it| Some((it.id(), it.guest.networks().stay()?))).collect()
    }

    /// How many containers are guests on a network of the cluster, and stay.
    pub(super) fn guests_on(&self, network: NetworkId) -> usize {
        let stays =
            |standing: &Standing| standing.on.contains(&network) && !standing.leaving.contains(&network);
        self.shared.containers.all().iter().filter(|it| stays(&it.guest.networks())).count()
    }

    /// The network of the cluster that a name stands for.
    pub(crate) async fn find_in_cluster(&self, name: &str) -> Result<Lookup> {
        match self.cluster() {
            Some(cluster) => cluster.find(name).await,
            None => Ok(Lookup::Missing),
        }
    }

    /// Lets a container onto a network of the cluster and waits until that is ready here.
    pub(crate) async fn welcome(
        &self,
        container: &Arc<Container>,
        wish: &EndpointRequest,
    ) -> Result<ClusterAttachment> {
        let name = &wish.network;
        let missing = || Error::not_found(format!("network {name} not found"));
        let cluster = self.cluster().ok_or_else(missing)?;
        let (id, guest) = (container.id(), &container.guest);
        let (network, address) = {
            let _turn = guest.turn.lock().await;
            guest.networks().arriving += 1;
            let names = container.dns_names(&wish.aliases);
            let attached = cluster.attach(id, name, names, wish.address).await;
            let mut networks = guest.networks();
            networks.arriving -= 1;
            let (network, address) = attached?;
            networks.on.insert(network);
            networks.leaving.remove(&network);
            (network, address)
        };
        if tokio::time::timeout(READY_LIMIT, self.await_network(network)).await.is_err() {
            tracing::warn!("network {name} is not ready for container {id} yet");
        }
        let found = self.shared.networks.cluster().networks.get(&network).cloned();
        let found = found.ok_or_else(|| {
            self.leave(container, [network].into());
            Error::internal(format!("network {name} was not brought up within {} s", READY_LIMIT.as_secs()))
        })?;
        Ok(ClusterAttachment { network: found, address, aliases: wish.aliases.clone() })
    }

    /// Returns once the agent has brought a network up and told its names.
    async fn await_network(&self, id: NetworkId) {
        while !self.shared.networks.is_told(id) {
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Gives a container's places on networks of the cluster up, in the background.
    pub(crate) fn leave(&self, container: &Arc<Container>, left: BTreeSet<NetworkId>) {
        let left: BTreeSet<NetworkId> = {
            let mut networks = container.guest.networks();
            let left = left.intersection(&networks.on).copied().collect();
            networks.leaving.extend(&left);
            left
        };
        for network in left {
            let (engine, container) = (self.clone(), Arc::clone(container));
            let closing = self.shared.tasks.closing();
            self.shared.tasks.spawn(async move {
                tokio::select! {
                    () = engine.see_out(&container, network) => {}
                    // The list of guests that the next daemon gives says the same.
                    () = closing => {}
                }
            });
        }
    }

    async fn see_out(&self, container: &Container, network: NetworkId) {
        let mut pause = RETRY_FIRST;
        loop {
            {
                let _turn = container.guest.turn.lock().await;
                // It may have come back meanwhile.
                if !container.guest.networks().leaving.contains(&network) {
                    return;
                }
                let told = match self.cluster() {
                    Some(cluster) => cluster.detach(container.id(), network).await,
                    None => Ok(()),
                };
                if told.is_ok() {
                    let mut networks = container.guest.networks();
                    networks.leaving.remove(&network);
                    networks.on.remove(&network);
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }
}
