//! What the agents ask of their machines.

use skep_agent::{AgentEvent, AgentOutput, Launched, Operation, Watched};
use skep_types::{ContainerId, TaskId, Time};

use super::{Happening, Verdict, World};
use crate::checks;
use crate::machine::{Container, Life};
use crate::manager::EPOCH;
use crate::options::Flaw;

impl World {
    /// Tells an agent something and sets in motion what it decides.
    pub(super) fn agent(&mut self, node: usize, event: AgentEvent) -> Verdict {
        let now = self.now;
        let machine = self.machine(node);
        if !machine.up {
            return Ok(());
        }
        let AgentOutput { operations, abandoned: _, reports, acknowledged, wake_at } =
            machine.agent.step(event, now + EPOCH);
        machine.wake_at = wake_at;
        let life = machine.life;
        if let Some(at) = wake_at {
            self.at(Time(0) + at.since(Time(0) + EPOCH), Happening::AgentTick { node, life, at });
        }
        for operation in operations {
            self.begin(node, life, operation)?;
        }
        if !reports.is_empty() {
            self.report(node, reports);
        }
        if let Some(number) = acknowledged {
            self.acknowledge(node, number);
        }
        Ok(())
    }

    fn begin(&mut self, node: usize, life: u64, operation: Operation) -> Verdict {
        if let Operation::Drain { task, limit, .. } = operation {
            let (now, wait) = (self.now, self.drains_in(node, task, limit));
            if let Some(container) = self.machine(node).containers.get_mut(&task) {
                container.drains_until = Some(now + limit);
            }
            self.at(now + wait, Happening::Done { node, life, operation: Box::new(operation) });
            return Ok(());
        }
        let slow = self.unsafe_phase && self.chance.happens(60);
        let longest = match &operation {
            Operation::Prepare { .. } if slow => 20_000,
            Operation::Prepare { .. } => 200,
            Operation::Start { .. } if slow => 5000,
            Operation::Stop { task, grace, .. } => {
                checks::stopping(self, node, *task)?;
                grace.map_or(10_000, |grace| grace.as_millis() as u64)
            }
            Operation::AwaitReady { limit, .. } if slow => limit.as_millis() as u64,
            Operation::Watch { .. } => 0,
            _ => 20,
        };
        self.after(0, longest, Happening::Done { node, life, operation: Box::new(operation) });
        Ok(())
    }

    /// An operation ends. One whose daemon died meanwhile has had no effect.
    pub(super) fn done(&mut self, node: usize, life: u64, operation: Box<Operation>) -> Verdict {
        if self.machine(node).life != life {
            return Ok(());
        }
        let paused = self.machine(node).paused_until;
        if paused > self.now {
            self.at(paused, Happening::Done { node, life, operation });
            return Ok(());
        }
        match *operation {
            Operation::UpdatePeers { network, change } => {
                self.machine(node).learn_peers(network, change);
                self.agent(node, AgentEvent::PeersUpdated { network, result: Ok(()) })
            }
            Operation::UpdateRecords { network, change } => {
                self.machine(node).learn_records(network, change);
                self.agent(node, AgentEvent::RecordsUpdated { network, result: Ok(()) })
            }
            Operation::SetTunnel { tunnel, peers } => {
                let peers = peers.into_iter().map(|peer| (peer.host, peer)).collect();
                self.machine(node).tunnel = (tunnel, peers);
                self.agent(node, AgentEvent::TunnelSet { result: Ok(()) })
            }
            Operation::EnsureNetwork(network, overlay) => {
                let id = network.id;
                self.machine(node).ensure_network(network, overlay);
                self.agent(node, AgentEvent::NetworkEnsured { network: id, result: Ok(()) })
            }
            Operation::RemoveNetwork(id) => {
                checks::removing_network(self, node, id)?;
                let result = if self.machine(node).uses(id) {
                    Err(format!("network {id} has active endpoints"))
                } else {
                    self.machine(node).forget_network(id);
                    Ok(())
                };
                self.agent(node, AgentEvent::NetworkRemoved { network: id, result })
            }
            Operation::ServeEndpoint(endpoint) => {
                let service = endpoint.service;
                self.machine(node).served.insert(service, endpoint);
                self.agent(node, AgentEvent::EndpointApplied { service, result: Ok(()) })
            }
            Operation::RemoveEndpoint(service) => {
                self.machine(node).served.remove(&service);
                self.agent(node, AgentEvent::EndpointApplied { service, result: Ok(()) })
            }
            Operation::Prepare { task, .. } => {
                let id = task.id;
                let result = if self.unsafe_phase && self.chance.happens(60) {
                    Err("No such image: image:missing".to_owned())
                } else {
                    let fresh = self.ids.container();
                    let made = Container {
                        id: fresh,
                        task: *task,
                        state: Life::Created,
                        watched: false,
                        clients: Vec::new(),
                        drains_until: None,
                        sick: false,
                    };
                    Ok(self.machine(node).containers.entry(id).or_insert(made).id)
                };
                self.agent(node, AgentEvent::Prepared { task: id, result })
            }
            Operation::Start { task, container } => self.start(node, task, container),
            Operation::AwaitReady { task, .. } => {
                // Now and then a health check fails before it ever succeeded.
                let sick = self.unsafe_phase && self.chance.happens(30);
                if let Some(container) = self.machine(node).containers.get_mut(&task) {
                    container.sick = sick && container.is_running();
                }
                let result = if sick { Err("unhealthy container".to_owned()) } else { Ok(()) };
                self.agent(node, AgentEvent::Ready { task, result })
            }
            Operation::Watch { task, .. } => self.watch(node, task),
            Operation::Drain { task, .. } => self.agent(node, AgentEvent::Drained { task }),
            Operation::Stop { task, .. } => self.stop(node, task),
            Operation::Remove { task, .. } => {
                self.machine(node).containers.remove(&task);
                self.book.ends(node, task, self.now);
                self.agent(node, AgentEvent::Removed { task, result: Ok(()) })
            }
        }
    }

