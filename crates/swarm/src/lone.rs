//! The manager actor: select one event, step the brain, perform what it decided.
//!
//! Performing is: append to the log, answer, send to the agent, set the timer. An answer that rests on a log
//! entry is only ever given by the brain after it was told that the entry is durable.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use skep_cluster::{
    Answer, Change, Cluster, Event, Objects, Output, Refusal, RefusalKind, Request, RequestId,
};
use skep_consensus::Recovery;
use skep_types::assignment::Assignment;
use skep_types::{Ids, NodeId, Time};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::SwarmError;
use crate::announce::Announcer;
use crate::clock::Clock;
use crate::codec::{self, DecodeError};
use crate::log_worker::{Fate, LogWorker, chain};
use crate::manager::Input;
use crate::wire::CallError;

/// Requests and reports that may wait for the manager; whoever sends more waits with them.
const INPUT_LIMIT: usize = 1024;
/// Assignments that may wait for the agent, which takes them as they come.
const ASSIGNMENT_LIMIT: usize = 1024;
/// Wait before a log that failed is opened again.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// What the actor shares with readers.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: Cluster,
    /// Why this manager cannot decide at the moment.
    pub(crate) trouble: Option<String>,
}

/// Speaks to the manager actor. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    inputs: mpsc::Sender<Input>,
    shared: Arc<RwLock<Shared>>,
}

/// The log holds what this program cannot use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It cannot be opened.
    #[error("cannot open the swarm's state")]
    Log(#[from] skep_consensus::LogError),
    /// It holds what cannot be read.
    #[error("cannot read entry {index} of the swarm's state")]
    Entry {
        /// Its position.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Its snapshot is not whole.
    #[error("cannot use the snapshot of the swarm's state")]
    Snapshot(#[from] skep_cluster::RestoreError),
}

/// The state that the log gives.
fn restore(recovery: &Recovery) -> Result<Objects, StartError> {
    let mut objects = Objects::default();
    if let Some(snapshot) = &recovery.snapshot {
        let source = |source| StartError::Entry { index: snapshot.index, source };
        objects = Objects::restore(codec::decode(&snapshot.payload).map_err(source)?)?;
    }
    for entry in &recovery.entries {
        let source = |source| StartError::Entry { index: entry.index, source };
        let changes: Vec<Change> = codec::decode(&entry.payload).map_err(source)?;
        objects.apply(entry.index, &changes);
    }
    Ok(objects)
}

impl Manager {
    /// Opens the log in `dir`, and starts the actor over it. The second part receives what the node with id
    /// `node`, this one, is assigned.
    pub(crate) async fn start(
        dir: PathBuf,
        node: NodeId,
        seed: u128,
        announcer: Announcer,
    ) -> Result<(Manager, mpsc::Receiver<Assignment>), StartError> {
        let (log, recovery) = LogWorker::open(dir).await?;
        let objects = restore(&recovery)?;
        let entries = recovery.entries.len() as u64;
        drop(recovery);
        let shared = Arc::new(RwLock::new(Shared { cluster: Cluster::new(objects), trouble: None }));
        let (inputs, received) = mpsc::channel(INPUT_LIMIT);
        let (assignments, assigned) = mpsc::channel(ASSIGNMENT_LIMIT);
        let actor = Actor {
            shared: Arc::clone(&shared),
            log,
            node,
            ids: Ids::new(seed),
            clock: Clock::default(),
            announcer,
            assignments,
            open: HashMap::new(),
            next_request: 0,
            flight: None,
            wake_at: None,
            reopen_at: None,
            entries,
            session: None,
        };
        tokio::spawn(actor.run(received));
        Ok((Manager { inputs, shared }, assigned))
    }

    /// Reads the committed state. Nothing waits while the closure runs but the actor.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        read(lock(&self.shared).cluster.objects())
    }

    /// Why this manager cannot decide at the moment.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.shared).trouble.clone()
    }

    /// Asks for a change; answered once it is durable.
    pub(crate) async fn request(&self, request: Request) -> Result<Answer, SwarmError> {
        let (answered, answer) = oneshot::channel();
        let ended = |_| SwarmError::Unavailable("the swarm is shutting down on this node".to_owned());
        self.inputs.send(Input::Request(request, answered)).await.map_err(|_| ended(()))?;
        match answer.await.map_err(|_| ended(()))? {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(refused)) => Err(refused),
            Err(other) => Err(SwarmError::Internal(other.to_string())),
        }
    }

    /// Where agents' events go.
    pub(crate) fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    /// Ends the actor; returns when the log is closed.
    pub(crate) async fn stop(&self) {
        let (stopped, stopping) = oneshot::channel();
        if self.inputs.send(Input::Stop(stopped)).await.is_ok() {
            // An actor that is gone has stopped.
            let _ = stopping.await;
        }
    }
}

