//! Published ports: each belongs to one service.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use skep_types::port::Protocol;
use skep_types::service::{PortSpec, Service};

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
    for port in wanted.iter().filter(|port| port.published_port != 0) {
        refuse_foreign(plan, port, service)?;
        taken.insert((port.protocol, port.published_port));
    }
    let mut resolved = Vec::with_capacity(wanted.len());
    for port in wanted {
        let published_port = match port.published_port {
            0 => open_port(plan, port, service, &taken)?,
            published_port => published_port,
        };
        taken.insert((port.protocol, published_port));
        resolved.push(PortSpec { published_port, ..port.clone() });
    }
    plan.ports.extend(taken);
    Ok(resolved)
}

fn refuse_foreign(plan: &Plan, port: &PortSpec, service: Option<&Service>) -> Result<(), Refusal> {
    let number = port.published_port;
    let holder = plan.objects.service_at_port(port.protocol, number);
    let holder = holder.filter(|holder| service.is_none_or(|service| service.id != holder.id));
    if let Some(holder) = holder.filter(|holder| !plan.removed.contains(&holder.id)) {
        let (name, id) = (&holder.spec.name, holder.id);
        return Err(Refusal {
            kind: RefusalKind::Invalid,
            message: format!(
                "port '{number}' is already in use by service '{name}' ({id}) as an ingress port"
            ),
        });
    }
    if plan.ports.contains(&(port.protocol, number)) {
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
        !taken.contains(&key) && !plan.ports.contains(&key)
    };
    if let Some(number) = had.map(|old| old.published_port).find(free) {
        return Ok(number);
    }
    let held = |number: &u16| plan.objects.index().ports.contains_key(&(port.protocol, *number));
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
