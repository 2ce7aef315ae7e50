//! One task on this node: its place on the ladder and its container.

use std::time::Duration;

use skep_types::container::ClusterAttachment;
use skep_types::service::RestartCondition;
use skep_types::task::ContainerStatus;
use skep_types::{ContainerId, Task, TaskId, TaskState, TaskStatus, Time};

use crate::agent::Retry;
use crate::event::{Launched, Observed, Operation, Watched};

/// What is known of a task's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Absent,
    Created(ContainerId),
    Running(ContainerId),
    Ended(ContainerId),
}

impl Presence {
    fn id(self) -> Option<ContainerId> {
        match self {
            Presence::Absent => None,
            Presence::Created(id) | Presence::Running(id) | Presence::Ended(id) => Some(id),
        }
    }
}

/// The operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Preparing,
    Starting,
    Draining,
    Stopping,
    Removing,
}

/// What a task has to wait for, as its agent knows it.
pub(crate) enum Networks {
    Ready(Vec<ClusterAttachment>),
    Pending,
    Missing(String),
}

/// A task, or a container that carries the id of one that is not this node's.
#[derive(Debug)]
pub(crate) struct Work {
    id: TaskId,
    /// `None` for a container that no assignment names.
    pub(crate) task: Option<Box<Task>>,
    /// Whether the duty was taken away: the container goes, then the work is forgotten.
    pub(crate) gone: bool,
    pub(crate) status: TaskStatus,
    presence: Presence,
    busy: Option<Busy>,
    /// Whether the preparation under way was said to be for nothing.
    abandoned: bool,
    /// Whether its connections had their time to end.
    drained: bool,
    /// Whether it was found unhealthy, and fails when it has stopped.
    sick: bool,
    pub(crate) retry: Retry,
    /// Whether the managers have yet to hear of `status`.
    pub(crate) unreported: bool,
    /// Set while the container has ended without a manager to tell.
    revival: Option<Revival>,
    /// How often it was restarted without the managers.
    revivals: u64,
}

/// A restart without the managers.
#[derive(Debug)]
struct Revival {
    /// Not before this time.
    at: Time,
    /// What the managers are told if they come back sooner.
    result: Result<i32, String>,
}

