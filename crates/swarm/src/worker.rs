//! The agent actor: select one event, step the agent's brain, perform what it decided.
//!
//! Operations run concurrently, each in a task of its own; the brain gives out at most one for a container at a
//! time. Reports gather while the manager is busy and leave together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_agent::{Agent, AgentEvent, AgentOutput, Operation};
use skep_engine::Engine;
use skep_types::assignment::StatusReport;
use skep_types::{TaskId, TaskState, Time};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::operations;
use crate::session::{Connector, Hello, Keeper, News, Told, Word};
use measuring::Measuring;
use memory::Memory;

mod measuring;
mod memory;

/// Containers that are created, started or removed at the same time: more would only wait for the same disk.
const PARALLEL: usize = 16;
/// How long an ending agent waits for operations that are under way.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a leaving node tries to remove its tasks' containers.
const CLEAN_UP: Duration = Duration::from_secs(60);
/// Wait between two looks at what is left.
const CLEAN_UP_PAUSE: Duration = Duration::from_millis(50);

/// How long a starting agent waits for a leader before it goes on with the duties that it remembers: they may be old.
const REMEMBER_DELAY: Duration = Duration::from_secs(2);
/// How long changed duties gather before they are written.
const SAVE_DELAY: Duration = Duration::from_millis(500);

/// How an agent is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Containers go on running.
    Keep,
    /// All containers of tasks are removed.
    Clear,
}

/// Speaks to the agent actor.
#[derive(Debug)]
pub(crate) struct Worker {
    end: mpsc::Sender<End>,
    /// The agent's, and that of its sessions.
    tasks: Mutex<JoinSet<()>>,
}

impl Worker {
    /// Starts the agent of a node. It takes on what a former one left, keeps to the duties that are remembered in the
    /// file `duties` while no leader says otherwise, and opens sessions through `connector` for as long as it lives.
    /// A new value of `hello` opens a new session. What a leader tells the node goes to `news`.
    ///
    /// # Errors
    /// When the engine cannot say what is there.
    pub(crate) async fn start<C: Connector>(
        engine: Engine,
        duties: PathBuf,
        connector: Arc<C>,
        hello: watch::Receiver<Hello>,
        news: mpsc::Sender<News>,
    ) -> Result<Worker, skep_engine::Error> {
        let opened = tokio::task::spawn_blocking(move || Memory::open(duties)).await;
        let memory = opened.expect("it neither panics nor is aborted");
        let (manager, words) = mpsc::channel(1);
        let (agent, told) = mpsc::channel(1);
        let mut worker = Worker::spawn(engine, Some(memory), manager, told).await?;
        worker.tasks.get_mut().spawn(Keeper { connector, hello, agent, news, words }.run());
        Ok(worker)
    }

