//! Founding the cluster and changing its settings.

use std::time::Duration;

use skep_types::ip::Subnet;
use skep_types::network::{INGRESS, Network};
use skep_types::node::{Node, NodeRole};
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, Secret};
use skep_types::tunnel::{NETWORK_KEY_LIFE, NETWORK_KEYS_KEPT, NetworkKey};
use skep_types::{Meta, NetworkId, Version};

use super::{out_of_sequence, refuse};
use crate::allocator::subnet;
use crate::plan::Plan;
use crate::{Answer, Change, Refusal, RefusalKind};

/// The shortest life of a certificate: SwarmKit's.
const MIN_CERT_EXPIRY: Duration = Duration::from_secs(3600);

pub(super) fn create(plan: &mut Plan, mut cluster: ClusterObject, mut node: Node) -> Result<Answer, Refusal> {
    let founded = plan.changes.iter().any(|change| matches!(change, Change::PutCluster(_)));
    if founded || plan.objects.cluster().is_some() {
        return refuse(RefusalKind::Conflict, "the cluster exists already");
    }
    validate(&cluster.spec)?;
    if node.spec.role != NodeRole::Manager {
        return refuse(RefusalKind::Invalid, "the first node of a cluster must be a manager");
    }
    let Some(ingress) = ingress_subnet(&cluster) else {
        let message = format!("no /{} subnet fits into the default address pools", cluster.subnet_prefix);
        return refuse(RefusalKind::Invalid, message);
    };
    let meta = Meta { version: Version(0), created_at: plan.now, updated_at: plan.now };
    cluster.meta = meta;
    node.meta = meta;
    plan.changes.push(Change::PutCluster(Box::new(cluster)));
    plan.changes.push(Change::PutNetwork(Box::new(Network {
        meta,
        ingress: true,
        ..Network::new(NetworkId(plan.ids.next_u128()), INGRESS, ingress, subnet::FIRST_VNI)
    })));
    plan.nodes.insert(node.id, node);
    Ok(Answer::Done)
}

/// The first subnet of the first pool. It must hold at least a gateway and one address.
fn ingress_subnet(cluster: &ClusterObject) -> Option<Subnet> {
    let pool = cluster.address_pools.first()?;
    let fits = (pool.prefix()..=29).contains(&cluster.subnet_prefix);
    Subnet::containing(pool.network(), cluster.subnet_prefix).filter(|_| fits)
}

/// What a change of the cluster replaces besides its settings; `None` keeps what there is.
pub(super) struct Secrets {
    pub worker_token: Option<String>,
    pub manager_token: Option<String>,
    pub unlock_key: Option<Secret>,
    pub authority: Option<Box<Authority>>,
}

pub(super) fn update(
    plan: &mut Plan,
    version: Version,
    spec: ClusterSpec,
    secrets: Secrets,
) -> Result<Answer, Refusal> {
    let Some(old) = plan.objects.cluster() else {
        return refuse(RefusalKind::NotFound, "there is no cluster yet");
    };
    let changed = plan.changes.iter().any(|change| matches!(change, Change::PutCluster(_)));
    if old.meta.version != version || changed {
        return out_of_sequence();
    }
    validate(&spec)?;
    let mut cluster = old.clone();
    cluster.meta.updated_at = plan.now;
    cluster.spec = spec;
    let Secrets { worker_token, manager_token, unlock_key, authority } = secrets;
    cluster.worker_token = worker_token.unwrap_or(cluster.worker_token);
    cluster.manager_token = manager_token.unwrap_or(cluster.manager_token);
    cluster.authority = authority.map_or(cluster.authority, |authority| *authority);
    cluster.unlock_key = unlock_key.or(cluster.unlock_key).filter(|_| cluster.spec.autolock);
    if cluster.spec.autolock && cluster.unlock_key.is_none() {
        return refuse(RefusalKind::Invalid, "managers cannot be locked without a key that unlocks them");
    }
    plan.changes.push(Change::PutCluster(Box::new(cluster)));
    Ok(Answer::Done)
}

/// Adds secrets of encrypted networks. All that are kept are accepted by nodes, and the second newest is used: so nothing
/// has to wait for all nodes to know the newest.
pub(super) fn rotate_network_keys(plan: &mut Plan, keys: Vec<NetworkKey>) -> Result<Answer, Refusal> {
    let Some(old) = plan.objects.cluster() else {
        return refuse(RefusalKind::NotFound, "there is no cluster yet");
    };
    if plan.changes.iter().any(|change| matches!(change, Change::PutCluster(_))) {
        return out_of_sequence();
    }
    let last = old.network_keys.last().map_or(0, |key| key.number);
    let follows = (last + 1..).zip(&keys).all(|(number, key)| key.number == number);
    let due = last == 0 || plan.now.since(old.network_keys_at) >= NETWORK_KEY_LIFE;
    if !due || !follows || keys.is_empty() {
        return Ok(Answer::Done);
    }
    let mut cluster = old.clone();
    cluster.network_keys.extend(keys);
    let excess = cluster.network_keys.len().saturating_sub(NETWORK_KEYS_KEPT);
    cluster.network_keys.drain(..excess);
    cluster.network_keys_at = plan.now;
    plan.changes.push(Change::PutCluster(Box::new(cluster)));
    Ok(Answer::Done)
}

fn validate(spec: &ClusterSpec) -> Result<(), Refusal> {
    if spec.name != "default" {
        return refuse(RefusalKind::Invalid, "swarm spec must be named \"default\"");
    }
    if spec.cert_expiry < MIN_CERT_EXPIRY {
        return refuse(RefusalKind::Invalid, "minimum certificate expiry time is: 1h0m0s");
    }
    if spec.heartbeat.is_zero() {
        return refuse(RefusalKind::Invalid, "invalid heartbeat period: must be greater than zero");
    }
    Ok(())
}
