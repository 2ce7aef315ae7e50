//! The cluster as this machine's engine needs it, for containers that are no tasks.

use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use skep_engine::networks::guests::{Answer, Cluster, Lookup};
use skep_engine::{Error, ErrorKind};
use skep_types::{ContainerId, NetworkId};
use tokio::time::Instant;

use crate::swarm::{Inner, Membership};
use crate::{Swarm, SwarmError};

/// How long a container waits for managers: after a boot, its node may be on its way back still.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What the engine holds of a swarm. It does not keep it alive, as the swarm holds the engine.
struct Speaker(Weak<Inner>);

impl Speaker {
    fn swarm(&self) -> Result<Swarm, Error> {
        let inner = self.0.upgrade();
        inner.map(|inner| Swarm { inner }).ok_or_else(|| Error::internal("the daemon is ending"))
    }
}

impl Swarm {
    /// Makes a swarm speak for the cluster to its engine.
    pub(crate) fn speak_for_cluster(inner: &Arc<Inner>) {
        inner.engine.set_cluster(Arc::new(Speaker(Arc::downgrade(inner))));
    }
}

impl Cluster for Speaker {
    fn find(&self, network: &str) -> Answer<Lookup> {
        let (swarm, network) = (self.swarm(), network.to_owned());
        Box::pin(async move {
            let swarm = swarm?;
            match swarm.network(&network).await {
                Ok(network) => Ok(Lookup::Found(Box::new(network))),
                Err(SwarmError::NotFound(_)) => Ok(Lookup::Missing),
                Err(SwarmError::Unavailable(_)) => Ok(match swarm.membership() {
                    Membership::None => Lookup::Missing,
                    Membership::Joining(_)
                    | Membership::Active(_)
                    | Membership::Locked(_)
                    | Membership::Broken(_) => Lookup::Unknown,
                }),
                Err(error) => Err(refused(error)),
            }
        })
    }

    fn attach(
        &self,
        container: ContainerId,
        network: &str,
        names: Vec<String>,
        address: Option<Ipv4Addr>,
    ) -> Answer<(NetworkId, Ipv4Addr)> {
        let (swarm, network) = (self.swarm(), network.to_owned());
        Box::pin(async move {
            let swarm = swarm?;
            let deadline = Instant::now() + PATIENCE;
            loop {
                let attached = swarm.attach(container, &network, names.clone(), address).await;
                let error = match attached {
                    Ok(attached) => return Ok(attached),
                    Err(error) => error,
                };
                let hopeless = !matches!(error, SwarmError::Unavailable(_))
                    || matches!(swarm.membership(), Membership::None);
                if hopeless {
                    return Err(could_not_attach(&network, error));
                }
                if Instant::now() >= deadline {
                    return Err(Error::internal(format!(
                        "Could not attach to network {network}: no manager of the swarm answered within {} s: {error}",
                        PATIENCE.as_secs()
                    )));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn detach(&self, container: ContainerId, network: NetworkId) -> Answer<()> {
        let swarm = self.swarm();
        Box::pin(async move {
            let swarm = swarm?;
            if matches!(swarm.membership(), Membership::None) {
                return Ok(());
            }
            swarm.detach(container, network).await.map_err(refused)
        })
    }
}

fn refused(error: SwarmError) -> Error {
    let kind = match error {
        SwarmError::NotFound(_) => ErrorKind::NotFound,
        SwarmError::Conflict(_) => ErrorKind::Conflict,
        SwarmError::InvalidParameter(_) | SwarmError::Unauthorized(_) => ErrorKind::InvalidParameter,
        SwarmError::Unsupported(_) => ErrorKind::Unsupported,
        SwarmError::Unavailable(_) | SwarmError::Internal(_) => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

/// As moby says it, where it is not just that there is no such network.
fn could_not_attach(network: &str, error: SwarmError) -> Error {
    match error {
        SwarmError::NotFound(_) => Error::not_found(format!("network {network} not found")),
        error => {
            let error = refused(error);
            Error { message: format!("Could not attach to network {network}: {}", error.message), ..error }
        }
    }
}
