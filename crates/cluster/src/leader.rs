//! What only the leader holds, and only while it leads: what waits to be decided, and what has to be
//! looked at. All of it can be found again from the objects and from agents that report anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use skep_types::assignment::{Assignment, StatusReport, TaskUsage};
use skep_types::node::{Node, NodeDescription, NodeState};
use skep_types::service::Service;
use skep_types::{NodeId, ServiceId, TaskId, TaskState, TaskStatus, Time};

use crate::allocator::ipam;
use crate::delays::Delays;
use crate::dispatcher::Dispatcher;
use crate::draining::{PATIENCE, RoundId};
use crate::objects::{Group, Touched};
use crate::orchestrator::autoscale::{self, Meters};
use crate::orchestrator::restart::MISPLACED;
use crate::orchestrator::{self, cron, slot, updater};
use crate::plan::{Full, Plan};
use crate::requests::{self, MAX_CHANGES_OF_REQUEST, MAX_SPECS_OF_BATCH};
use crate::scheduler::{self, Placed};
use crate::timers::{Timer, Timers};
use crate::{Change, Objects, Reply, Request, RequestId, SeatStep, seats, tasks};

/// Bytes of an agent's message or error that are kept.
const MAX_STATUS_TEXT: usize = 4096;

/// Time after which a manager's seat that was not taken away is asked for again: SwarmKit's interval.
const SEAT_PATIENCE: Duration = Duration::from_secs(5);

/// Heartbeats for which a new leader waits for a node that it has not heard of.
const UNKNOWN_BEATS: u32 = 10;
/// What is said of such a node; SwarmKit's words.
const UNKNOWN: &str = "Node moved to \"unknown\" state due to leadership change in cluster";
/// Why such a node is down after that; SwarmKit's words.
const UNHEARD: &str = "heartbeat failure for node in \"unknown\" state";

/// The last that was heard of a node.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Ready {
        description: Box<NodeDescription>,
        address: IpAddr,
        data_path: Option<IpAddr>,
    },
    Lost {
        reason: String,
    },
    /// It has not been heard of since this manager leads.
    Unheard,
}

/// Time that a node is down until nobody waits for its tasks: SwarmKit's `defaultNodeDownPeriod`.
pub(crate) const NODE_DOWN_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// A leader's memory.
#[derive(Debug, Default)]
pub(crate) struct Leader {
    pub requests: VecDeque<(RequestId, Request)>,
    pub reports: BTreeMap<TaskId, TaskStatus>,
    pub news: BTreeMap<NodeId, News>,
    pub dispatcher: Dispatcher,
    pub timers: Timers,
    delays: Delays,
    /// The last time that it was told.
    now: Time,
    /// Services to be looked at.
    services: BTreeSet<ServiceId>,
    /// Slots to be looked at.
    slots: BTreeSet<(ServiceId, u64)>,
    /// Whether tasks that wait for addresses or a node may find some now.
    capacity: bool,
    explained: BTreeMap<Group, String>,
    /// Services whose tasks wait for other services.
    held: BTreeSet<ServiceId>,
    /// The managers that this one reaches, once it was told.
    reachable: Option<BTreeSet<u64>>,
    /// Whether seats of the managers' consensus may have to be taken away.
    seats: bool,
    meters: Meters,
    /// Services whose load is to be weighed.
    weigh: BTreeSet<ServiceId>,
    /// Nodes not heard of since this manager leads.
    pub unheard: BTreeSet<NodeId>,
    /// Nodes that have been down for [`NODE_DOWN_PERIOD`].
    abandoned: BTreeSet<NodeId>,
}

impl Leader {
    /// A manager that begins to lead: it looks at everything once, and waits for every node's agent.
    pub fn new(objects: &Objects, now: Time) -> Leader {
        let mut leader = Leader { now, ..Leader::default() };
        // What the last leader knew of the nodes is history.
        let silent = objects.nodes().filter(|node| node.state != NodeState::Down);
        leader.unheard.extend(silent.map(|node| node.id));
        let beat = objects.cluster().map_or(Duration::ZERO, |cluster| cluster.spec.heartbeat);
        for node in &leader.unheard {
            leader.news.insert(*node, News::Unheard);
            leader.timers.set(Timer::Node(*node), Some(now + beat * UNKNOWN_BEATS));
        }
        let round = leader.dispatcher.begin(objects, &leader.unheard);
        leader.await_tables(round, now);
        leader.look_at_everything(objects);
        leader
    }