/// How long an agent is alone before it restarts anything: the time in which managers, if there are any, agree on
/// a new leader, whose business restarts are.
const ALONE: Duration = Duration::from_secs(5);
/// The shortest wait before such a restart: nobody counts them.
const REVIVAL_PAUSE: Duration = Duration::from_secs(1);
/// How long connections may take to end where a service does not say how long its tasks may. Docker's default.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Work {
    /// The container of a task that runs and is not to end.
    pub(crate) fn running(&self) -> Option<ContainerId> {
        match self.presence {
            Presence::Running(container) if self.status.state == TaskState::Running && !self.wants_end() => {
                Some(container)
            }
            _ => None,
        }
    }

    /// A task that is new to this node, or was when the daemon last ran. Nothing of it exists here.
    pub(crate) fn accept(task: Box<Task>, now: Time) -> Work {
        let mut work = Work::with_status(task.id, task.status.clone());
        work.task = Some(task);
        match work.status.state {
            TaskState::New
            | TaskState::Pending
            | TaskState::Assigned
            | TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Ready => {
                // SwarmKit's agent reports `accepted` first; its reporter, too, sends only the latest of several.
                work.climb(TaskState::Preparing, "preparing", now);
            }
            TaskState::Starting | TaskState::Running if !work.wants_end() => {
                let name = work.task.as_ref().map(|task| task.container_name()).unwrap_or_default();
                work.fail(format!("No such container: {name}"), now);
            }
            TaskState::Starting
            | TaskState::Running
            | TaskState::Complete
            | TaskState::Shutdown
            | TaskState::Failed
            | TaskState::Rejected
            | TaskState::Remove
            | TaskState::Orphaned => {}
        }
        work
    }

    /// A task whose container a former agent left.
    pub(crate) fn adopt(
        task: Box<Task>,
        container: ContainerId,
        observed: Observed,
        now: Time,
        alone: Option<Time>,
    ) -> Work {
        let mut work = Work::with_status(task.id, task.status.clone());
        work.task = Some(task);
        work.find(container, observed, now, alone);
        work
    }

    /// A container of a task that is not this node's: to be stopped and removed.
    pub(crate) fn unknown(id: TaskId, container: ContainerId, observed: Observed, now: Time) -> Work {
        let message = "shutdown".to_owned();
        let status = TaskStatus {
            state: TaskState::Shutdown,
            since: now,
            message,
            error: String::new(),
            container: None,
        };
        let mut work = Work::with_status(id, status);
        work.gone = true;
        work.find(container, observed, now, None);
        work
    }

    fn with_status(id: TaskId, status: TaskStatus) -> Work {
        let presence = Presence::Absent;
        Work {
            id,
            task: None,
            gone: false,
            status,
            presence,
            busy: None,
            abandoned: false,
            drained: false,
            sick: false,
            retry: Retry::default(),
            unreported: false,
            revival: None,
            revivals: 0,
        }
    }

    fn find(&mut self, container: ContainerId, observed: Observed, now: Time, alone: Option<Time>) {
        let (presence, pid, exit_code) = match observed {
            Observed::Created => (Presence::Created(container), 0, None),
            Observed::Starting(pid) | Observed::Running(pid) => (Presence::Running(container), pid, None),
            Observed::Exited(code) => (Presence::Ended(container), 0, Some(code)),
        };
        self.presence = presence;
        if self.status.state.is_terminal() {
            return;
        }
        self.status.container = Some(ContainerStatus { id: container, pid, exit_code, ports: Vec::new() });
        match observed {
            Observed::Created if self.status.state < TaskState::Ready => {
                self.climb(TaskState::Ready, "prepared", now);
            }
            Observed::Created => {}
            Observed::Running(_) if self.status.state < TaskState::Running => {
                self.climb(TaskState::Running, "started", now);
            }
            Observed::Starting(_) | Observed::Running(_) => {}
            Observed::Exited(_) if self.wants_end() => {}
            Observed::Exited(code) => self.ended(Ok(code), now, alone),
        }
    }

    /// Takes the managers' newer word. A specification never changes, only what is desired, and that only rises: a new
    /// leader that waits for the tables to change names a task as wanted that its predecessor had told to end.
    pub(crate) fn update(&mut self, task: Box<Task>) {
        let mut desired = self.task.as_ref().map_or(task.desired, |known| known.desired.max(task.desired));
        if task.status.state == TaskState::Orphaned {
            // The managers gave it up while they heard nothing: others may have its place and its addresses.
            desired = desired.max(TaskState::Shutdown);
        }
        self.gone = false;
        self.task = Some(task);
        if let Some(task) = &mut self.task {
            task.desired = desired;
        }
    }

    fn desired(&self) -> TaskState {
        self.task.as_ref().map_or(TaskState::Remove, |task| task.desired)
    }

    fn wants_end(&self) -> bool {
        self.gone || self.desired() >= TaskState::Shutdown
    }

    /// Whether nothing of this work is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.gone && self.presence == Presence::Absent && self.busy.is_none()
    }

    /// Whether the container may still need the task's networks. One that has ended for good does not, however long it is
    /// kept for its history.
    pub(crate) fn uses_networks(&self) -> bool {
        let runs = matches!(self.presence, Presence::Running(_)) || self.revival.is_some();
        runs || self.busy.is_some() || !self.status.state.is_terminal()
    }

    /// Whether the next step waits for the task's networks.
    pub(crate) fn waits_for_networks(&self) -> bool {
        self.busy.is_none() && self.needs_preparation() && !self.wants_end()
    }

    fn needs_preparation(&self) -> bool {
        self.status.state <= TaskState::Preparing && self.presence == Presence::Absent
    }

    fn climb(&mut self, state: TaskState, message: &str, now: Time) {
        // A task only ever moves up; what is done over after a crash is not told again.
        if state > self.status.state {
            self.status.state = state;
            self.status.message = message.to_owned();
            self.status.since = now;
            self.unreported = true;
        } else if state == TaskState::Preparing {
            self.status.state = state;
        }
    }

    /// Says of a running task why clients do not reach it by its service's ports; nothing when they do.
    pub(crate) fn is_served(&mut self, trouble: &str) {
        if self.status.state == TaskState::Running && self.status.error != trouble {
            self.status.error = trouble.to_owned();
            self.unreported = true;
        }
    }

    /// As SwarmKit's `exec.Do`: an error before the start rejects, one after it fails; the message stays.
    fn fail(&mut self, error: String, now: Time) {
        let state =
            if self.status.state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
        self.status.state = state;
        self.status.error = error;
        self.status.since = now;
        self.unreported = true;
    }

    /// The container ended by itself. `alone` is since when there is no manager to tell.
    fn ended(&mut self, result: Result<i32, String>, now: Time, alone: Option<Time>) {
        let alone = alone.filter(|_| !self.wants_end());
        match alone.and_then(|since| self.revival_time(&result, now, since)) {
            Some(at) => self.revival = Some(Revival { at, result }),
            None => self.end(result, now),
        }
    }

    /// When the container may be restarted without the managers, if its policy lets it.
    fn revival_time(&self, result: &Result<i32, String>, now: Time, alone: Time) -> Option<Time> {
        let task = self.task.as_ref()?;
        let policy = task.spec.restart;
        // A job's task that succeeded is done, whatever the policy.
        let done = task.desired == TaskState::Complete && *result == Ok(0);
        let wanted = match policy.condition {
            RestartCondition::None => false,
            RestartCondition::OnFailure => *result != Ok(0),
            RestartCondition::Any => !done,
        };
        let left = policy.max_attempts == 0 || self.revivals < policy.max_attempts;
        let at = (now + policy.delay.max(REVIVAL_PAUSE)).max(alone + ALONE);
        (wanted && left).then_some(at)
    }

    /// Managers are heard again: what ended and was not restarted yet is theirs to decide about.
    pub(crate) fn rejoin(&mut self, now: Time) {
        self.revivals = 0;
        if let Some(revival) = self.revival.take() {
            self.end(revival.result, now);
        }
    }

    /// When time makes a difference.
    pub(crate) fn wakes_at(&self) -> Option<Time> {
        self.retry.at.into_iter().chain(self.revival.as_ref().map(|revival| revival.at)).min()
    }

    fn end(&mut self, result: Result<i32, String>, now: Time) {
        match result {
            Ok(0) => self.climb(TaskState::Complete, "finished", now),
            Ok(code) => self.fail(format!("task: non-zero exit ({code})"), now),
            Err(error) => self.fail(error, now),
        }
    }

    /// The next operation, if one is due. `held` says that the task's endpoint must change first.
    pub(crate) fn next(
        &mut self,
        now: Time,
        held: bool,
        networks: impl FnOnce(&Task) -> Networks,
    ) -> Option<Operation> {
        // Whoever takes a task away does not wait for those that are connected to it.
        let busy = self.busy.filter(|busy| *busy != Busy::Draining || !self.gone);
        if busy.is_some() || self.retry.waits(now) {
            return None;
        }
        self.retry.at = None;
        let sick = self.sick && matches!(self.presence, Presence::Running(_));
        if self.wants_end() || self.status.state.is_terminal() || sick {
            return self.next_down(now, held);
        }
        if self.needs_preparation() {
            return self.prepare(now, networks);
        }
        match self.presence {
            Presence::Created(container) if self.desired() >= TaskState::Running => {
                self.climb(TaskState::Starting, "starting", now);
                self.busy = Some(Busy::Starting);
                Some(Operation::Start { task: self.id, container })
            }
            Presence::Ended(container) if self.revival.as_ref().is_some_and(|revival| revival.at <= now) => {
                self.revival = None;
                self.revivals += 1;
                self.busy = Some(Busy::Starting);
                Some(Operation::Start { task: self.id, container })
            }
            Presence::Created(_) | Presence::Running(_) | Presence::Ended(_) | Presence::Absent => None,
        }
    }

    fn prepare(&mut self, now: Time, networks: impl FnOnce(&Task) -> Networks) -> Option<Operation> {
        let task = self.task.clone()?;
        match networks(&task) {
            Networks::Ready(attachments) => {
                self.busy = Some(Busy::Preparing);
                Some(Operation::Prepare { task, attachments })
            }
            Networks::Pending => None,
            Networks::Missing(error) => {
                self.fail(error, now);
                None
            }
        }
    }

    fn next_down(&mut self, now: Time, held: bool) -> Option<Operation> {
        if let Presence::Running(container) = self.presence {
            if held {
                return None;
            }
            let spec = self.task.as_ref().map(|task| &task.spec.container);
            let signal = spec.map(|spec| spec.stop_signal.clone()).unwrap_or_default();
            let grace = spec.and_then(|spec| spec.stop_grace);
            if self.drains() {
                self.busy = Some(Busy::Draining);
                let limit = grace.unwrap_or(STOP_GRACE);
                return Some(Operation::Drain { task: self.id, container, limit });
            }
            self.busy = Some(Busy::Stopping);
            return Some(Operation::Stop { task: self.id, container, signal, grace });
        }
        if !self.status.state.is_terminal() {
            self.climb(TaskState::Shutdown, "shutdown", now);
        }
        if !self.gone && self.desired() != TaskState::Remove {
            return None;
        }
        let container = self.presence.id()?;
        self.busy = Some(Busy::Removing);
        Some(Operation::Remove { task: self.id, container })
    }

    /// Whether clients may be connected to the task that have to be waited for: it was in tables.
    fn drains(&self) -> bool {
        // What was given up is in no table, and another may have its addresses by now.
        let may_serve =
            |task: &Task| !task.attachments.is_empty() && task.status.state != TaskState::Orphaned;
        let served = self.status.state == TaskState::Running && self.task.as_deref().is_some_and(may_serve);
        served && !self.gone && !self.drained && !self.sick
    }

    /// Says, once, that the preparation under way is for nothing: the task is to end.
    pub(crate) fn abandon(&mut self) -> Option<TaskId> {
        let is_new = self.busy == Some(Busy::Preparing) && self.wants_end() && !self.abandoned;
        self.abandoned |= is_new;
        is_new.then_some(self.id)
    }

    /// The exit of a container that runs has to be watched for.
    pub(crate) fn watch(&self) -> Option<Operation> {
        match self.presence {
            Presence::Running(container) => Some(Operation::Watch { task: self.id, container }),
            Presence::Absent | Presence::Created(_) | Presence::Ended(_) => None,
        }
    }

    /// A network that the task waits for could not be brought up.
    pub(crate) fn reject(&mut self, error: String, now: Time) {
        self.fail(error, now);
    }

    pub(crate) fn prepared(&mut self, result: Result<ContainerId, String>, now: Time) {
        if !self.is_done(Busy::Preparing) {
            return;
        }
        let abandoned = std::mem::take(&mut self.abandoned);
        match result {
            Ok(container) => {
                self.presence = Presence::Created(container);
                self.status.container =
                    Some(ContainerStatus { id: container, pid: 0, exit_code: None, ports: Vec::new() });
                self.climb(TaskState::Ready, "prepared", now);
            }
            // Should it be wanted again by now, it is prepared anew.
            Err(_) if self.wants_end() || abandoned => {}
            Err(error) => self.fail(error, now),
        }
    }

    /// Says which container has to listen on `ports`, or to be healthy, before the task counts as running: connections
    /// that come earlier would be refused. SwarmKit knows only health checks.
    pub(crate) fn started(
        &mut self,
        result: Result<Launched, String>,
        ports: &[u16],
        now: Time,
        alone: Option<Time>,
    ) -> Option<ContainerId> {
        if !self.is_done(Busy::Starting) {
            return None;
        }
        let container = self.presence.id()?;
        match result {
            Ok(Launched { pid, health }) => {
                self.presence = Presence::Running(container);
                self.status.container =
                    Some(ContainerStatus { id: container, pid, exit_code: None, ports: Vec::new() });
                // Of a restart the managers learn by its process.
                self.unreported |= self.status.state == TaskState::Running;
                if !ports.is_empty() || health == Watched::Yes {
                    return Some(container);
                }
                self.climb(TaskState::Running, "started", now);
            }
            Err(error) => {
                self.presence = Presence::Ended(container);
                self.ended(Err(error), now, alone);
            }
        }
        None
    }

    pub(crate) fn ready(&mut self, result: Result<(), String>, now: Time) {
        match result {
            Ok(()) if matches!(self.presence, Presence::Running(_)) => {
                self.climb(TaskState::Running, "started", now);
            }
            Ok(()) => {}
            Err(_) => self.unhealthy(),
        }
    }

    /// The container's health check failed: the task has failed, though its container is yet to be stopped. As moby's
    /// `ErrContainerUnhealthy`.
    pub(crate) fn unhealthy(&mut self) {
        let runs = matches!(self.presence, Presence::Running(_));
        // Its slot and its addresses are free for another once it is said to have failed: as SwarmKit's controller,
        // it is stopped before that.
        self.sick |= runs && !self.wants_end() && !self.status.state.is_terminal();
    }

    pub(crate) fn exited(&mut self, result: Result<i32, String>, now: Time, alone: Option<Time>) {
        let Presence::Running(container) = self.presence else { return };
        self.presence = Presence::Ended(container);
        self.note_exit(result.as_ref().ok().copied());
        // A stop that is under way says what the exit means.
        if self.busy != Some(Busy::Stopping) {
            self.end_sick(now);
        }
        if self.busy != Some(Busy::Stopping) && !self.status.state.is_terminal() {
            self.ended(result, now, alone);
        }
    }

    pub(crate) fn drained(&mut self) {
        self.drained |= self.is_done(Busy::Draining);
    }

    pub(crate) fn stopped(&mut self, result: Result<Option<i32>, String>, now: Time) {
        if !self.is_done(Busy::Stopping) {
            return;
        }
        match result {
            Ok(code) => {
                if let Presence::Running(container) = self.presence {
                    self.presence = Presence::Ended(container);
                }
                self.note_exit(code);
                self.retry.reset();
                self.end_sick(now);
            }
            // It may still run, so it is not given up.
            Err(_) => self.retry.failed(now),
        }
    }

    /// What was found unhealthy has stopped. It has not failed if it was to end anyway.
    fn end_sick(&mut self, now: Time) {
        if std::mem::take(&mut self.sick) && !self.wants_end() && !self.status.state.is_terminal() {
            self.fail("unhealthy container".to_owned(), now);
        }
    }

    fn note_exit(&mut self, code: Option<i32>) {
        if let Some(container) = &mut self.status.container {
            container.pid = 0;
            container.exit_code = container.exit_code.or(code);
        }
    }

    pub(crate) fn removed(&mut self, result: Result<(), String>, now: Time) {
        if !self.is_done(Busy::Removing) {
            return;
        }
        match result {
            Ok(()) => self.presence = Presence::Absent,
            Err(_) => self.retry.failed(now),
        }
    }

    fn is_done(&mut self, busy: Busy) -> bool {
        let done = self.busy == Some(busy);
        if done {
            self.busy = None;
        }
        done
    }
}