    async fn spawn(
        engine: Engine,
        memory: Option<Memory>,
        manager: mpsc::Sender<Word>,
        told: mpsc::Receiver<Told>,
    ) -> Result<Worker, skep_engine::Error> {
        let recovered = operations::recover(&engine).await?;
        let (end, ending) = mpsc::channel(1);
        let remember_at = memory.is_some().then(|| Instant::now() + REMEMBER_DELAY);
        let actor = Actor {
            engine,
            agent: Agent::new(),
            clock: Clock::default(),
            manager,
            room: Arc::new(Semaphore::new(PARALLEL)),
            operations: JoinSet::new(),
            watches: JoinSet::new(),
            preparing: BTreeMap::new(),
            reports: BTreeMap::new(),
            acknowledged: None,
            measuring: Measuring::default(),
            wake_at: None,
            memory,
            remember_at,
            save_at: None,
            saving: JoinSet::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(actor.run(AgentEvent::Recovered(recovered), told, ending));
        Ok(Worker { end, tasks: Mutex::new(tasks) })
    }

    /// Ends the agent; returns when it has ended.
    pub(crate) async fn end(&self, how: End) {
        // An actor that is gone has ended.
        let _ = self.end.send(how).await;
        let mut tasks = self.tasks.lock().await;
        while let Some(ended) = tasks.join_next().await {
            ended.expect("the agent neither panics nor is aborted");
        }
    }
}

struct Actor {
    engine: Engine,
    agent: Agent,
    clock: Clock,
    manager: mpsc::Sender<Word>,
    room: Arc<Semaphore>,
    operations: JoinSet<AgentEvent>,
    /// Apart from the others because they end when their containers do.
    watches: JoinSet<AgentEvent>,
    /// Those that are being prepared; the value goes when that is for nothing.
    preparing: BTreeMap<TaskId, oneshot::Sender<()>>,
    /// The latest report of each task that the manager has not been told yet.
    reports: BTreeMap<TaskId, StatusReport>,
    /// What the manager has yet to hear of the tables.
    acknowledged: Option<u64>,
    measuring: Measuring,
    wake_at: Option<Time>,
    memory: Option<Memory>,
    /// When the agent goes on with what it remembers, while no leader has said anything.
    remember_at: Option<Instant>,
    /// When the memory is written; `None` while it is as on disk, or about to be.
    save_at: Option<Instant>,
    /// The write under way.
    saving: JoinSet<()>,
}

impl Actor {
    async fn run(
        mut self,
        first: AgentEvent,
        mut told: mpsc::Receiver<Told>,
        mut ending: mpsc::Receiver<End>,
    ) {
        self.step(first);
        let manager = self.manager.clone();
        loop {
            let timer = wait_until(self.wake_at, self.clock.now());
            tokio::select! {
                Some(event) = self.operations.join_next(), if !self.operations.is_empty() => {
                    self.step(event.expect("an operation neither panics nor is aborted"));
                }
                Some(event) = self.watches.join_next(), if !self.watches.is_empty() => {
                    self.step(event.expect("a watch neither panics nor is aborted"));
                }
                Some(told) = told.recv() => self.hear(told),
                Ok(room) = manager.reserve(), if self.has_news() => {
                    let mut reports: Vec<_> = std::mem::take(&mut self.reports).into_values().collect();
                    for report in &mut reports {
                        self.note_ports(report);
                    }
                    let usage = self.measuring.take();
                    room.send(Word { reports, acknowledged: self.acknowledged.take(), usage });
                }
                () = until(self.measuring.due()) => {
                    let tasks = self.agent.running_of(self.measuring.services());
                    self.measuring.look(&self.engine, tasks);
                }
                () = self.measuring.looked(), if self.measuring.is_looking() => {}
                () = timer => {
                    self.wake_at = None;
                    self.step(AgentEvent::Tick);
                }
                () = until(self.remember_at) => self.remember(),
                () = until(self.save_at), if self.saving.is_empty() => self.save(),
                Some(_) = self.saving.join_next(), if !self.saving.is_empty() => {}
                Some(how) = ending.recv() => return self.end(how).await,
                else => return,
            }
        }
    }

    /// Says which ports of this machine lead to a task: the node chooses numbers that the service leaves open.
    fn note_ports(&self, report: &mut StatusReport) {
        let Some(container) = &mut report.status.container else { return };
        let has_process = matches!(report.status.state, TaskState::Starting | TaskState::Running);
        if has_process {
            container.ports = operations::host_ports(&self.engine, container.id);
        }
    }

    fn has_news(&self) -> bool {
        !self.reports.is_empty() || self.acknowledged.is_some() || self.measuring.has_news()
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Assigned { number, assignment } => {
                self.remember_at = None;
                if let Some(memory) = &mut self.memory {
                    memory.take(&assignment);
                    self.save_at = self.save_at.or_else(|| Some(Instant::now() + SAVE_DELAY));
                }
                self.step(AgentEvent::Assigned { number, assignment });
            }
            Told::Measure(services) => self.measuring.set(services),
            Told::Alone => {
                // The next leader says what it wants to know.
                self.measuring.set(BTreeSet::new());
                self.step(AgentEvent::Alone);
            }
        }
    }

    fn remember(&mut self) {
        self.remember_at = None;
        let duties = self.memory.as_ref().map(Memory::duties).unwrap_or_default();
        if !duties.is_empty() {
            info!(
                duties = duties.len(),
                "no manager answers: this node goes on with the duties that it remembers"
            );
            self.step(AgentEvent::Remembered(duties));
        }
    }

    fn save(&mut self) {
        self.save_at = None;
        if let Some(memory) = &self.memory {
            self.saving.spawn_blocking(memory.writing());
        }
    }

