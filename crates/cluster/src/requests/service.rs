//! Creating, changing and removing services.

use std::collections::BTreeSet;

use skep_types::service::{
    JobStatus, PortSpec, PublishMode, Service, ServiceMode, ServiceSpec, UpdateState, UpdateStatus, VirtualIp,
};
use skep_types::{Meta, ServiceId, Version};

use super::{network, out_of_sequence, refuse, validate};
use crate::allocator::ipam;
use crate::allocator::port;
use crate::plan::Plan;
use crate::schedule::is_scheduled;
use crate::scheduler;
use crate::{Answer, Change, Refusal, RefusalKind, dependencies};

fn not_found<T>(id: ServiceId) -> Result<T, Refusal> {
    refuse(RefusalKind::NotFound, format!("service {id} not found"))
}

pub(super) fn create(plan: &mut Plan, spec: ServiceSpec) -> Result<Answer, Refusal> {
    validate::service(&spec)?;
    let holder = plan.objects.service_named(&spec.name);
    let held = holder.is_some_and(|holder| !plan.removed.contains(&holder.id));
    if held || plan.names.contains(&spec.name) {
        let message = format!("name conflicts with an existing object: service {} already exists", spec.name);
        return refuse(RefusalKind::Conflict, message);
    }
    depends(plan, &spec)?;
    let (ports, virtual_ips) = endpoint(plan, &spec, None)?;
    let id = ServiceId(plan.ids.next_u128());
    plan.names.insert(spec.name.clone());
    plan.requested.insert(id);
    let version = Version(1);
    let job = spec.mode.is_job().then_some(JobStatus {
        iteration: 0,
        last_execution: plan.now,
        spec_version: Some(if is_scheduled(&spec.labels) { Version(0) } else { version }),
    });
    plan.changes.push(Change::PutService(Box::new(Service {
        id,
        meta: Meta { version: Version(0), created_at: plan.now, updated_at: plan.now },
        spec,
        previous_spec: None,
        spec_version: version,
        ports,
        virtual_ips,
        update_status: None,
        job,
        scaled: None,
    })));
    Ok(Answer::Service(id))
}

pub(super) fn update(
    plan: &mut Plan,
    id: ServiceId,
    version: Version,
    spec: ServiceSpec,
) -> Result<Answer, Refusal> {
    let old = known(plan, id, version)?;
    validate::service(&spec)?;
    if spec.name != old.spec.name {
        return refuse(RefusalKind::Unsupported, "renaming services is not supported");
    }
    if !spec.mode.is_alike(old.spec.mode) {
        return refuse(RefusalKind::Unsupported, "service mode change is not allowed");
    }
    depends(plan, &spec)?;
    // As SwarmKit: the next update starts from nothing, also in the middle of one.
    replace(plan, old, spec, Some(old.spec.clone()), None)?;
    Ok(Answer::Done)
}

/// Takes a service back to the specification before the last change, which takes its place: to go back twice is to
/// be where one was.
pub(super) fn roll_back(plan: &mut Plan, id: ServiceId, version: Version) -> Result<Answer, Refusal> {
    let old = known(plan, id, version)?;
    let Some(previous) = &old.previous_spec else {
        return refuse(RefusalKind::Precondition, format!("service {id} does not have a previous spec"));
    };
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: plan.now,
        completed_at: None,
        message: "manually requested rollback".to_owned(),
    };
    replace(plan, old, previous.clone(), Some(old.spec.clone()), Some(status))?;
    Ok(Answer::Done)
}

/// Takes a service back because its update failed, as `message` says. As SwarmKit: what failed cannot be gone back to.
pub(crate) fn revert(plan: &mut Plan, old: &Service, message: String) -> Result<(), Refusal> {
    let Some(previous) = &old.previous_spec else {
        let message = format!("service {} does not have a previous spec", old.id);
        return refuse(RefusalKind::Precondition, message);
    };
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: old.update_status.as_ref().map_or(plan.now, |status| status.started_at),
        completed_at: None,
        message,
    };
    replace(plan, old, previous.clone(), None, Some(status))
}

/// The service that a change was made from.
fn known<'a>(plan: &Plan<'a>, id: ServiceId, version: Version) -> Result<&'a Service, Refusal> {
    let objects = plan.objects;
    let Some(known) = objects.service(id).filter(|_| !plan.removed.contains(&id)) else {
        return not_found(id);
    };
    // A second change of one batch was made from a version that the first made old.
    if known.meta.version != version || plan.requested.contains(&id) {
        return out_of_sequence();
    }
    Ok(known)
}