    /// What an applied entry means for the nodes.
    pub fn tell(&mut self, objects: &Objects, touched: &Touched, now: Time) -> Vec<(NodeId, Assignment)> {
        let (sends, round) = self.dispatcher.differences(objects, touched);
        self.await_tables(round, now);
        sends
    }

    fn await_tables(&mut self, round: Option<RoundId>, now: Time) {
        if let Some(round) = round {
            self.timers.set(Timer::Tables(round), Some(now + PATIENCE));
        }
    }

    /// Opens the session of a node that made itself heard. Gives what it is to be sent.
    pub fn hear(&mut self, objects: &Objects, node: NodeId, news: News) -> Assignment {
        if objects.node(node).is_none() {
            return Assignment::Complete(Vec::new());
        }
        self.unheard.remove(&node);
        self.timers.set(Timer::Node(node), None);
        self.news.insert(node, news);
        self.dispatcher.open(objects, node)
    }

    /// Sees how long is to be waited for a node's tasks. The time does not begin anew with a leader, as it does in
    /// SwarmKit, nor lasts longer than anew where another clock was ahead.
    fn await_node(&mut self, id: NodeId, node: Option<&Node>) {
        let timer = Timer::Orphans(id);
        let Some(node) = node.filter(|node| node.state == NodeState::Down) else {
            self.abandoned.remove(&id);
            self.timers.set(timer, None);
            return;
        };
        if !self.abandoned.contains(&id) && !self.timers.is_set(timer) {
            // An older version did not note when a node went down.
            let since = node.down_since.unwrap_or(node.meta.updated_at).min(self.now);
            self.timers.set(timer, Some(since + NODE_DOWN_PERIOD));
        }
    }

    /// Ends all that a node that left the cluster has here.
    pub fn forget_node(&mut self, node: NodeId) {
        self.unheard.remove(&node);
        self.timers.set(Timer::Node(node), None);
        self.news.remove(&node);
        self.dispatcher.close(node);
    }

    /// Looks at everything once more.
    pub fn look_at_everything(&mut self, objects: &Objects) {
        self.services.extend(objects.services().map(|service| service.id));
        self.slots.extend(objects.index().tasks_of_slot.keys());
        for service in &objects.index().global_services {
            self.slots.extend(objects.nodes().map(|node| (*service, node.id.slot())));
        }
        objects.nodes().for_each(|node| self.await_node(node.id, Some(node)));
        self.capacity = true;
        self.seats = true;
        self.explained.clear();
    }

    /// Learns which managers this one reaches.
    pub fn reaches(&mut self, managers: BTreeSet<u64>) {
        self.reachable = Some(managers);
        self.seats = true;
    }

    /// What is to be done about managers' seats now. What was asked for is only asked for again after a while.
    pub fn seat_steps(&mut self, objects: &Objects, now: Time) -> Vec<SeatStep> {
        let Some(reachable) = self.reachable.as_ref().filter(|_| self.seats) else { return Vec::new() };
        let mut steps = seats::steps(objects, reachable);
        steps.retain(|SeatStep::Remove { node, .. }| !self.timers.is_set(Timer::Seat(*node)));
        for SeatStep::Remove { node, .. } in &steps {
            self.timers.set(Timer::Seat(*node), Some(now + SEAT_PATIENCE));
        }
        self.seats = false;
        steps
    }

