//! What users may ask for, checked against the committed state and what the batch already decided.

mod cluster;
mod guest;
mod network;
mod node;
pub(crate) mod service;
mod validate;

use std::collections::BTreeSet;

use self::cluster::Secrets;
use crate::plan::Plan;
use crate::{Answer, Refusal, RefusalKind, Request, dependencies};

/// Requests granted in one entry of the log: each may carry a specification, twice, of the greatest size.
pub(crate) const MAX_SPECS_OF_BATCH: usize = 25;
/// Most changes that one request makes.
pub(crate) const MAX_CHANGES_OF_REQUEST: usize = 4;

/// Decides a request: adds what it changes to the batch, or says why not. `reachable` are the managers that
/// this one reaches, if it knows.
pub(crate) fn decide(
    plan: &mut Plan,
    reachable: Option<&BTreeSet<u64>>,
    request: Request,
) -> Result<Answer, Refusal> {
    let founds = matches!(request, Request::CreateCluster { .. });
    if !founds && plan.objects.cluster().is_none() {
        return refuse(RefusalKind::Precondition, "there is no cluster yet");
    }
    match request {
        Request::CreateCluster { cluster, node } => cluster::create(plan, *cluster, *node),
        Request::UpdateCluster { version, spec, worker_token, manager_token, unlock_key, authority } => {
            let secrets = Secrets { worker_token, manager_token, unlock_key, authority };
            cluster::update(plan, version, *spec, secrets)
        }
        Request::AddNode(node) => node::add(plan, *node),
        Request::UpdateNode { id, version, spec } => node::update(plan, reachable, id, version, *spec),
        Request::SetSeat { node, seat } => node::set_seat(plan, node, seat),
        Request::RemoveNode { id, force } => node::remove(plan, id, force),
        Request::CreateService(spec) => service::create(plan, *spec),
        Request::UpdateService { id, version, spec } => service::update(plan, id, version, *spec),
        Request::RollBackService { id, version } => service::roll_back(plan, id, version),
        Request::RemoveService(id) => service::remove(plan, id),
        Request::Rebalance(id) => service::rebalance(plan, id),
        Request::RotateNetworkKeys(keys) => cluster::rotate_network_keys(plan, keys),
        Request::CreateNetwork(spec) => network::create(plan, *spec),
        Request::RemoveNetwork(id) => network::remove(plan, id),
        Request::Attach { node, container, network, names, address } => {
            guest::attach(plan, node, container, network, names, address)
        }
        Request::Detach { node, container, network } => guest::detach(plan, node, container, network),
        Request::KeepGuests { node, guests } => guest::keep(plan, node, &guests),
    }
}

/// Whether a request is about a service that waits for others: which ones those are has to be committed.
pub(crate) fn names_others(request: &Request) -> bool {
    match request {
        Request::CreateService(spec) | Request::UpdateService { spec, .. } => {
            dependencies::names_others(&spec.labels)
        }
        _ => false,
    }
}

fn refuse<T>(kind: RefusalKind, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { kind, message: message.into() })
}

fn out_of_sequence<T>() -> Result<T, Refusal> {
    refuse(RefusalKind::OutOfSequence, "update out of sequence")
}