/// Gives a service another specification.
fn replace(
    plan: &mut Plan,
    old: &Service,
    spec: ServiceSpec,
    previous_spec: Option<ServiceSpec>,
    update_status: Option<UpdateStatus>,
) -> Result<(), Refusal> {
    let (ports, virtual_ips) = endpoint(plan, &spec, Some(old))?;
    // Also what the tasks' ports need makes them out of date.
    let of_host = |port: &&PortSpec| port.mode == PublishMode::Host;
    let publishes = |ports: &[PortSpec]| ports.iter().any(|port| port.mode == PublishMode::Ingress);
    let other_ports =
        !ports.iter().filter(of_host).eq(old.host_ports()) || publishes(&ports) && !publishes(&old.ports);
    // As SwarmKit: every update of a job runs it anew; one with a schedule waits for its time, unless it is forced. Also
    // where an earlier specification comes back the version rises: its tasks are known by what they are, and a version
    // never means two specifications.
    let runs = old.job.is_some()
        && (!is_scheduled(&spec.labels) || spec.task.force_update > old.spec.task.force_update);
    let other_run = old.job.is_some() && spec.mode != old.spec.mode;
    let raise = u64::from(spec.task != old.spec.task || other_ports || other_run || runs);
    let spec_version = Version(old.spec_version.0 + raise);
    let next = |job: JobStatus| JobStatus {
        iteration: job.iteration + 1,
        last_execution: plan.now,
        spec_version: Some(spec_version),
    };
    let job = old.job.map(|job| if runs { next(job) } else { job });
    plan.requested.insert(old.id);
    plan.changes.push(Change::PutService(Box::new(Service {
        id: old.id,
        meta: Meta { updated_at: plan.now, ..old.meta },
        previous_spec,
        spec_version,
        spec,
        ports,
        virtual_ips,
        update_status,
        job,
        scaled: old.scaled.clone(),
    })));
    Ok(())
}

pub(super) fn remove(plan: &mut Plan, id: ServiceId) -> Result<Answer, Refusal> {
    if plan.objects.service(id).is_none() || !plan.removed.insert(id) {
        return not_found(id);
    }
    plan.requested.insert(id);
    plan.changes.push(Change::RemoveService(id));
    Ok(Answer::Done)
}

pub(super) fn rebalance(plan: &mut Plan, id: ServiceId) -> Result<Answer, Refusal> {
    let objects = plan.objects;
    let Some(service) = objects.service(id).filter(|_| !plan.removed.contains(&id)) else {
        return not_found(id);
    };
    if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
        return refuse(RefusalKind::Invalid, "only services with replicas can be rebalanced");
    }
    let held = service
        .update_status
        .as_ref()
        .filter(|status| matches!(status.state, UpdateState::Paused | UpdateState::RollbackPaused));
    if let Some(status) = held {
        let message = format!("the service's update has to go on first: {}", status.message);
        return refuse(RefusalKind::Precondition, message);
    }
    if plan.requested.contains(&id) {
        return out_of_sequence();
    }
    let tasks = scheduler::surplus(objects, service, plan.now);
    if !tasks.is_empty() {
        plan.requested.insert(id);
        plan.changes.push(Change::Move { service: id, tasks, at: plan.now });
    }
    Ok(Answer::Done)
}

/// Refuses services that would wait for themselves.
fn depends(plan: &Plan, spec: &ServiceSpec) -> Result<(), Refusal> {
    let checked = dependencies::validate(plan.objects, &spec.name, &spec.labels);
    checked.or_else(|error| refuse(RefusalKind::Invalid, error))
}

/// Refuses networks that a service cannot be on.
fn refuse_networks(plan: &Plan, spec: &ServiceSpec) -> Result<(), Refusal> {
    let mut named = BTreeSet::new();
    for on in &spec.task.networks {
        let network = network::usable(plan, on.network)?;
        if network.ingress {
            let message =
                format!("Service cannot be explicitly attached to the ingress network {:?}", network.name);
            return refuse(RefusalKind::Invalid, message);
        }
        if !named.insert(on.network) {
            return refuse(RefusalKind::Invalid, format!("network {} is named twice", network.name));
        }
    }
    let publishes = spec.ports.iter().any(|port| port.mode == PublishMode::Ingress);
    let ingress = plan.objects.ingress().filter(|ingress| !plan.removed_networks.contains(&ingress.id));
    if publishes && ingress.is_none() {
        return refuse(RefusalKind::Precondition, ipam::NO_INGRESS);
    }
    Ok(())
}

/// The ports and virtual addresses of a service with this specification, which may replace an `old` one.
fn endpoint(
    plan: &mut Plan,
    spec: &ServiceSpec,
    old: Option<&Service>,
) -> Result<(Vec<PortSpec>, Vec<VirtualIp>), Refusal> {
    refuse_networks(plan, spec)?;
    let ports = port::resolve(plan, &spec.ports, old)?;
    let had = old.map_or([].as_slice(), |old| &old.virtual_ips);
    let on = &spec.task.networks;
    let virtual_ips = ipam::virtual_ips(plan, spec.endpoint_mode, on, &ports, had)
        .map_err(|message| Refusal { kind: RefusalKind::Precondition, message })?;
    plan.used_networks.extend(on.iter().map(|on| on.network));
    plan.used_networks.extend(virtual_ips.iter().map(|given| given.network));
    Ok((ports, virtual_ips))
}