    fn step(&mut self, event: AgentEvent) {
        if let AgentEvent::Prepared { task, .. } = &event {
            self.preparing.remove(task);
        }
        let AgentOutput { operations, abandoned, reports, acknowledged, wake_at } =
            self.agent.step(event, self.clock.now());
        self.wake_at = wake_at;
        self.reports.extend(reports.into_iter().map(|report| (report.task, report)));
        self.acknowledged = acknowledged.or(self.acknowledged);
        for task in abandoned {
            // With its other end gone, whoever waits for the image gives up.
            self.preparing.remove(&task);
        }
        for operation in operations {
            let set = if matches!(operation, Operation::Watch { .. } | Operation::AwaitReady { .. }) {
                &mut self.watches
            } else {
                &mut self.operations
            };
            let engine = self.engine.clone();
            let room = works_hard(&operation).then(|| Arc::clone(&self.room));
            let fetching = match &operation {
                Operation::Prepare { task, .. } => {
                    let (wanted, abandoned) = oneshot::channel();
                    self.preparing.insert(task.id, wanted);
                    Some((task.clone(), abandoned))
                }
                _ => None,
            };
            set.spawn(async move {
                if let Some((task, abandoned)) = fetching {
                    // It waits for the network rather than for this machine.
                    tokio::select! {
                        () = operations::fetch_image(&engine, &task) => {}
                        _ = abandoned => {
                            let result = Err("the task is to end".to_owned());
                            return AgentEvent::Prepared { task: task.id, result };
                        }
                    }
                }
                let _room = match &room {
                    Some(room) => Some(room.acquire().await.expect("it is never closed")),
                    None => None,
                };
                operations::perform(&engine, operation).await
            });
        }
    }

    async fn end(mut self, how: End) {
        self.watches.shutdown().await;
        match how {
            End::Keep => {
                // What takes longer (a stop with a long time of grace) is found again by the next agent.
                let drained = async { while self.operations.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(DRAIN, drained).await;
                self.operations.detach_all();
                while self.saving.join_next().await.is_some() {}
                if self.save_at.is_some() {
                    self.save();
                }
            }
            End::Clear => clear(&self.engine, &mut self.operations).await,
        }
        // A folder that is wiped next must not be written to any more.
        while self.saving.join_next().await.is_some() {}
    }
}

/// Whether an operation keeps the machine busy, rather than waiting for a container.
fn works_hard(operation: &Operation) -> bool {
    match operation {
        Operation::Prepare { .. } | Operation::Start { .. } | Operation::Remove { .. } => true,
        Operation::EnsureNetwork(..)
        | Operation::UpdatePeers { .. }
        | Operation::UpdateRecords { .. }
        | Operation::SetTunnel { .. }
        | Operation::RemoveNetwork(_)
        | Operation::ServeEndpoint(_)
        | Operation::RemoveEndpoint(_)
        | Operation::AwaitReady { .. }
        | Operation::Watch { .. }
        | Operation::Drain { .. }
        | Operation::Stop { .. } => false,
    }
}

/// Removes the containers of all tasks on this machine.
pub(crate) async fn clear_machine(engine: &Engine) {
    clear(engine, &mut JoinSet::new()).await;
}

/// Removes the containers of all tasks, also those that operations under way are just making.
async fn clear(engine: &Engine, operations: &mut JoinSet<AgentEvent>) {
    let deadline = Instant::now() + CLEAN_UP;
    while Instant::now() < deadline {
        let left = remove_all(engine).await;
        // Operations fail or end soon once their containers are gone.
        let drained = async { while operations.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(CLEAN_UP_PAUSE, drained).await.is_ok();
        if left == 0 && drained {
            return;
        }
        if drained {
            tokio::time::sleep(CLEAN_UP_PAUSE).await;
        }
    }
    warn!("some containers of tasks could not be removed");
    operations.detach_all();
}

/// Tries to remove the containers of all tasks at once; says how many there were.
async fn remove_all(engine: &Engine) -> usize {
    let containers = match operations::task_containers(engine).await {
        Ok(containers) => containers,
        Err(error) => {
            warn!(error = error.message, "could not list the containers of tasks");
            return usize::MAX;
        }
    };
    let count = containers.len();
    let mut removals = JoinSet::new();
    for (_, container, _) in containers {
        let engine = engine.clone();
        removals.spawn(async move { operations::remove(&engine, container).await });
    }
    while let Some(removed) = removals.join_next().await {
        if let Ok(Err(error)) = removed {
            warn!(error = error.message, "could not remove a task's container; trying again");
        }
    }
    count
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn wait_until(at: Option<Time>, now: Time) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now)).await,
        None => std::future::pending().await,
    }
}