    fn start(&mut self, node: usize, task: TaskId, container: ContainerId) -> Verdict {
        if self.unsafe_phase && self.chance.happens(40) {
            let result = Err("OCI runtime create failed: exec: not found".to_owned());
            return self.agent(node, AgentEvent::Started { task, result });
        }
        let found = self.machine(node).containers.get_mut(&task);
        if let Some(made) = found.filter(|made| !made.is_running()) {
            made.state = Life::Running;
            self.starts += 1;
            self.tell(|| format!("node {node} starts the container of {task}"));
            checks::starting(self, node, task)?;
            self.draw_end(node, task, container);
        }
        let health = if self.chance.happens(300) { Watched::Yes } else { Watched::No };
        self.agent(node, AgentEvent::Started { task, result: Ok(Launched { pid: 1, health }) })
    }

    /// Draws when and how a container that started ends by itself, if it does. What a job runs always does.
    fn draw_end(&mut self, node: usize, task: TaskId, container: ContainerId) {
        let made = self.machine(node).containers.get(&task);
        let of_job = made.is_some_and(|made| made.task.iteration.is_some());
        let brittle = if self.is_small() { 150 } else { 5 };
        let breaks = self.busy && self.chance.happens(brittle);
        if of_job || breaks {
            let code = if breaks { i32::try_from(self.chance.below(3)).unwrap_or(0) } else { 0 };
            let longest = match (of_job, self.busy) {
                (false, _) => 30_000,
                (true, true) => 12_000,
                (true, false) => 2000,
            };
            self.after(10, longest, Happening::Exit { node, task, container, code });
        }
    }

    fn watch(&mut self, node: usize, task: TaskId) -> Verdict {
        let ended = match self.machine(node).containers.get_mut(&task) {
            None => Some(Err("No such container".to_owned())),
            Some(container) => {
                container.watched = true;
                match container.state {
                    Life::Ended { code, .. } => Some(Ok(code)),
                    Life::Created | Life::Running => None,
                }
            }
        };
        match ended {
            Some(result) => self.agent(node, AgentEvent::Exited { task, result }),
            None => Ok(()),
        }
    }

    fn stop(&mut self, node: usize, task: TaskId) -> Verdict {
        if self.options.flaw == Flaw::StopsLie && self.chance.happens(200) {
            return self.agent(node, AgentEvent::Stopped { task, result: Ok(Some(143)) });
        }
        let now = self.now;
        let mut watched = false;
        if let Some(container) = self.machine(node).containers.get_mut(&task)
            && container.is_running()
        {
            container.state = Life::Ended { code: 143, at: now, asked: true };
            watched = std::mem::take(&mut container.watched);
            let (stopped, failed) = (container.task.clone(), container.sick);
            self.book.ends(node, task, self.now);
            if !failed && !checks::forsaken(self, node, task) {
                self.book.stops(node, &stopped);
            }
        }
        self.tell(|| format!("node {node} stopped the container of {task}"));
        let exited = AgentEvent::Exited { task, result: Ok(143) };
        let stopped = AgentEvent::Stopped { task, result: Ok(Some(143)) };
        // Whoever waits for the end and whoever stops learn of it in any order.
        let (first, second) = if self.chance.happens(500) { (exited, stopped) } else { (stopped, exited) };
        for event in [first, second] {
            if watched || matches!(event, AgentEvent::Stopped { .. }) {
                self.agent(node, event)?;
            }
        }
        Ok(())
    }

    /// A container ends by itself.
    pub(super) fn exit(&mut self, node: usize, task: TaskId, id: ContainerId, code: i32) -> Verdict {
        let (now, busy) = (self.now, self.busy);
        let Some(container) = self.machine(node).containers.get_mut(&task) else { return Ok(()) };
        let of_job = container.task.iteration.is_some();
        if container.id != id || !container.is_running() || !(busy || of_job) {
            return Ok(());
        }
        container.state = Life::Ended { code, at: now, asked: false };
        let (watched, service) = (std::mem::take(&mut container.watched), container.task.service);
        self.book.ends(node, task, self.now);
        if of_job && self.chance.happens(60) {
            self.after(0, 15, Happening::Drain { node });
        }
        // An update of a job begins it anew: few, so that some have their end.
        if self.chance.happens(if of_job { 60 } else { 500 }) {
            self.after(0, 15, Happening::Deploy { service });
        }
        self.tell(|| format!("the container of {task} on node {node} exits with {code}"));
        if watched {
            return self.agent(node, AgentEvent::Exited { task, result: Ok(code) });
        }
        Ok(())
    }
}
