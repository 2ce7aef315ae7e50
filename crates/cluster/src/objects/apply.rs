//! Applying the log's decisions. Small and deterministic: it decides nothing, and two managers that
//! applied the same entries hold equal objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_types::network::{Network, VNI_OPTION};
use skep_types::node::Node;
use skep_types::service::Service;
use skep_types::{NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, Time, Version};

use super::index::{self, Standing, Up};
use super::{Cause, Change, NewTask, Objects, Touched};

impl Objects {
    /// Applies a committed entry of the log. One that was applied before is ignored.
    pub fn apply(&mut self, index: u64, changes: &[Change]) {
        self.apply_tracked(index, changes, &mut Touched::default());
    }

    /// [`Objects::apply`], noting what changed.
    pub(crate) fn apply_tracked(&mut self, index: u64, changes: &[Change], touched: &mut Touched) {
        if index <= self.applied {
            return;
        }
        self.applied = index;
        for change in changes {
            self.apply_one(change, touched);
        }
    }

    pub(super) fn version(&self) -> Version {
        Version(self.applied)
    }

    fn apply_one(&mut self, change: &Change, touched: &mut Touched) {
        match change {
            Change::PutCluster(cluster) => {
                let mut cluster = cluster.as_ref().clone();
                cluster.meta.version = self.version();
                self.cluster = Some(cluster);
                touched.cluster = true;
            }
            Change::PutNode(node) => self.put_node(node, touched),
            Change::RemoveNode(id) => self.remove_node(*id, touched),
            Change::PutNetwork(network) => self.put_network(network, touched),
            Change::RemoveNetwork(id) => self.remove_network(*id, touched),
            Change::PutService(service) => self.put_service(service, touched),
            Change::RemoveService(id) => self.remove_service(*id, touched),
            Change::Update { service, step, at } => self.step_update(*service, step, *at, touched),
            Change::CreateTask(task) => self.create_task(task, touched),
            Change::Allocate { task, attachments, status } => {
                self.note_given(
                    attachments.iter().map(|attachment| (attachment.network, attachment.address)),
                );
                self.change_task(*task, touched, |task| {
                    task.attachments.clone_from(attachments);
                    task.status = status.as_ref().clone();
                    status.since
                });
            }
            Change::Assign { task, node, status, generic } => self.change_task(*task, touched, |task| {
                task.node = Some(*node);
                task.generic.clone_from(generic);
                task.status = status.as_ref().clone();
                status.since
            }),
            Change::SetDesired { task, desired, at } => self.change_task(*task, touched, |task| {
                task.desired = task.desired.max(*desired);
                *at
            }),
            Change::SetStatus { task, status, at } => self.change_task(*task, touched, |task| {
                task.status = status.as_ref().clone();
                *at
            }),
            Change::RemoveTask(id) => self.remove_task(*id, touched),
            Change::Move { service, tasks, at } => {
                for task in tasks {
                    self.change_task(*task, touched, |task| {
                        task.moves = true;
                        *at
                    });
                }
                touched.services.insert(*service);
            }
            Change::Scale { service, scaled } => self.scale_service(*service, scaled, touched),
            Change::PutGuest(guest) => self.put_guest(guest, touched),
            Change::RemoveGuests(guests) => {
                for (container, network) in guests {
                    self.remove_guest(*container, *network, touched);
                }
            }
        }
    }

    fn put_node(&mut self, node: &Node, touched: &mut Touched) {
        let mut node = node.clone();
        node.meta.version = self.version();
        let id = node.id;
        let old = self.nodes.get(&id);
        touched.tunnels.entry(id).or_insert_with(|| self.tunnel_peer(id));
        self.note_node_change(&node, touched);
        let same_place = old.is_some_and(|old| looks_alike(old, &node));
        if let Some(old) = old {
            self.index.remove_node(old);
        }
        if old.and_then(|old| old.ingress_address) != node.ingress_address {
            let given = self.index.ingress.zip(node.ingress_address);
            self.note_given(given.into_iter());
        }
        self.index.add_node(&node);
        self.nodes.insert(id, node);
        touched.nodes.insert(id);
        self.note_global_slots(id, touched);
        if !same_place {
            self.index_slots_on(id, touched);
        }
    }