    /// Looks again at what an entry of the log changed.
    pub fn look_at(&mut self, objects: &Objects, touched: &Touched) {
        self.slots.extend(&touched.slots);
        // A slot that came or went changes how many its service has.
        self.services.extend(touched.slots.iter().map(|(service, _)| service));
        for id in &touched.services {
            self.services.insert(*id);
            self.meters.see(objects, *id);
            if objects.service(*id).is_none() {
                self.slots.extend(objects.slots_of(*id).map(|slot| (*id, slot)));
            }
        }
        for id in &touched.nodes {
            self.await_node(*id, objects.node(*id));
            self.slots.extend(objects.tasks_on(*id).map(|task| (task.service, task.slot)));
            // Where a task may be decides whether its service's update is done with it.
            self.services.extend(objects.tasks_on(*id).map(|task| task.service));
            if objects.node(*id).is_none_or(|node| node.manager.is_none()) {
                self.timers.set(Timer::Seat(*id), None);
            }
        }
        self.seats |= !touched.nodes.is_empty();
        if touched.cluster {
            // The history limit may have changed.
            self.slots.extend(objects.index().tasks_of_slot.keys());
        }
        // Whom they wait for may be ready now.
        let services_changed = !touched.slots.is_empty() || !touched.services.is_empty();
        self.capacity |= services_changed && !self.held.is_empty();
        self.capacity |= touched.capacity || !touched.networks.is_empty() || !touched.nodes.is_empty();
    }

    /// Keeps an agent's reports on its tasks until they can be decided; the newest of a task counts.
    pub fn keep_reports(&mut self, objects: &Objects, node: NodeId, reports: Vec<StatusReport>) {
        for StatusReport { task, mut status } in reports {
            if objects.task(task).is_none_or(|known| known.node != Some(node)) {
                continue;
            }
            for text in [&mut status.message, &mut status.error] {
                text.truncate(text.floor_char_boundary(MAX_STATUS_TEXT));
            }
            match self.reports.get_mut(&task) {
                Some(kept) if kept.state > status.state => {}
                Some(kept) => *kept = status,
                None => {
                    self.reports.insert(task, status);
                }
            }
        }
    }

    /// Notes what tasks on a node use, and weighs their services every so often.
    pub fn measured(&mut self, objects: &Objects, node: NodeId, usages: &[TaskUsage], now: Time) {
        for service in self.meters.note(objects, node, usages, now) {
            let timer = Timer::Autoscale(service);
            if !self.timers.is_set(timer) {
                self.timers.set(timer, Some(now + autoscale::PERIOD));
            }
        }
    }

    /// Keeps what a change that had no effect was made from, if it cannot be found in the objects: what
    /// agents said.
    pub fn take_back(&mut self, objects: &Objects, change: Change) {
        match change {
            Change::SetStatus { task, status, .. } => {
                if let Some(node) = objects.task(task).and_then(|task| task.node) {
                    self.keep_reports(objects, node, vec![StatusReport { task, status: *status }]);
                }
            }
            Change::PutNode(node) => {
                let Some(known) = objects.node(node.id) else { return };
                // A node's specification was a request, and that was answered.
                let news = match node.state {
                    NodeState::Ready => News::Ready {
                        description: Box::new(node.description),
                        address: node.address,
                        data_path: node.data_path,
                    },
                    NodeState::Down => News::Lost { reason: node.message },
                    NodeState::Unknown => News::Unheard,
                };
                if known.state != node.state {
                    self.news.entry(node.id).or_insert(news);
                }
            }
            _ => {}
        }
    }

