//! Networks that span machines: this node's part in them, and where their other addresses are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_network::Peers;
use skep_types::NetworkId;
use skep_types::assignment::Overlay;
use skep_types::network::Network;

use super::{Networks, bridge_name};
use crate::{Engine, Error, Result, blocking};

/// Under which a network of the cluster shows its VXLAN identifier.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// A data path address as VXLAN takes it.
///
/// # Errors
/// For IPv6, which it does not take yet.
pub(super) fn carrier(host: IpAddr) -> Result<Ipv4Addr> {
    match host {
        IpAddr::V4(host) => Ok(host),
        IpAddr::V6(host) => Err(Error::internal(format!(
            "data path address {host} is an IPv6 address: networks between machines are carried over IPv4 only"
        ))),
    }
}

/// What a bridge needs to know of this node's place; `None` for one that [`carrier`] refuses.
pub(super) fn of_bridge(network: &Network, overlay: &Overlay) -> Option<skep_network::Overlay> {
    let local = carrier(overlay.host).ok()?;
    let Overlay { address, port, .. } = *overlay;
    let address = address.unwrap_or(network.gateway());
    let (transport, overhead) = super::tunnel::transport(network.encrypted);
    Some(skep_network::Overlay {
        vni: network.vni,
        port,
        local,
        address,
        mtu: network.mtu,
        overhead,
        transport,
    })
}

fn carriers(peers: BTreeMap<Ipv4Addr, IpAddr>) -> Result<Peers> {
    peers.into_iter().map(|(address, host)| Ok((address, carrier(host)?))).collect()
}

impl Networks {
    fn set_peers(&self, id: NetworkId, peers: BTreeMap<Ipv4Addr, IpAddr>) -> Result<()> {
        let peers = carriers(peers)?;
        if !self.spans_machines(id)? {
            return Ok(());
        }
        let told = self.kernel().set_peers(&bridge_name(id), &peers);
        told.map_err(|error| Error::failed(format!("telling network {id} its peers"), &error))?;
        self.change_cluster(|cluster| {
            cluster.peers.insert(id, peers);
        });
        self.carry(id)
    }

    fn change_peers(
        &self,
        id: NetworkId,
        update: BTreeMap<Ipv4Addr, IpAddr>,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> Result<()> {
        let update = carriers(update)?;
        if !self.spans_machines(id)? {
            return Ok(());
        }
        let told = self.kernel().change_peers(&bridge_name(id), &update, remove);
        told.map_err(|error| Error::failed(format!("telling network {id} its peers"), &error))?;
        self.change_cluster(|cluster| {
            let peers = cluster.peers.entry(id).or_default();
            peers.retain(|address, _| !remove.contains(address));
            peers.extend(&update);
        });
        self.carry_change(id, &update, remove)
    }

    /// A node that has no place on a network cannot reach its peers; they are told again once it has one.
    fn spans_machines(&self, id: NetworkId) -> Result<bool> {
        let cluster = self.cluster();
        if !cluster.networks.contains_key(&id) {
            return Err(Error::not_found(format!("network {id} not found")));
        }
        Ok(cluster.overlays.contains_key(&id))
    }
}

impl Engine {
    /// Makes these the addresses of a network that are on other nodes, with the data path addresses of those nodes.
    /// Without a place of this node on it, nothing happens.
    ///
    /// # Errors
    /// 404 for a network that was not ensured; internal, when the kernel refuses or for an IPv6 data path address.
    pub async fn set_peers(&self, network: NetworkId, peers: BTreeMap<Ipv4Addr, IpAddr>) -> Result<()> {
        let networks = self.shared.networks.clone();
        blocking(move || networks.set_peers(network, peers)).await?
    }

    /// Changes some of them: those in `update` are new or moved, those in `remove` are on other nodes no longer.
    ///
    /// # Errors
    /// As [`Engine::set_peers`]; some of the change may have happened.
    pub async fn change_peers(
        &self,
        network: NetworkId,
        update: BTreeMap<Ipv4Addr, IpAddr>,
        remove: BTreeSet<Ipv4Addr>,
    ) -> Result<()> {
        let networks = self.shared.networks.clone();
        blocking(move || networks.change_peers(network, update, &remove)).await?
    }
}