    fn remove_node(&mut self, id: NodeId, touched: &mut Touched) {
        touched.nodes.insert(id);
        touched.tunnels.entry(id).or_insert_with(|| self.tunnel_peer(id));
        self.note_node(id, touched);
        let guests: Vec<_> = self.guests_of(id).map(|guest| (guest.container, guest.network)).collect();
        for (container, network) in guests {
            self.remove_guest(container, network, touched);
        }
        let Some(node) = self.nodes.remove(&id) else { return };
        self.failures.values_mut().for_each(|failures| {
            failures.times.remove(&id);
        });
        self.index.remove_node(&node);
        self.note_global_slots(id, touched);
        self.index_slots_on(id, touched);
    }

    /// Notes the node's slots of services that have one for each.
    fn note_global_slots(&self, node: NodeId, touched: &mut Touched) {
        touched.slots.extend(self.index.global_services.iter().map(|service| (*service, node.slot())));
    }

    fn put_network(&mut self, network: &Network, touched: &mut Touched) {
        let mut network = network.clone();
        network.meta.version = self.version();
        self.index.network_names.insert(network.name.clone(), network.id);
        if network.ingress {
            self.note_ingress(Some(network.id), touched);
            self.set_ingress(Some(network.id));
        }
        self.last_vni =
            self.last_vni.max(Some(network.vni).filter(|_| !network.options.contains_key(VNI_OPTION)));
        touched.networks.insert(network.id);
        self.networks.insert(network.id, network);
    }

    fn remove_network(&mut self, id: NetworkId, touched: &mut Touched) {
        // Tasks of removed services may still be on their way out.
        for node in self.index.presence.get(&id).into_iter().flat_map(BTreeMap::keys) {
            self.note_held(*node, id, touched);
        }
        let is_ingress = self.index.ingress == Some(id);
        if is_ingress {
            self.note_ingress(None, touched);
        }
        let Some(network) = self.networks.remove(&id) else { return };
        self.index.network_names.remove(&network.name);
        self.last_given.remove(&id);
        if is_ingress {
            self.set_ingress(None);
        }
        touched.networks.insert(id);
    }

    /// Nodes' addresses are on whatever network is the ingress network.
    fn set_ingress(&mut self, network: Option<NetworkId>) {
        self.nodes.values().for_each(|node| self.index.remove_node(node));
        if network.is_none() {
            self.nodes.values_mut().for_each(|node| node.ingress_address = None);
        }
        self.index.ingress = network;
        self.nodes.values().for_each(|node| self.index.add_node(node));
    }

    pub(super) fn note_given(&mut self, given: impl Iterator<Item = (NetworkId, Ipv4Addr)>) {
        self.last_given.extend(given);
    }

    /// What a node is decides whether its tasks are where their services want them, and whether jobs wait for their end.
    fn index_slots_on(&mut self, node: NodeId, touched: &mut Touched) {
        let present = self.tasks_on(node).map(|task| (task.service, task.slot));
        // Also what waits for this node alone.
        let pinned = self.index.global_services.iter().map(|service| (*service, node.slot()));
        let slots: BTreeSet<(ServiceId, u64)> = present.chain(pinned).collect();
        for (service, slot) in slots {
            self.index_slot(service, slot);
            if self.services.get(&service).is_some_and(|service| service.job.is_some()) {
                touched.services.insert(service);
            }
        }
    }

