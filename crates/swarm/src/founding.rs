//! What a new cluster of one starts with: ids, authority, certificate, tokens, addresses.

use std::time::SystemTime;

use skep_cluster::Request;
use skep_engine::Engine;
use skep_identity::{
    Credentials, Files, IdentityError, JoinToken, NodeCertificate, NodeKey, Role, RootCa, SECRET_BYTES, Trust,
};
use skep_types::ip::Subnet;
use skep_types::node::{Member, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, Secret};
use skep_types::tunnel::NetworkKey;
use skep_types::{ClusterId, Meta, NodeId};

use crate::addresses::{self, Place};
use crate::authority;
use crate::node::keys;
use crate::record::{Folder, Record};
use crate::{InitRequest, SwarmConfig, SwarmError, interfaces};

/// Prefix length of networks' subnets when none is asked for.
const SUBNET_PREFIX: u32 = 24;
/// Moby's upper bound: a subnet has eight addresses at least.
const SUBNET_PREFIX_MAX: u32 = 29;

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SwarmError> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| SwarmError::Internal(format!("the system has no randomness: {error}")))?;
    // getrandom(2): up to 256 bytes always arrive whole.
    assert_eq!(filled, N, "a request of at most 256 bytes is filled");
    Ok(bytes)
}

/// New secrets of encrypted networks, numbered after `last`.
pub(crate) fn network_keys(last: u64, count: u64) -> Result<Vec<NetworkKey>, SwarmError> {
    (1..=count).map(|next| Ok(NetworkKey { number: last + next, secret: random()? })).collect()
}

/// A new name in the consensus: random, and not 0.
pub(crate) fn seat() -> Result<u64, SwarmError> {
    Ok(u64::from_be_bytes(random()?).max(1))
}

/// A new join token for the cluster with this root.
pub(crate) fn join_token(root_certificate_pem: &str) -> Result<String, SwarmError> {
    Ok(JoinToken::new(root_certificate_pem, random::<SECRET_BYTES>()?).to_string())
}

/// A plan for a new cluster: validated, with nothing done yet.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(crate) record: Record,
    spec: ClusterSpec,
    address_pools: Vec<Subnet>,
    subnet_prefix: u8,
    data_path_port: u16,
    node_spec: NodeSpec,
    description: NodeDescription,
}

/// Validates all of a request and resolves its addresses.
pub(crate) fn plan(
    request: InitRequest,
    config: &SwarmConfig,
    engine: &Engine,
) -> Result<Founding, SwarmError> {
    let InitRequest {
        listen_addr,
        advertise_addr,
        data_path_addr,
        data_path_port,
        default_addr_pool,
        subnet_size,
        availability,
        // Without a swarm to make anew, this is nothing special.
        force_new_cluster: _,
        spec,
    } = request;
    let interfaces = interfaces::list()
        .map_err(|error| SwarmError::Internal(format!("cannot list network interfaces: {error}")))?;
    let listen = addresses::listen(&listen_addr, &interfaces)?;
    let own: Vec<Subnet> = engine.networks().iter().filter_map(|network| network.ipam.subnet).collect();
    let default = &config.default_advertise_addr;
    let advertise = addresses::advertise(&advertise_addr, default, listen.port, &interfaces, &own)?;
    let data_path_addr = addresses::data_path(&data_path_addr, &interfaces)?;
    let (address_pools, subnet_prefix) = pools(default_addr_pool, subnet_size)?;
    let node_spec =
        NodeSpec { name: String::new(), labels: Default::default(), role: NodeRole::Manager, availability };
    Ok(Founding {
        record: record(listen, advertise, data_path_addr)?,
        spec,
        address_pools,
        subnet_prefix,
        data_path_port: addresses::data_path_port(data_path_port)?,
        node_spec,
        description: config.description.clone(),
    })
}

fn record(
    listen: Place,
    advertise: Place,
    data_path_addr: Option<std::net::IpAddr>,
) -> Result<Record, SwarmError> {
    Ok(Record {
        cluster: ClusterId(u128::from_be_bytes(random()?)),
        node: NodeId(u128::from_be_bytes(random()?)),
        listen_addr: listen.to_string(),
        advertise_addr: advertise.to_string(),
        address: advertise.address,
        data_path_addr,
        seat: Some(seat()?),
        joined_at: Vec::new(),
    })
}

/// As moby's `validateDefaultAddrPool`.
fn pools(pools: Vec<Subnet>, size: u32) -> Result<(Vec<Subnet>, u8), SwarmError> {
    let size = if size == 0 { SUBNET_PREFIX } else { size };
    let invalid = |message: String| Err(SwarmError::InvalidParameter(message));
    if size > SUBNET_PREFIX_MAX {
        return invalid(format!("subnet size is out of range: {size}"));
    }
    for (number, pool) in pools.iter().enumerate() {
        if size < u32::from(pool.prefix()) {
            return invalid(format!("invalid CIDR: \"{pool}\". Subnet size is too small for pool: {size}"));
        }
        if let Some(other) = pools[..number].iter().find(|other| other.overlaps(*pool)) {
            return invalid(format!("invalid base pool {pool}: it overlaps with {other}"));
        }
    }
    let default = || vec!["10.0.0.0/8".parse().expect("Docker's default pool is a subnet")];
    let pools = if pools.is_empty() { default() } else { pools };
    Ok((pools, u8::try_from(size).expect("at most 29")))
}

