//! Encrypted networks: what the tunnel process is told of them. It goes on by itself while no daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::PoisonError;

use skep_network::{Peers, Transport};
use skep_tunnel::{OVERHEAD, Settings};
use skep_types::NetworkId;
use skep_types::tunnel::{Tunnel, TunnelKey, TunnelPeer};

use super::overlay::carrier;
use super::{Networks, bridge_name};
use crate::{Engine, Error, Result, blocking};

/// What VXLAN adds to a packet, which the network room counts for every overlay.
const COUNTED: u32 = 50;

/// Who carries a network's packets, and what it needs of each beside VXLAN's share.
pub(super) fn transport(encrypted: bool) -> (Transport, u32) {
    match encrypted {
        true => (Transport::Process, OVERHEAD - COUNTED),
        false => (Transport::Vxlan, 0),
    }
}

impl Networks {
    /// The handle of the tunnel process; the node's key is made when it is first asked for.
    fn tunnel(&self) -> Result<skep_tunnel::Tunnel> {
        let mut opened = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tunnel) = &*opened {
            return Ok(tunnel.clone());
        }
        let tunnel = skep_tunnel::Tunnel::open(self.tunnel_config.clone())
            .map_err(|error| Error::failed("preparing encryption", &error))?;
        *opened = Some(tunnel.clone());
        Ok(tunnel)
    }

    fn set_tunnel(&self, own: &Tunnel, peers: &[TunnelPeer]) -> Result<()> {
        let hosts: BTreeMap<_, _> =
            peers.iter().map(|peer| Ok((carrier(peer.host)?, peer.key))).collect::<Result<_>>()?;
        let host = carrier(own.host)?;
        self.tunnel()?.configure(Settings { host, port: own.port, keys: own.keys.clone(), hosts });
        Ok(())
    }

    /// Has the process carry a network as it is known here, if it is encrypted: to its addresses on other nodes by the
    /// device that its bridge has while there are some.
    pub(super) fn carry(&self, id: NetworkId) -> Result<()> {
        let (vni, peers) = {
            let cluster = self.cluster();
            let Some(network) = cluster.networks.get(&id).filter(|network| network.encrypted) else {
                return Ok(());
            };
            let spans = cluster.overlays.contains_key(&id);
            (network.vni, cluster.peers.get(&id).filter(|_| spans).cloned().unwrap_or_default())
        };
        let tunnel = self.tunnel()?;
        match peers.is_empty() {
            true => tunnel.remove_network(vni),
            false => tunnel.set_network(vni, &self.kernel().overlay_device(&bridge_name(id)), peers),
        }
        Ok(())
    }

    /// The same after a change of some of its addresses, which costs no more than they do.
    pub(super) fn carry_change(
        &self,
        id: NetworkId,
        update: &Peers,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> Result<()> {
        let (vni, is_reached) = {
            let cluster = self.cluster();
            let Some(network) = cluster.networks.get(&id).filter(|network| network.encrypted) else {
                return Ok(());
            };
            (network.vni, cluster.peers.get(&id).is_some_and(|peers| !peers.is_empty()))
        };
        let tunnel = self.tunnel()?;
        if !is_reached || !tunnel.carries(vni) {
            return self.carry(id);
        }
        tunnel.change_network(vni, update, remove);
        Ok(())
    }

    /// Has it carry a network no longer that is about to go.
    pub(super) fn carry_no_longer(&self, vni: u32) {
        // One that was never opened was never told of it.
        if let Some(tunnel) = &*self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) {
            tunnel.remove_network(vni);
        }
    }
}

impl Engine {
    /// This machine's public key, which other nodes of its cluster must know for encrypted networks.
    ///
    /// # Errors
    /// Internal, when the key cannot be read or made.
    pub async fn tunnel_key(&self) -> Result<TunnelKey> {
        let networks = self.shared.networks.clone();
        blocking(move || networks.tunnel().map(|tunnel| tunnel.public_key())).await?
    }

    /// Sets this node's own part in encrypted networks and all other nodes that it may speak with. Without a part,
    /// nothing is done: encrypted networks go before it does.
    ///
    /// # Errors
    /// Internal, when the key cannot be read or made, and for an IPv6 data path address.
    pub async fn set_tunnel(&self, own: Option<Tunnel>, peers: Vec<TunnelPeer>) -> Result<()> {
        let Some(own) = own else { return Ok(()) };
        let networks = self.shared.networks.clone();
        blocking(move || networks.set_tunnel(&own, &peers)).await?
    }
}