    fn put_service(&mut self, service: &Service, touched: &mut Touched) {
        let mut service = service.clone();
        service.meta.version = self.version();
        let id = service.id;
        let old = self.services.get(&id);
        if !old.into_iter().flat_map(Service::ingress_ports).eq(service.ingress_ports()) {
            touched.endpoints.insert(id);
        }
        note_records(old, &service, touched);
        if let Some(old) = old {
            self.index.remove_service(old);
            touched.capacity |= old.virtual_ips.iter().any(|had| !service.virtual_ips.contains(had));
        }
        let had = old.map_or([].as_slice(), |old| old.virtual_ips.as_slice());
        let given = service.virtual_ips.iter().filter(|address| !had.contains(address));
        let given: Vec<_> = given.map(|given| (given.network, given.address)).collect();
        self.note_given(given.into_iter());
        self.index.add_service(&service);
        let mode = service.spec.mode;
        self.services.insert(id, service);
        self.supersede(id);
        let slots: Vec<u64> = self.slots_of(id).collect();
        for slot in slots {
            self.index_slot(id, slot);
            if mode.is_job() {
                // What it holds is of an older iteration now.
                touched.slots.insert((id, slot));
            }
        }
        if mode.is_global() {
            touched.slots.extend(self.nodes.keys().map(|node| (id, node.slot())));
        }
        touched.services.insert(id);
    }

    fn remove_service(&mut self, id: ServiceId, touched: &mut Touched) {
        let Some(service) = self.services.remove(&id) else { return };
        self.index.remove_service(&service);
        self.rollouts.remove(&id);
        self.failures.remove(&id);
        let slots: Vec<u64> = self.slots_of(id).collect();
        for slot in slots {
            self.restarts.remove(&(id, slot));
            self.index_slot(id, slot);
        }
        touched.services.insert(id);
        if service.ingress_ports().next().is_some() {
            touched.endpoints.insert(id);
        }
        touched.records.extend(service.spec.task.networks.iter().map(|on| (id, on.network)));
        touched.capacity = true;
    }

    fn create_task(&mut self, new: &NewTask, touched: &mut Touched) {
        let Some(service) = self.services.get(&new.service) else { return };
        let task = Task {
            id: new.id,
            meta: skep_types::Meta { version: self.version(), created_at: new.at, updated_at: new.at },
            service: new.service,
            slot: new.slot,
            node: new.node,
            spec: Arc::clone(&service.spec.task),
            spec_version: service.spec_version,
            service_name: service.spec.name.clone(),
            service_labels: service.spec.labels_for_templates(),
            desired: new.desired,
            status: new.status.clone(),
            attachments: new.attachments.clone(),
            not_before: new.not_before,
            host_ports: service.host_ports().cloned().collect(),
            generic: new.generic.clone(),
            moves: false,
            pinned: new.pinned,
            iteration: service.job.map(|job| job.iteration),
        };
        match new.cause {
            Cause::Scale => {}
            Cause::Restart if task.spec.restart.max_attempts == 0 => {}
            Cause::Restart => {
                let history = self.restarts.entry((new.service, new.slot)).or_default();
                history.record(task.spec_version, &task.spec.restart, new.at);
            }
            Cause::Update => {
                if let Some(rollout) = self.rollouts.get_mut(&new.service) {
                    rollout.watch(new.id);
                }
            }
        }
        if task.node.is_some() {
            self.note_places(task.attachments.iter().map(|given| (given.network, given.address)), touched);
        }
        self.note_given(task.attachments.iter().map(|given| (given.network, given.address)));
        self.index.add_task(&task);
        if let Some(node) = task.node.filter(|_| index::is_live(&task)) {
            self.note_presence(&task, node, true, touched);
        }
        self.enter_slot(&task);
        let (service, slot) = (task.service, task.slot);
        touched.slots.insert((service, slot));
        touched.services.insert(service);
        if task.node.is_some() {
            touched.duties.insert(task.id);
        } else {
            touched.capacity = true;
        }
        self.tasks.insert(task.id, Box::new(task));
        self.index_slot(service, slot);
    }