impl Founding {
    /// Makes the cluster's authority and this node's certificate, keeps the certificate in `folder`, and says
    /// what the manager is to create. Blocks for some milliseconds. The authority's key is in the log alone.
    pub(crate) fn found(self, folder: &Folder) -> Result<(Request, Credentials, Files), SwarmError> {
        let failed = |error: IdentityError| SwarmError::internal(&error);
        let now = SystemTime::now();
        let root = RootCa::generate(now).map_err(failed)?;
        let key = NodeKey::generate().map_err(failed)?;
        let (node, cluster) = (self.record.node.to_string(), self.record.cluster.to_string());
        let csr = key.csr().map_err(failed)?;
        let chain =
            root.sign(&csr, &node, Role::Manager, &cluster, now, self.spec.cert_expiry).map_err(failed)?;
        let certificate = NodeCertificate::new(chain, &key);
        let trust = Trust::parse(root.certificate_pem()).map_err(failed)?;
        let root_ca = root.certificate_pem().to_owned();
        let mut cluster = ClusterObject {
            id: self.record.cluster,
            meta: Meta::default(),
            spec: self.spec,
            address_pools: self.address_pools,
            subnet_prefix: self.subnet_prefix,
            data_path_port: self.data_path_port,
            worker_token: join_token(&root_ca)?,
            manager_token: join_token(&root_ca)?,
            authority: Authority { certificate: root_ca, key: Some(Secret(root.key_pem())), rotation: None },
            unlock_key: None,
            network_keys: network_keys(0, 2)?,
            network_keys_at: SystemTime::now().into(),
        };
        cluster.unlock_key = authority::new_unlock_key(&cluster, &cluster.spec, false)?;
        let locked_with = cluster.unlock_key.as_ref().map(|Secret(text)| text.parse()).transpose();
        let locked_with = locked_with.expect("a new unlock key can be read");
        let files = keys::keep_first(folder, &certificate, &trust, locked_with)?;
        let credentials = Credentials::new(certificate, trust, now).map_err(failed)?;
        let description = NodeDescription { tls: keys::tls_of(&credentials), ..self.description };
        let raft = self.record.seat.expect("a founder has a seat");
        let node = Node {
            id: self.record.node,
            meta: Meta::default(),
            spec: self.node_spec,
            description,
            state: NodeState::Ready,
            message: String::new(),
            address: self.record.address,
            manager: Some(Member { raft, address: self.record.advertise_addr }),
            data_path: self.record.data_path_addr,
            ingress_address: None,
            down_since: None,
        };
        let request = Request::CreateCluster { cluster: Box::new(cluster), node: Box::new(node) };
        Ok((request, credentials, files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: &[&str], size: u32) -> String {
        let given = texts.iter().map(|text| text.parse().expect("a subnet")).collect();
        match pools(given, size) {
            Ok((pools, prefix)) => {
                let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
                format!("{} in /{prefix}", pools.join(", "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn pools_are_validated_as_moby_does() {
        assert_eq!(told(&[], 0), "10.0.0.0/8 in /24");
        assert_eq!(told(&["10.20.0.0/16", "10.30.0.0/16"], 26), "10.20.0.0/16, 10.30.0.0/16 in /26");
        assert_eq!(told(&[], 30), "subnet size is out of range: 30");
        assert_eq!(
            told(&["10.20.0.0/26"], 0),
            "invalid CIDR: \"10.20.0.0/26\". Subnet size is too small for pool: 24"
        );
        assert_eq!(
            told(&["10.20.0.0/16", "10.20.4.0/24"], 24),
            "invalid base pool 10.20.4.0/24: it overlaps with 10.20.0.0/16"
        );
    }

    #[test]
    fn a_cluster_is_founded_with_what_joiners_need() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(dir.path().to_owned());
        let place = Place { address: [192, 0, 2, 1].into(), port: 2377 };
        let founding = Founding {
            record: record(place, place, None).expect("randomness"),
            spec: ClusterSpec::default(),
            address_pools: Vec::new(),
            subnet_prefix: 24,
            data_path_port: 4789,
            node_spec: NodeSpec {
                name: String::new(),
                labels: Default::default(),
                role: NodeRole::Manager,
                availability: Default::default(),
            },
            description: NodeDescription::default(),
        };
        let expected = founding.record.clone();
        let (request, credentials, _files) = founding.found(&folder).expect("founded");
        let Request::CreateCluster { cluster, node } = request else {
            panic!("founding creates a cluster");
        };
        assert_eq!((cluster.id, node.id), (expected.cluster, expected.node));
        assert_eq!(node.manager.expect("it has a seat").address, "192.0.2.1:2377");
        let worker: JoinToken = cluster.worker_token.parse().expect("a token");
        let manager: JoinToken = cluster.manager_token.parse().expect("a token");
        assert!(
            worker.names(&cluster.authority.certificate) && manager.names(&cluster.authority.certificate)
        );
        assert!(!worker.has_secret_of(&manager));
        assert_eq!(credentials.trust().pem(), cluster.authority.certificate);
        assert_eq!(credentials.identity().node, expected.node.to_string());
    }
}
