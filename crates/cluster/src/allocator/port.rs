//! Published ports: each one of the mesh belongs to one service. Those that tasks publish on their own nodes are only
//! kept apart from these: the scheduler keeps them apart from each other.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use skep_types::port::Protocol;
use skep_types::service::{PortSpec, PublishMode, Service};

use crate::plan::Plan;
use crate::{Refusal, RefusalKind};

/// Ports that are given where none is asked for: SwarmKit's range.
const DYNAMIC: RangeInclusive<u16> = 30_000..=32_767;

/// Fills in the numbers that a specification leaves open, and refuses those that another service holds.
/// `service` is the one that is updated: what it holds it may keep.
pub(crate) fn resolve(
    plan: &mut Plan,
    wanted: &[PortSpec],
    service: Option<&Service>,
) -> Result<Vec<PortSpec>, Refusal> {
    let mut taken: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let mut at_tasks: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for port in wanted.iter().filter(|port| port.published_port != 0) {
        refuse_foreign(plan, port, service)?;
        let kept = if port.mode == PublishMode::Host { &mut at_tasks } else { &mut taken };
        kept.insert((port.protocol, port.published_port));
    }
    let mut resolved = Vec::with_capacity(wanted.len());
    for port in wanted {
        let published_port = match port.published_port {
            0 if port.mode == PublishMode::Ingress => {
                let published_port = open_port(plan, port, service, &taken)?;
                taken.insert((port.protocol, published_port));
                published_port
            }
            // The task's node chooses.
            published_port => published_port,
        };
        resolved.push(PortSpec { published_port, ..port.clone() });
    }
    plan.ports.extend(taken);
    plan.host_ports.extend(at_tasks);
    Ok(resolved)
}

fn refuse_foreign(plan: &Plan, port: &PortSpec, service: Option<&Service>) -> Result<(), Refusal> {
    let number = port.published_port;
    let key = (port.protocol, number);
    let at_tasks = plan.objects.index().host_ports.get(&key).into_iter().flatten();
    let at_tasks = at_tasks.filter(|_| port.mode == PublishMode::Ingress);
    let at_tasks =
        at_tasks.filter_map(|id| plan.objects.service(*id)).map(|holder| (holder, "a host-published"));
    let everywhere = plan.objects.service_at_port(port.protocol, number).map(|holder| (holder, "an ingress"));
    let is_foreign = |holder: &Service| {
        service.is_none_or(|own| own.id != holder.id) && !plan.removed.contains(&holder.id)
    };
    if let Some((holder, how)) = everywhere.into_iter().chain(at_tasks).find(|(holder, _)| is_foreign(holder))
    {
        let (name, id) = (&holder.spec.name, holder.id);
        return Err(Refusal {
            kind: RefusalKind::Invalid,
            message: format!("port '{number}' is already in use by service '{name}' ({id}) as {how} port"),
        });
    }
    if plan.ports.contains(&key) || port.mode == PublishMode::Ingress && plan.host_ports.contains(&key) {
        let message = format!("port '{number}' is already in use by a service that is being created");
        return Err(Refusal { kind: RefusalKind::Invalid, message });
    }
    Ok(())
}

/// A number for a port that asks for any: the one that it had, or the lowest free one.
fn open_port(
    plan: &Plan,
    port: &PortSpec,
    service: Option<&Service>,
    taken: &BTreeSet<(Protocol, u16)>,
) -> Result<u16, Refusal> {
    let had = service.into_iter().flat_map(|service| &service.ports).filter(|old| {
        (old.protocol, old.target_port) == (port.protocol, port.target_port)
            && DYNAMIC.contains(&old.published_port)
    });
    let free = |number: &u16| {
        let key = (port.protocol, *number);
        !taken.contains(&key) && !plan.ports.contains(&key) && !plan.host_ports.contains(&key)
    };
    if let Some(number) = had.map(|old| old.published_port).find(free) {
        return Ok(number);
    }
    let held = |number: &u16| {
        let (index, key) = (plan.objects.index(), (port.protocol, *number));
        index.ports.contains_key(&key) || index.host_ports.contains_key(&key)
    };
    DYNAMIC.clone().find(|number| free(number) && !held(number)).ok_or_else(|| Refusal {
        kind: RefusalKind::Precondition,
        message: format!(
            "no {} port left between {} and {} for target port {}",
            port.protocol,
            DYNAMIC.start(),
            DYNAMIC.end(),
            port.target_port
        ),
    })
}