    /// Enters a task as the youngest of its slot. Most slots only ever have one.
    pub(super) fn enter_slot(&mut self, task: &Task) {
        let tasks = self.index.tasks_of_slot.entry((task.service, task.slot));
        tasks.or_insert_with(|| Vec::with_capacity(1)).push(task.id);
    }

    /// Changes a task and all that follows from it. `change` gives the time of the change.
    fn change_task(&mut self, id: TaskId, touched: &mut Touched, change: impl FnOnce(&mut Task) -> Time) {
        let version = self.version();
        let given = self.tasks.get(&id).into_iter().flat_map(|task| &task.attachments);
        self.note_places(given.map(|given| (given.network, given.address)), touched);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        self.index.remove_task(task);
        let before = (task.node, task.desired);
        let state = task.status.state;
        let counted = index::counts(task);
        let (was_live, was_serving) = (index::is_live(task), index::serves(task));
        let was_present = task.node.filter(|_| was_live);
        task.meta.updated_at = change(task);
        task.meta.version = version;
        self.index.add_task(task);
        let (service, slot) = (task.service, task.slot);
        if before != (task.node, task.desired) {
            touched.duties.insert(id);
        }
        if was_serving && !index::is_wanted(task) && index::is_live(task) && !task.attachments.is_empty() {
            touched.left.insert(id);
        }
        touched.capacity |=
            was_live && !index::is_live(task) || task.node.is_none() && task.status.state != state;
        // A task that is on its way out leaves its place among those that a node may have.
        touched.capacity |= counted && !index::counts(task) && task.spec.placement.max_replicas > 0;
        if let Some(node) = task.node.filter(|_| was_live && failed(task)) {
            self.failures.entry(service).or_default().record(task.spec_version, node, task.meta.updated_at);
        }
        touched.slots.insert((service, slot));
        let changes_tables = was_serving != index::serves(task);
        let is_present = task.node.filter(|_| index::is_live(task));
        let Some(task) = self.tasks.get(&id) else { return };
        if changes_tables {
            self.note_tables(task, touched);
        }
        if was_present != is_present
            && let Some(node) = was_present.or(is_present)
        {
            self.note_presence(task, node, is_present.is_some(), touched);
        }
        self.index_slot(service, slot);
    }

