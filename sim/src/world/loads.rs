//! The load of services that are scaled by it: users make it, the tasks that run share it, their nodes measure it.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_cluster::Event;
use skep_types::assignment::TaskUsage;
use skep_types::service::Service;
use skep_types::{ServiceId, TaskId};

use super::{Happening, Verdict, World};
use crate::user::scaling;

/// How often nodes tell what tasks use.
const PERIOD: Duration = Duration::from_secs(2);
/// The processor time of one core in a second, in thousand-millionths.
const CORE: u64 = 1_000_000_000;
/// In the thousandths of a load of a task: what makes no difference to how many are needed, however it is rounded.
const CLEAR: u64 = 200;

impl World {
    /// All nodes tell what their tasks use, and users' demand changes now and then.
    pub(super) fn measure(&mut self) -> Verdict {
        self.at(self.now + PERIOD, Happening::Measure);
        let scaled: Vec<ServiceId> = self.truth.autoscaled().iter().copied().collect();
        if scaled.is_empty() {
            return Ok(());
        }
        for id in scaled {
            if !self.loads.contains_key(&id) || self.busy && self.chance.happens(80) {
                let load = 1000 * self.chance.below(8) + CLEAR + self.chance.below(600);
                self.tell(|| format!("service {id} has the load of {load} thousandths of a task"));
                self.loads.insert(id, load);
            }
        }
        let mut sharing: BTreeMap<ServiceId, u64> = BTreeMap::new();
        for container in self.machines.iter().flat_map(|machine| machine.containers.values()) {
            if container.is_running() {
                *sharing.entry(container.task.service).or_default() += 1;
            }
        }
        for node in 0..self.machines.len() {
            let usages = self.usages(node, &sharing);
            if !usages.is_empty() {
                self.tell_usage(node, usages)?;
            }
        }
        Ok(())
    }

    /// What the tasks on a node use, where that decides how many there are.
    fn usages(&mut self, node: usize, sharing: &BTreeMap<ServiceId, u64>) -> Vec<TaskUsage> {
        let machine = self.machine(node);
        let running = machine.containers.iter().filter(|(_, container)| container.is_running());
        let tasks: Vec<(TaskId, ServiceId)> =
            running.map(|(task, container)| (*task, container.task.service)).collect();
        let usage = |(task, id): (TaskId, ServiceId)| {
            let (load, sharing) = (self.loads.get(&id)?, sharing.get(&id)?);
            let service = self.truth.service(id)?;
            let (nano_cpus, connections) = targets(service)?;
            let share = |target: u64| load * target / 1000 / sharing;
            let milli_connections = Some(connections.map_or(0, |connections| share(1000 * connections)));
            Some(TaskUsage { task, nano_cpus: nano_cpus.map_or(0, share), milli_connections })
        };
        tasks.into_iter().filter_map(usage).collect()
    }

    /// A node tells it in its session. What is lost meanwhile is told anew soon.
    fn tell_usage(&mut self, node: usize, usages: Vec<TaskUsage>) -> Verdict {
        let lost = self.unsafe_phase && self.chance.happens(50);
        let Some(session) = self.machine(node).session.filter(|_| !lost) else { return Ok(()) };
        let awake = self.runs(session.manager) && !self.stands_still(node) && self.machine(node).up;
        if !awake || !self.hears(session.manager, node, session.number) {
            return Ok(());
        }
        let id = self.machine(node).id;
        self.step(session.manager, Event::Usage(id, usages))
    }
}

/// What each task of a service is to carry: thousand-millionths of a core, or connections a second.
fn targets(service: &Service) -> Option<(Option<u64>, Option<u64>)> {
    let scaling = scaling(&service.spec.labels)?;
    let reserved = u64::try_from(service.spec.task.reservations.nano_cpus).ok()?;
    let whole = if reserved > 0 { reserved } else { CORE };
    Some((scaling.cpu.map(|percent| whole * percent / 100), scaling.rps))
}
