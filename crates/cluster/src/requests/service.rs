//! Creating, changing and removing services.

use skep_types::service::{PortSpec, Service, ServiceSpec, VirtualIp};
use skep_types::{Meta, ServiceId, Version};

use super::{out_of_sequence, refuse, validate};
use crate::allocator::ipam;
use crate::allocator::port;
use crate::plan::Plan;
use crate::{Answer, Change, Refusal, RefusalKind};

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
    let ports = port::resolve(plan, &spec.ports, None)?;
    let virtual_ips = virtual_ips(plan, &ports, Vec::new())?;
    let id = ServiceId(plan.ids.next_u128());
    plan.names.insert(spec.name.clone());
    plan.requested.insert(id);
    plan.changes.push(Change::PutService(Box::new(Service {
        id,
        meta: Meta { version: Version(0), created_at: plan.now, updated_at: plan.now },
        spec,
        previous_spec: None,
        spec_version: Version(1),
        ports,
        virtual_ips,
        update_status: None,
    })));
    Ok(Answer::Service(id))
}

pub(super) fn update(
    plan: &mut Plan,
    id: ServiceId,
    version: Version,
    spec: ServiceSpec,
) -> Result<Answer, Refusal> {
    let objects = plan.objects;
    let Some(old) = objects.service(id).filter(|_| !plan.removed.contains(&id)) else { return not_found(id) };
    // A second change of one batch was made from a version that the first made old.
    if old.meta.version != version || plan.requested.contains(&id) {
        return out_of_sequence();
    }
    validate::service(&spec)?;
    if spec.name != old.spec.name {
        return refuse(RefusalKind::Invalid, "renaming services is not supported");
    }
    let ports = port::resolve(plan, &spec.ports, Some(old))?;
    let virtual_ips = virtual_ips(plan, &ports, old.virtual_ips.clone())?;
    let raise = u64::from(spec.task != old.spec.task);
    plan.requested.insert(id);
    plan.changes.push(Change::PutService(Box::new(Service {
        id,
        meta: Meta { updated_at: plan.now, ..old.meta },
        previous_spec: Some(old.spec.clone()),
        spec_version: Version(old.spec_version.0 + raise),
        spec,
        ports,
        virtual_ips,
        // As SwarmKit: the next update starts from nothing, also in the middle of one.
        update_status: None,
    })));
    Ok(Answer::Done)
}

pub(super) fn remove(plan: &mut Plan, id: ServiceId) -> Result<Answer, Refusal> {
    if plan.objects.service(id).is_none() || !plan.removed.insert(id) {
        return not_found(id);
    }
    plan.requested.insert(id);
    plan.changes.push(Change::RemoveService(id));
    Ok(Answer::Done)
}

/// One virtual address on the ingress network for a service that publishes ports; none for others.
fn virtual_ips(plan: &mut Plan, ports: &[PortSpec], had: Vec<VirtualIp>) -> Result<Vec<VirtualIp>, Refusal> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    if !had.is_empty() {
        return Ok(had);
    }
    let Some(ingress) = plan.objects.ingress() else {
        return refuse(RefusalKind::Precondition, "ports cannot be published without an ingress network");
    };
    match ipam::take(plan, ingress) {
        Ok(address) => Ok(vec![VirtualIp { network: ingress.id, address }]),
        Err(reason) => refuse(RefusalKind::Precondition, reason),
    }
}
