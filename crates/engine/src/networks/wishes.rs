//! Which networks a container is to be on: what was asked at its creation, and by `docker network connect` since.

use skep_types::container::{ClusterAttachment, ContainerConfig, EndpointRequest, NetworkMode};
use skep_types::network::Network;

use super::guests::Lookup;
use super::local::LocalNetwork;
use super::{Networks, PREDEFINED};
use crate::{Engine, Error, Result};

/// A network that a container is about to be connected to.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) target: Target,
    pub(crate) wish: EndpointRequest,
}

/// What is known of it.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The default bridge.
    Bridge,
    Local(Box<LocalNetwork>),
    Cluster(Box<ClusterAttachment>),
}

impl Target {
    /// A task's network: nobody wished for anything but what the managers say.
    pub(crate) fn of_task(attachment: &ClusterAttachment) -> Planned {
        let wish = EndpointRequest {
            network: attachment.network.name.clone(),
            aliases: attachment.aliases.clone(),
            ..EndpointRequest::default()
        };
        Planned { target: Target::Cluster(Box::new(attachment.clone())), wish }
    }
}

/// What a name that a user typed stands for.
enum Meant {
    Predefined(&'static str),
    Local(Box<LocalNetwork>),
    Cluster(Box<Network>),
    /// What only the managers may know.
    Unknown(String),
}

impl Meant {
    fn name(&self) -> String {
        match self {
            Meant::Predefined(name) => (*name).to_owned(),
            Meant::Local(network) => network.name.clone(),
            Meant::Cluster(network) => network.name.clone(),
            Meant::Unknown(name) => name.clone(),
        }
    }

    fn id(&self) -> String {
        match self {
            Meant::Predefined(name) => (*name).to_owned(),
            Meant::Local(network) => network.id.clone(),
            Meant::Cluster(network) => network.id.to_string(),
            Meant::Unknown(name) => name.clone(),
        }
    }
}

impl Networks {
    fn meant_here(&self, name: &str) -> Result<Option<Meant>> {
        let name = if name == "default" { "bridge" } else { name };
        let ids = [(&self.ids.bridge, "bridge"), (&self.ids.host, "host"), (&self.ids.none, "none")];
        let predefined = ids.iter().find(|(id, known)| *known == name || id.as_str() == name);
        if let Some((_, known)) = predefined {
            return Ok(Some(Meant::Predefined(known)));
        }
        if let Some(local) = self.locals.get(name) {
            return Ok(Some(Meant::Local(Box::new(local))));
        }
        let starts = |id: &str| name.len() >= 3 && id.starts_with(name);
        let mut fitting: Vec<Meant> = self
            .locals
            .all()
            .into_iter()
            .filter(|it| starts(&it.id))
            .map(|it| Meant::Local(Box::new(it)))
            .collect();
        fitting.extend(ids.iter().filter(|(id, _)| starts(id)).map(|(_, known)| Meant::Predefined(known)));
        if fitting.len() > 1 {
            return Err(Error::invalid(format!("network {name} is ambiguous")));
        }
        Ok(fitting.pop())
    }
}

impl Engine {
    async fn meant(&self, name: &str) -> Result<Meant> {
        if let Some(meant) = self.shared.networks.meant_here(name)? {
            return Ok(meant);
        }
        match self.find_in_cluster(name).await? {
            Lookup::Found(network) => Ok(Meant::Cluster(network)),
            Lookup::Unknown => Ok(Meant::Unknown(name.to_owned())),
            Lookup::Missing => Err(Error::not_found(format!("network {name} not found"))),
        }
    }