    fn remove_task(&mut self, id: TaskId, touched: &mut Touched) {
        let given = self.tasks.get(&id).into_iter().flat_map(|task| &task.attachments);
        self.note_places(given.map(|given| (given.network, given.address)), touched);
        let Some(task) = self.tasks.remove(&id) else { return };
        self.index.remove_task(&task);
        if let Some(node) = task.node.filter(|_| index::is_live(&task)) {
            self.note_presence(&task, node, false, touched);
        }
        self.unwatch(task.service, id);
        let key = (task.service, task.slot);
        if let Some(ids) = self.index.tasks_of_slot.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.index.tasks_of_slot.remove(&key);
                self.restarts.remove(&key);
            }
        }
        if let Some(node) = task.node {
            touched.forgotten.push((node, id));
        }
        if index::serves(&task) {
            self.note_tables(&task, touched);
        }
        touched.duties.remove(&id);
        touched.capacity |= index::is_live(&task);
        touched.slots.insert(key);
        touched.services.insert(task.service);
        self.index_slot(task.service, task.slot);
    }

    /// Notes the tables that a task is in, or was.
    fn note_tables(&self, task: &Task, touched: &mut Touched) {
        let id = task.service;
        let Some(service) = self.services.get(&id) else { return };
        if service.ingress_ports().next().is_some() {
            touched.endpoints.insert(id);
        }
        let on = service.spec.task.networks.iter().map(|on| on.network);
        let on = on.filter(|network| task.attachments.iter().any(|given| given.network == *network));
        touched.records.extend(on.map(|network| (id, network)));
    }

    pub(crate) fn slots_of(&self, service: ServiceId) -> impl Iterator<Item = u64> {
        let slots = self.index.tasks_of_slot.range((service, 0)..=(service, u64::MAX));
        slots.map(|((_, slot), _)| *slot)
    }

    /// Computes anew what a slot counts as.
    fn index_slot(&mut self, id: ServiceId, slot: u64) {
        let present = self.tasks_of_slot(id, slot).filter(|task| !self.is_past(task));
        let standing = index::representative(present).map(|task| self.standing(task));
        self.index.set_slot(id, slot, standing);
    }

    /// Whether a task may still run that was told to end. Nobody waits for a node that is down.
    fn lingers(&self, task: &Task) -> bool {
        index::is_live(task) && task.node.is_some_and(|node| !self.is_lost(node))
    }

    /// What a slot counts as that this task stands for.
    fn standing(&self, task: &Task) -> Standing {
        let Some(service) = self.services.get(&task.service) else { return Standing::Current };
        if service.job.is_some() {
            let goes_on = task.status.state != TaskState::Complete && index::is_wanted(task);
            let mut others = self.tasks_of_slot(task.service, task.slot).filter(|task| !self.is_past(task));
            let finished = !goes_on && !others.any(|task| self.lingers(task));
            return if finished { Standing::Finished } else { Standing::Current };
        }
        let node = task.node.and_then(|node| self.nodes.get(&node));
        // No update reaches a node that takes no tasks.
        let reaches = task
            .pinned
            .is_none_or(|node| self.nodes.get(&node).is_some_and(|node| index::takes_tasks(service, node)));
        if !reaches || task.is_current(service, node) && !task.moves {
            return Standing::Current;
        }
        Standing::Outdated(if index::serves(task) { Up::Yes } else { Up::No })
    }

    /// Whether a task is of an earlier iteration of its job.
    pub(crate) fn is_past(&self, task: &Task) -> bool {
        let current = |service: &Service| service.job.map(|job| job.iteration);
        task.iteration.is_some()
            && self.services.get(&task.service).is_some_and(|service| current(service) != task.iteration)
    }

    /// Computes every index but the order of the tasks in their slots.
    pub(super) fn index_all(&mut self) {
        for network in self.networks.values() {
            self.index.network_names.insert(network.name.clone(), network.id);
            if network.ingress {
                self.index.ingress = Some(network.id);
            }
        }
        for node in self.nodes.values() {
            self.index.add_node(node);
        }
        for service in self.services.values() {
            self.index.add_service(service);
        }
        for guest in self.guests.values() {
            self.index.add_guest(guest);
        }
        for task in self.tasks.values() {
            self.index.add_task(task);
        }
        let slots: Vec<(ServiceId, u64)> = self.index.tasks_of_slot.keys().copied().collect();
        for (service, slot) in slots {
            self.index_slot(service, slot);
        }
    }

    /// Whether a node is gone or does not answer, so that nobody can wait for what it carries.
    pub(crate) fn is_lost(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|node| node.state == skep_types::node::NodeState::Down)
    }
}

/// Whether a task ended by itself and not well.
fn failed(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
}

/// Whether two states of a node are the same to every service.
fn looks_alike(one: &Node, other: &Node) -> bool {
    (one.state, one.spec.availability) == (other.state, other.spec.availability)
        && (one.role(), &one.spec.labels, one.address) == (other.role(), &other.spec.labels, other.address)
        && one.description == other.description
}

/// Notes the records that a service's new specification or addresses change.
fn note_records(old: Option<&Service>, new: &Service, touched: &mut Touched) {
    let on = |service: &Service, network: NetworkId| {
        let on = service.spec.task.networks.iter().find(|on| on.network == network).cloned();
        (on, service.virtual_ips.iter().find(|given| given.network == network).cloned())
    };
    let named = old.into_iter().chain([new]).flat_map(|service| &service.spec.task.networks);
    for network in named.map(|on| on.network) {
        if old.is_none_or(|old| on(old, network) != on(new, network)) {
            touched.records.insert((new.id, network));
        }
    }
}
