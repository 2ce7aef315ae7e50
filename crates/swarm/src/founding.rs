//! What a new cluster of one starts with: ids, authority, certificate, tokens, addresses.

use std::time::SystemTime;

use skep_cluster::Request;
use skep_engine::Engine;
use skep_identity::{Files, JoinToken, Role, RootCa, SECRET_BYTES, Trust};
use skep_types::ip::Subnet;
use skep_types::node::{Member, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, Secret};
use skep_types::{ClusterId, Meta, NodeId};

use crate::addresses::{self, Place};
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
        force_new_cluster,
        spec,
    } = request;
    if force_new_cluster {
        return Err(SwarmError::Unsupported("swarm init --force-new-cluster is not built yet".to_owned()));
    }
    let interfaces = interfaces::list()
        .map_err(|error| SwarmError::Internal(format!("cannot list network interfaces: {error}")))?;
    let listen = addresses::listen(&listen_addr, &interfaces)?;
    let own: Vec<Subnet> =
        engine.networks().iter().filter_map(|network| network.subnet.as_ref()?.0.parse().ok()).collect();
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
    /// Makes the cluster's authority and this node's certificate, keeps them in `folder`, and says what the
    /// manager is to create. Blocks for some milliseconds.
    pub(crate) fn found(self, folder: &Folder) -> Result<Request, SwarmError> {
        let failed = |error: &dyn std::error::Error| SwarmError::Internal(crate::log_worker::chain(error));
        let now = SystemTime::now();
        let root = RootCa::generate(now).map_err(|error| failed(&error))?;
        let (node, cluster) = (self.record.node.to_string(), self.record.cluster.to_string());
        let certificate = root
            .issue(&node, Role::Manager, &cluster, now, self.spec.cert_expiry)
            .map_err(|error| failed(&error))?;
        let files = Files::new(folder.certificates());
        files
            .save_roots(&Trust::parse(root.certificate_pem()).map_err(|error| failed(&error))?)
            .and_then(|()| files.save_node(&certificate))
            .map_err(|error| failed(&error))?;
        let root_ca = root.certificate_pem().to_owned();
        let cluster = ClusterObject {
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
        };
        let node = Node {
            id: self.record.node,
            meta: Meta::default(),
            spec: self.node_spec,
            description: self.description,
            state: NodeState::Ready,
            message: String::new(),
            address: self.record.address,
            manager: Some(Member { raft: 1, address: self.record.advertise_addr }),
            data_path: self.record.data_path_addr,
            ingress_address: None,
        };
        Ok(Request::CreateCluster { cluster: Box::new(cluster), node: Box::new(node) })
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
        let Request::CreateCluster { cluster, node } = founding.found(&folder).expect("founded") else {
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
        let kept = Files::new(folder.certificates()).load_roots().expect("kept");
        assert_eq!(kept.pem(), cluster.authority.certificate);
    }
}
