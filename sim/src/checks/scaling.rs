//! Services whose load decides how many tasks they have.

use std::time::Duration;

use skep_cluster::{Change, Objects};
use skep_types::service::{Scaled, Service, ServiceMode};
use skep_types::{ServiceId, TaskState, Time};

use crate::user::{Scaling, scaling};
use crate::world::{Verdict, World};

/// Time at rest after which no measure from before counts.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// What is known of a service's scaling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scales {
    /// The labels and the number that its windows are about, and since when.
    about: Option<(Scaling, u64)>,
    since: Time,
    /// Whether it became more the last time at rest.
    grew: Option<bool>,
}

/// What a service's labels ask for, and its number of replicas.
fn asked(service: &Service) -> Option<(Scaling, u64)> {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return None };
    Some((scaling(&service.spec.labels)?, replicas))
}

/// A service's labels or its number may have changed: windows begin anew then.
pub(super) fn noted(world: &mut World, id: ServiceId) {
    let Some(service) = world.truth.service(id) else { return };
    let about = asked(service);
    let known = world.book.scales.entry(id).or_default();
    if about.is_some() && known.about != about {
        (known.about, known.since) = (about, world.now);
    }
}

/// When a leader proposes other numbers: they are within bounds, and come after a window in which it led itself and
/// nothing was changed.
pub(crate) fn scales(world: &World, manager: usize, changes: &[Change]) -> Verdict {
    for change in changes {
        let Change::Scale { service: id, scaled } = change else { continue };
        let Some((settings, replicas)) = world.truth.service(*id).and_then(asked) else {
            return Err(format!("service {id} is scaled, and its labels do not ask for it"));
        };
        let Scaled { from, to, .. } = **scaled;
        if from != replicas || from == to {
            return Err(format!("service {id} is scaled from {from} to {to}, and has {replicas}"));
        }
        if from == 0 || to != to.clamp(settings.min, settings.max) {
            return Err(format!("service {id} is scaled from {from} to {to}, not to its bounds"));
        }
        let bound = from.clamp(settings.min, settings.max);
        if bound != from {
            if bound == to {
                continue;
            }
            return Err(format!("service {id} with {from} replicas is scaled to {to}, not to its bounds"));
        }
        let leads_since = world.managers.get(&manager).map(|manager| manager.leads_since);
        let changed = world.book.scales.get(id).map(|known| known.since);
        let began = leads_since.max(changed).unwrap_or_default();
        let window = if to > from { settings.up_window } else { settings.down_window };
        // Clocks that are set make a window shorter.
        if world.character.skew == 0 && world.now.since(began) < window {
            let lasted = world.now.since(began);
            return Err(format!("service {id} is scaled from {from} to {to} too soon, after {lasted:?}"));
        }
    }
    Ok(())
}

/// No task is made for a number that is out of bounds.
pub(super) fn bounded(world: &World, id: ServiceId) -> Verdict {
    let Some((settings, replicas)) = world.truth.service(id).and_then(asked) else { return Ok(()) };
    if replicas == 0 || (settings.min..=settings.max).contains(&replicas) {
        return Ok(());
    }
    Err(format!("service {id} gets a task while its number, {replicas}, is out of bounds"))
}

/// At rest, where the load stays as it is, nothing is taken back.
pub(super) fn scaled(world: &mut World, id: ServiceId, scaled: &Scaled) -> Verdict {
    let rests = world.at_rest_since.is_some_and(|since| world.now.since(since) > FORGOTTEN);
    if !rests {
        return Ok(());
    }
    let known = world.book.scales.entry(id).or_default();
    let grows = scaled.to > scaled.from;
    if known.grew.replace(grows).is_some_and(|grew| grew != grows) {
        return Err(format!("service {id} flaps: from {} to {} under the same load", scaled.from, scaled.to));
    }
    Ok(())
}

/// In the end, a service's tasks carry its load as its labels say.
pub(super) fn settled(world: &World, objects: &Objects, service: &Service) -> Verdict {
    let Some((settings, replicas)) = asked(service).filter(|(_, replicas)| *replicas > 0) else {
        return Ok(());
    };
    let (name, id) = (&service.spec.name, service.id);
    if !(settings.min..=settings.max).contains(&replicas) {
        return Err(format!("service {name} ({id}) has {replicas} replicas, which is out of bounds"));
    }
    let running = objects
        .tasks_of(id)
        .filter(|task| task.desired == TaskState::Running && task.status.state == TaskState::Running);
    let all_run = running.count() as u64 == replicas;
    let Some(load) = world.loads.get(&id).filter(|_| all_run && objects.rollout(id).is_none()) else {
        return Ok(());
    };
    let too_much = replicas < settings.max && *load > 1100 * replicas;
    let too_little = replicas > settings.min && load.div_ceil(1000) < replicas;
    if too_much || too_little {
        return Err(format!(
            "service {name} ({id}) carries {load} thousandths of a load with {replicas} tasks"
        ));
    }
    Ok(())
}