fn lock(shared: &RwLock<Shared>) -> RwLockReadGuard<'_, Shared> {
    shared.read().expect("a panicking step ends the process")
}

fn lock_mut(shared: &RwLock<Shared>) -> RwLockWriteGuard<'_, Shared> {
    shared.write().expect("a panicking step ends the process")
}

/// The proposal in flight.
struct Flight {
    changes: Vec<Change>,
    fate: oneshot::Receiver<Fate>,
}

struct Actor {
    shared: Arc<RwLock<Shared>>,
    log: LogWorker,
    node: NodeId,
    ids: Ids,
    clock: Clock,
    announcer: Announcer,
    assignments: mpsc::Sender<Assignment>,
    open: HashMap<RequestId, oneshot::Sender<Result<Answer, CallError>>>,
    next_request: u64,
    flight: Option<Flight>,
    wake_at: Option<Time>,
    /// Set while the log cannot be used.
    reopen_at: Option<Time>,
    /// Entries since the last snapshot.
    entries: u64,
    /// The agent's opening word, said again to a brain that starts anew.
    session: Option<Event>,
}

/// What the actor woke up for.
enum Wake {
    Input(Option<Input>),
    Fate(Fate),
    Timer,
}

impl Actor {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        self.step(Event::Started).await;
        loop {
            let timer = self.timer();
            let wake = tokio::select! {
                biased;
                fate = landed(&mut self.flight) => Wake::Fate(fate),
                input = inputs.recv() => Wake::Input(input),
                () = timer => Wake::Timer,
            };
            match wake {
                Wake::Fate(fate) => self.landed(fate).await,
                Wake::Timer => self.tick().await,
                Wake::Input(Some(Input::Request(request, answered))) => self.request(request, answered).await,
                Wake::Input(Some(Input::Event(event))) => self.event(event).await,
                Wake::Input(Some(Input::Stop(stopped))) => return self.stop(stopped),
                Wake::Input(None) => return,
            }
        }
    }

    fn timer(&self) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        let next = [self.wake_at, self.reopen_at].into_iter().flatten().min();
        let wait = next.map(|at| at.since(self.clock.now()));
        Box::pin(async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        })
    }

    fn stop(self, stopped: oneshot::Sender<()>) {
        drop(self.log);
        // Whoever asked may be gone itself.
        let _ = stopped.send(());
    }

    async fn request(&mut self, request: Request, answered: oneshot::Sender<Result<Answer, CallError>>) {
        if self.reopen_at.is_some() {
            let trouble = lock(&self.shared).trouble.clone().unwrap_or_default();
            // The requester may be gone already.
            let _ = answered.send(Err(CallError::Refused(SwarmError::Unavailable(trouble))));
            return;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.open.insert(id, answered);
        self.step(Event::Request(id, request)).await;
    }

    async fn event(&mut self, event: Event) {
        if matches!(event, Event::NodeReady { .. }) {
            self.session = Some(event.clone());
        }
        // A brain that does not lead hears everything again when it starts anew.
        if self.reopen_at.is_none() {
            self.step(event).await;
        }
    }

    async fn tick(&mut self) {
        let now = self.clock.now();
        if self.reopen_at.is_some_and(|at| at <= now) {
            self.reopen().await;
        } else if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.step(Event::Tick).await;
        }
    }

    async fn step(&mut self, event: Event) {
        let now = self.clock.now();
        let output = lock_mut(&self.shared).cluster.step(event, now, &mut self.ids);
        self.perform(output).await;
    }

    async fn perform(&mut self, output: Output) {
        // A cluster of one manager keeps its seat.
        let Output { propose, replies, sends, wake_at, seats: _ } = output;
        if !propose.is_empty() {
            assert!(self.flight.is_none(), "one proposal is in flight at a time");
            let fate = self.log.propose(codec::encode(&propose));
            self.flight = Some(Flight { changes: propose, fate });
        }
        for reply in replies {
            if let Some(answered) = self.open.remove(&reply.to) {
                let trouble = lock(&self.shared).trouble.clone();
                // Whoever asked may have gone; the change stands.
                let _ = answered
                    .send(reply.result.map_err(|refusal| CallError::Refused(refused(refusal, trouble))));
            }
        }
        for (node, assignment) in sends {
            if node != self.node {
                warn!(%node, "an assignment for a node that is not in this cluster of one");
            } else if self.assignments.send(assignment).await.is_err() {
                debug!("the agent has ended: this node is on its way out");
            }
        }
        self.wake_at = wake_at;
    }

    async fn landed(&mut self, fate: Fate) {
        let Some(flight) = self.flight.take() else { return };
        match fate {
            Fate::Committed(index) => {
                let before = self.announcer.before(lock(&self.shared).cluster.objects(), &flight.changes);
                self.step(Event::Committed { index }).await;
                let now = self.clock.now();
                self.announcer.announce(before, lock(&self.shared).cluster.objects(), now);
                self.snapshot();
            }
            Fate::Refused(reason) => {
                warn!(reason, "the log refused a proposal");
                self.step(Event::Refused { reason }).await;
            }
            Fate::Unknown(reason) => self.step_down(reason).await,
        }
    }

    async fn step_down(&mut self, reason: String) {
        error!(reason, "the swarm's state cannot be written: this manager decides nothing until it can");
        lock_mut(&self.shared).trouble = Some(reason);
        self.step(Event::Deposed).await;
        self.wake_at = None;
        self.reopen_at = Some(self.clock.now() + REOPEN_DELAY);
    }

    /// Opens the log again and builds the state from what it holds: what was in flight may be there.
    async fn reopen(&mut self) {
        let restored = match self.log.reopen().await {
            Ok(recovery) => {
                self.entries = recovery.entries.len() as u64;
                restore(&recovery)
            }
            Err(error) => Err(StartError::Log(error)),
        };
        match restored {
            Ok(objects) => {
                *lock_mut(&self.shared) = Shared { cluster: Cluster::new(objects), trouble: None };
                self.reopen_at = None;
                info!("the swarm's state can be written again");
                self.step(Event::Started).await;
                if let Some(session) = self.session.clone() {
                    self.step(session).await;
                }
            }
            Err(error) => {
                lock_mut(&self.shared).trouble = Some(chain(&error));
                self.reopen_at = Some(self.clock.now() + REOPEN_DELAY);
            }
        }
    }

    fn snapshot(&mut self) {
        self.entries += 1;
        let shared = lock(&self.shared);
        let objects = shared.cluster.objects();
        let interval = objects.cluster().map_or(u64::MAX, |cluster| cluster.spec.snapshot_interval.max(1));
        if self.entries >= interval {
            self.log.compact(objects.applied(), codec::encode(&objects.snapshot()));
            self.entries = 0;
        }
    }
}

/// The fate of the proposal in flight; never, when there is none.
async fn landed(flight: &mut Option<Flight>) -> Fate {
    match flight {
        Some(flight) => match (&mut flight.fate).await {
            Ok(fate) => fate,
            Err(_) => Fate::Unknown("the log's thread is gone".to_owned()),
        },
        None => std::future::pending().await,
    }
}

fn refused(refusal: Refusal, trouble: Option<String>) -> SwarmError {
    let Refusal { kind, message } = refusal;
    match kind {
        RefusalKind::NotFound => SwarmError::NotFound(message),
        RefusalKind::Conflict => SwarmError::Conflict(message),
        RefusalKind::Invalid | RefusalKind::Precondition => SwarmError::InvalidParameter(message),
        RefusalKind::OutOfSequence | RefusalKind::Log => SwarmError::Internal(message),
        RefusalKind::Unavailable => SwarmError::Unavailable(trouble.unwrap_or(message)),
    }
}

#[cfg(test)]
mod tests;