    /// Checks what a new container asks of networks and writes it down in full: every network by its name, that of the
    /// network mode first.
    ///
    /// # Errors
    /// 400, also for a network that does not exist: 404 would make clients pull the image.
    pub(crate) async fn settle_networks(&self, config: &mut ContainerConfig) -> Result<()> {
        let not_404 = |error: Error| Error { kind: crate::ErrorKind::InvalidParameter, ..error };
        let asked = std::mem::take(&mut config.host.endpoints);
        let first = match &config.host.network {
            NetworkMode::Bridge => "bridge".to_owned(),
            NetworkMode::Named(name) => name.clone(),
            NetworkMode::Cluster(_) => return Ok(()),
            NetworkMode::Host => return alone(&asked, "host"),
            NetworkMode::None => return alone(&asked, "none"),
            NetworkMode::Container(_) => return alone(&asked, "container"),
        };
        let meant = self.meant(&first).await.map_err(not_404)?;
        config.host.network = match &meant {
            Meant::Predefined("bridge") => NetworkMode::Bridge,
            Meant::Predefined("host") => NetworkMode::Host,
            Meant::Predefined(_) => NetworkMode::None,
            // As Docker: a part of an id becomes the whole.
            Meant::Local(_) | Meant::Cluster(_) | Meant::Unknown(_) if first == meant.name() => {
                NetworkMode::Named(first)
            }
            Meant::Local(_) | Meant::Cluster(_) | Meant::Unknown(_) => NetworkMode::Named(meant.id()),
        };
        if matches!(config.host.network, NetworkMode::Host | NetworkMode::None) {
            return alone(&asked, &meant.name());
        }
        let mut wishes = vec![EndpointRequest { network: meant.name(), ..EndpointRequest::default() }];
        for request in asked {
            let meant = self.meant(&request.network).await.map_err(not_404)?;
            check(&meant, &request)?;
            let wish = EndpointRequest { network: meant.name(), ..request };
            match wishes.iter_mut().find(|known| known.network == wish.network) {
                Some(known) => *known = wish,
                None => wishes.push(wish),
            }
        }
        config.host.endpoints = wishes;
        Ok(())
    }

    /// What `docker network connect` asks for, checked, with the network's own name.
    pub(crate) async fn settle_wish(&self, request: EndpointRequest) -> Result<EndpointRequest> {
        let meant = self.meant(&request.network).await?;
        check(&meant, &request)?;
        match meant {
            Meant::Predefined("host") => Err(Error::invalid(
                "cannot connect container to host network - container must be created in host network mode",
            )),
            Meant::Predefined("none") => Err(Error::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            )),
            meant => Ok(EndpointRequest { network: meant.name(), ..request }),
        }
    }

    /// The name of the network that is meant, if anything still knows it; else what was typed.
    pub(crate) async fn network_name(&self, typed: &str) -> String {
        self.meant(typed).await.map_or_else(|_| typed.to_owned(), |meant| meant.name())
    }
}

/// Refuses other networks beside one that does not go with any.
fn alone(asked: &[EndpointRequest], mode: &str) -> Result<()> {
    let other = asked
        .iter()
        .find(|request| !matches!(request.network.as_str(), "default" | "") && request.network != mode);
    match other {
        Some(other) if !other.network.starts_with("container:") => Err(Error::invalid(format!(
            "conflicting options: network {} cannot be combined with network mode {mode}",
            other.network
        ))),
        _ => Ok(()),
    }
}

/// Refuses what a network cannot do, in moby's words (`validateEndpointSettings`).
fn check(meant: &Meant, request: &EndpointRequest) -> Result<()> {
    let mut wrong = Vec::new();
    if PREDEFINED.contains(&meant.name().as_str()) {
        if request.address.is_some() {
            wrong.push("user-specified IP address is supported on user-defined networks only".to_owned());
        }
        if !request.aliases.is_empty() {
            wrong.push("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
    }
    let subnet = match meant {
        Meant::Predefined(_) | Meant::Unknown(_) => None,
        Meant::Local(network) => network.ipam.subnet,
        Meant::Cluster(network) => Some(network.subnet),
    };
    if let (Some(address), Some(subnet)) = (request.address, subnet)
        && !subnet.contains(address)
    {
        wrong.push(format!("no configured subnet contains IP address {address}"));
    }
    match meant {
        Meant::Local(network) if network.bridge.is_none() => {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        Meant::Cluster(network) if !network.attachable => {
            // Moby's words (daemon/cluster/networks.go), without the transport's.
            let name = &network.name;
            return Err(Error::forbidden(format!(
                "Could not attach to network {name}: network {name} not manually attachable"
            )));
        }
        Meant::Cluster(_) if request.mac.is_some() => {
            return Err(Error::unsupported(
                "option --mac-address on a network of the cluster is not built yet",
            ));
        }
        _ => {}
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid endpoint settings:\n{}", wrong.join("\n"))))
}