    /// Turns deadlines that have come into things to look at.
    pub fn wake(&mut self, objects: &Objects, now: Time) {
        if now < self.now {
            let by = self.now.since(now);
            self.timers.set_back(by);
            self.delays.set_back(by);
            self.meters.clear();
            // Moments that are recorded may lie ahead now.
            self.look_at_everything(objects);
        }
        self.now = now;
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Slot(service, slot) => {
                    self.slots.insert((service, slot));
                    self.services.insert(service);
                }
                Timer::Schedule(service) => drop(self.services.insert(service)),
                Timer::Autoscale(service) => drop(self.weigh.insert(service)),
                Timer::Node(node) => {
                    if self.unheard.contains(&node) {
                        self.news.insert(node, News::Lost { reason: UNHEARD.to_owned() });
                    }
                }
                Timer::Orphans(node) => {
                    self.abandoned.insert(node);
                    self.slots.extend(objects.tasks_on(node).map(|task| (task.service, task.slot)));
                }
                Timer::Seat(_) => self.seats = true,
                Timer::Tables(round) => self.dispatcher.give_up(round),
                Timer::Retry => {}
            }
        }
    }

    /// Decides as much as fits into one entry of the log.
    pub fn plan(&mut self, plan: &mut Plan) {
        // What does not fit is left where it waits, and everything after it.
        plan.delays = std::mem::take(&mut self.delays);
        plan.abandoned = std::mem::take(&mut self.abandoned);
        let _: Result<(), Full> = self.plan_all(plan);
        self.abandoned = std::mem::take(&mut plan.abandoned);
        self.delays = std::mem::take(&mut plan.delays);
        self.held.append(&mut plan.held);
    }

    fn plan_all(&mut self, plan: &mut Plan) -> Result<(), Full> {
        let requests = self.plan_requests(plan);
        self.plan_news(plan)?;
        requests?;
        self.plan_reports(plan)?;
        if plan.objects.cluster().is_none() {
            return Ok(());
        }
        let orchestrated = self.orchestrate(plan);
        let mut placed = Placed::of(plan);
        let planned = orchestrated.and_then(|()| {
            self.services.clear();
            // Tasks that wait come before new ones.
            self.plan_capacity(plan, &mut placed)
        });
        // Also when the batch is full: what is drafted belongs to what is in it already.
        tasks::create(plan, &mut placed);
        planned
    }

    /// What services are to be comes first, then the numbers of slots, then what happens in each, then what updates
    /// may do beyond that.
    fn orchestrate(&mut self, plan: &mut Plan) -> Result<(), Full> {
        self.plan_services(plan, updater::roll_back)?;
        self.plan_schedules(plan)?;
        self.plan_services(plan, autoscale::bound)?;
        self.plan_loads(plan)?;
        self.plan_services(plan, orchestrator::scale)?;
        self.plan_slots(plan)?;
        self.plan_services(plan, updater::advance)
    }

    fn plan_requests(&mut self, plan: &mut Plan) -> Result<(), Full> {
        let mut granted = 0;
        while granted < MAX_SPECS_OF_BATCH && !self.requests.is_empty() {
            plan.reserve(MAX_CHANGES_OF_REQUEST)?;
            let waits = self.requests.front().is_some_and(|(_, request)| requests::names_others(request));
            if waits && !plan.requested.is_empty() {
                // Whether two wait for each other is seen once one of them is committed.
                break;
            }
            let Some((to, request)) = self.requests.pop_front() else { break };
            let result = requests::decide(plan, self.reachable.as_ref(), request);
            granted += usize::from(result.is_ok());
            plan.replies.push(Reply { to, result });
        }
        Ok(())
    }

    /// Nodes that came or went.
    fn plan_news(&mut self, plan: &mut Plan) -> Result<(), Full> {
        let mut result = Ok(());
        while result.is_ok()
            && let Some((id, news)) = self.news.pop_first()
        {
            result = plan.reserve(1);
            if result.is_err() {
                self.news.insert(id, news);
            } else {
                self.plan_node(plan, id, news);
            }
        }
        if result.is_ok() && self.capacity {
            result = plan_unaddressed(plan);
        }
        // Also when the batch is full: what requests change of nodes is in it already.
        let mut nodes = std::mem::take(&mut plan.nodes);
        nodes.retain(|id, _| !plan.removed_nodes.contains(id));
        for mut node in nodes.into_values() {
            ipam::address_node(plan, &mut node);
            if node.state != NodeState::Down {
                // Its agent is about to say what became of its tasks.
                plan.abandoned.remove(&node.id);
            }
            plan.changes.push(Change::PutNode(Box::new(node)));
        }
        result
    }

    fn plan_node(&self, plan: &mut Plan, id: NodeId, news: News) {
        let Some(known) = plan.nodes.get(&id).or_else(|| plan.objects.node(id)) else { return };
        let mut node = known.clone();
        match news {
            News::Ready { description, address, data_path } => {
                node.state = NodeState::Ready;
                node.message = String::new();
                node.down_since = None;
                node.description = *description;
                node.address = address;
                node.data_path = data_path;
            }
            News::Lost { reason } => {
                node.down_since = node.down_since.or(Some(plan.now));
                node.state = NodeState::Down;
                node.message = reason;
            }
            News::Unheard => {
                node.state = NodeState::Unknown;
                node.message = UNKNOWN.to_owned();
            }
        }
        if node != *known {
            node.meta.updated_at = plan.now;
            plan.nodes.insert(id, node);
        }
    }

    /// Reports by the agents that own the tasks. A task only ever moves up.
    fn plan_reports(&mut self, plan: &mut Plan) -> Result<(), Full> {
        while !self.reports.is_empty() {
            plan.reserve(1)?;
            let Some((task, mut status)) = self.reports.pop_first() else { break };
            let Some(current) = plan.objects.task(task).map(|task| &task.status) else { continue };
            if current.error == MISPLACED && status.error.is_empty() {
                // The agent does not know why its task had to go.
                status.error.clone_from(&current.error);
            }
            let owned = (TaskState::Accepted..TaskState::Remove).contains(&status.state);
            let moves = status.state >= current.state && !current.state.is_terminal() && status != *current;
            if owned && moves {
                plan.reported.insert(task);
                plan.changes.push(Change::SetStatus { task, status: Box::new(status), at: plan.now });
            }
        }
        Ok(())
    }

    fn plan_services(
        &self,
        plan: &mut Plan,
        look: impl Fn(&mut Plan, &Service) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let objects = plan.objects;
        for service in self.services.iter().filter_map(|id| objects.service(*id)) {
            if !plan.requested.contains(&service.id) {
                look(plan, service)?;
            }
        }
        Ok(())
    }

    /// Jobs whose time has come.
    fn plan_schedules(&mut self, plan: &mut Plan) -> Result<(), Full> {
        let objects = plan.objects;
        for id in &self.services {
            let next = match objects.service(*id).filter(|_| !plan.requested.contains(id)) {
                Some(service) => cron::start(plan, service)?,
                None => None,
            };
            self.timers.set(Timer::Schedule(*id), next);
        }
        Ok(())
    }

    /// Services whose load may ask for another number of replicas.
    fn plan_loads(&mut self, plan: &mut Plan) -> Result<(), Full> {
        while let Some(id) = self.weigh.pop_first() {
            match self.meters.weigh(plan, id) {
                Ok(again) => {
                    let next = again.then(|| plan.now + autoscale::PERIOD);
                    self.timers.set(Timer::Autoscale(id), next);
                }
                Err(full) => {
                    self.weigh.insert(id);
                    return Err(full);
                }
            }
        }
        Ok(())
    }

    fn plan_slots(&mut self, plan: &mut Plan) -> Result<(), Full> {
        let mut requested = BTreeSet::new();
        let mut result = Ok(());
        while let Some(key) = self.slots.pop_first() {
            let (service, number) = key;
            // What a request of this batch changes is looked at when that is committed.
            if plan.requested.contains(&service) {
                requested.insert(key);
                continue;
            }
            match slot::examine(plan, service, number) {
                Ok(next) => {
                    self.timers.set(Timer::Slot(service, number), next);
                    if next.is_none() {
                        plan.delays.forget(key);
                    }
                }
                Err(full) => {
                    self.slots.insert(key);
                    result = Err(full);
                    break;
                }
            }
        }
        self.slots.append(&mut requested);
        result
    }

    /// Tasks that wait for addresses or for a node.
    fn plan_capacity(&mut self, plan: &mut Plan, placed: &mut Placed) -> Result<(), Full> {
        if !self.capacity {
            return Ok(());
        }
        let before = plan.changes.len();
        ipam::retry(plan)?;
        if plan.changes.len() > before {
            // Tasks that found an address join a queue whose reasons they have not been told.
            self.explained.clear();
        }
        scheduler::retry(plan, placed, &mut self.explained)?;
        self.held.clear();
        self.capacity = false;
        Ok(())
    }
}

/// Adds to the batch the nodes that wait for an address and get one, or learn why not.
fn plan_unaddressed(plan: &mut Plan) -> Result<(), Full> {
    let objects = plan.objects;
    for node in objects.index().unaddressed.iter().filter_map(|id| objects.node(*id)) {
        if plan.nodes.contains_key(&node.id) || plan.removed_nodes.contains(&node.id) {
            continue;
        }
        plan.reserve(1)?;
        let mut addressed = node.clone();
        ipam::address_node(plan, &mut addressed);
        if addressed != *node {
            addressed.meta.updated_at = plan.now;
            plan.nodes.insert(node.id, addressed);
        }
    }
    Ok(())
}
