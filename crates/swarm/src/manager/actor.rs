//! The actor: select one event, step the brain, perform what it decided.
//!
//! An answer that rests on an entry of the log is only ever given by the brain after it was told that the entry is
//! agreed on. Sessions are open only while this manager leads: what a leader decides that was deposed reaches nobody.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skep_cluster::{Answer, Change, Cluster, Event, Force, Objects, Output, Request, RequestId};
use skep_consensus::{Config, Consensus, LogError, Notice, ProposalId, Snapshot, Standing, Transport};
use skep_types::{Ids, NodeId, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::Input;
use super::news::{self, Teller};
use super::requests::refused;
use super::seats::Seats;
use super::shared::Shared;
use crate::announce::Announcer;
use crate::clock::Clock;
use crate::codec::{self, DecodeError};
use crate::error::chain;
use crate::session::Sessions;
use crate::wire::CallError;

/// Wait before a log that failed is opened again.
const REOPEN_DELAY: Duration = Duration::from_secs(1);
/// Heartbeats' period before the cluster's settings are known.
const BEAT: Duration = Duration::from_secs(1);

/// The log, open, and how to open it again.
pub(super) struct Log {
    config: Config,
    transport: Arc<dyn Transport>,
    /// `None` while it cannot be used.
    open: Option<Open>,
}

struct Open {
    consensus: Consensus,
    notices: mpsc::Receiver<Notice>,
    standing: watch::Receiver<Standing>,
}

impl Log {
    /// Opens it.
    pub(super) async fn open(config: Config, transport: Arc<dyn Transport>) -> Result<Log, LogError> {
        let mut log = Log { config, transport, open: None };
        log.reopen().await?;
        Ok(log)
    }

    async fn reopen(&mut self) -> Result<(), LogError> {
        let (consensus, notices) = Consensus::open(self.config.clone(), Arc::clone(&self.transport)).await?;
        let mut standing = consensus.standing();
        // The actor looks at it before it waits for a change.
        standing.mark_changed();
        self.open = Some(Open { consensus, notices, standing });
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.consensus.stop().await;
        }
    }

    /// The next thing to be told: pends while the log cannot be used.
    async fn next(&mut self) -> Told {
        let Some(open) = &mut self.open else { return std::future::pending().await };
        tokio::select! {
            biased;
            notice = open.notices.recv() => Told::Notice(notice.unwrap_or_else(|| Notice::Failed {
                reason: "the managers' consensus ended by itself".to_owned(),
                damaged: false,
            })),
            Ok(()) = open.standing.changed() => Told::Standing(open.standing.borrow_and_update().clone()),
        }
    }
}

/// What the consensus tells.
enum Told {
    Notice(Notice),
    Standing(Standing),
}

/// Why what the log holds cannot be used.
#[derive(Debug, thiserror::Error)]
enum UnusableError {
    #[error("cannot read entry {index} of the swarm's state")]
    Entry {
        index: u64,
        #[source]
        source: DecodeError,
    },
    #[error("cannot use the snapshot of the swarm's state")]
    Snapshot(#[from] skep_cluster::RestoreError),
}

/// The proposal in flight.
struct Flight {
    id: ProposalId,
    changes: Vec<Change>,
}

/// The manager actor.
pub(super) struct Actor {
    shared: Arc<Shared>,
    log: Log,
    ids: Ids,
    clock: Clock,
    announcer: Announcer,
    sessions: Sessions,
    seats: Seats,
    teller: Teller,
    open: HashMap<RequestId, oneshot::Sender<Result<Answer, CallError>>>,
    next_request: u64,
    next_proposal: ProposalId,
    /// The term that it was last told to lead in: what is decided holds in no other.
    term: u64,
    flight: Option<Flight>,
    /// Whether the brain was told to lead.
    leads: bool,
    wake_at: Option<Time>,
    /// Set while the log cannot be used.
    reopen_at: Option<Time>,
    /// Entries since the last snapshot.
    entries: u64,
    /// How the consensus stands, whatever the brain was told.
    standing: Standing,
}

/// What the actor woke up for.
enum Wake {
    Told(Told),
    Input(Option<Input>),
    SeatStep,
    Timer,
}

impl Actor {
    pub(super) fn new(
        shared: Arc<Shared>,
        log: Log,
        ids: Ids,
        announcer: Announcer,
        sessions: Sessions,
        seats: Seats,
    ) -> Actor {
        shared.lock_mut().consensus = log.open.as_ref().map(|open| open.consensus.clone());
        Actor {
            shared,
            log,
            ids,
            clock: Clock::default(),
            announcer,
            sessions,
            seats,
            teller: Teller::default(),
            open: HashMap::new(),
            next_request: 0,
            next_proposal: 0,
            term: 0,
            flight: None,
            leads: false,
            wake_at: None,
            reopen_at: None,
            entries: 0,
            standing: Standing::default(),
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let next = [self.wake_at, self.reopen_at].into_iter().flatten().min();
            let timer = wait_until(next, self.clock.now());
            let wake = tokio::select! {
                biased;
                told = self.log.next() => Wake::Told(told),
                () = self.seats.ended() => Wake::SeatStep,
                input = inputs.recv() => Wake::Input(input),
                () = timer => Wake::Timer,
            };
            match wake {
                Wake::Told(Told::Notice(notice)) => self.notice(notice).await,
                Wake::Told(Told::Standing(standing)) => self.stand(standing),
                Wake::SeatStep => {}
                Wake::Timer => self.tick().await,
                Wake::Input(Some(Input::Request(request, answered))) => self.request(request, answered),
                Wake::Input(Some(Input::Event(event))) => self.event(event),
                Wake::Input(Some(Input::Stop(stopped))) => return self.stop(stopped).await,
                Wake::Input(None) => return,
            }
        }
    }

    async fn stop(mut self, stopped: oneshot::Sender<()>) {
        self.follow(Some("the swarm is shutting down on this node"));
        self.shared.lock_mut().consensus = None;
        self.log.close().await;
        // Whoever asked may be gone itself.
        let _ = stopped.send(());
    }

    fn request(&mut self, request: Request, answered: oneshot::Sender<Result<Answer, CallError>>) {
        if !self.leads {
            // The requester may be gone already.
            let _ = answered.send(Err(self.shared.not_leader()));
            return;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.open.insert(id, answered);
        self.step(Event::Request(id, request));
    }

    fn event(&mut self, event: Event) {
        // A brain that does not lead hears everything again when agents open sessions with it.
        if !self.leads {
            return;
        }
        let opened = match &event {
            Event::NodeReady { node, .. } => Some(*node),
            Event::NodeLost { node, .. } if self.is_ghost(*node) => return self.forget(*node),
            _ => None,
        };
        self.step(event);
        if let Some(node) = opened {
            self.shared.read(|objects| self.teller.greet(objects, &self.sessions, node));
        }
    }

    /// Whether a node was let in but has never come: its join was cut off, and the next try is another node.
    fn is_ghost(&self, node: NodeId) -> bool {
        self.shared.read(|objects| objects.node(node).is_some_and(news::never_came))
    }

    fn forget(&mut self, node: NodeId) {
        info!(%node, "a node that was let in never came: it is removed");
        self.wish(Some(Request::RemoveNode { id: node, force: Force::Yes }));
    }

    async fn tick(&mut self) {
        let now = self.clock.now();
        if self.reopen_at.is_some_and(|at| at <= now) {
            self.reopen().await;
        } else if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.step(Event::Tick);
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.clock.now();
        let output = self.shared.lock_mut().cluster.step(event, now, &mut self.ids);
        self.shared.tell_applied();
        self.perform(output);
    }

    fn perform(&mut self, output: Output) {
        let Output { propose, replies, sends, seats, wake_at } = output;
        if !propose.is_empty() {
            assert!(self.flight.is_none(), "one proposal is in flight at a time");
            if let Some(open) = &self.log.open {
                self.next_proposal += 1;
                open.consensus.propose(self.term, self.next_proposal, codec::encode(&propose));
                self.flight = Some(Flight { id: self.next_proposal, changes: propose });
            }
        }
        for reply in replies {
            if let Some(answered) = self.open.remove(&reply.to) {
                let result = reply.result.map_err(|refusal| refused(refusal, self.shared.trouble()));
                // Whoever asked may have gone; the change stands.
                let _ = answered.send(result);
            }
        }
        if !sends.is_empty() {
            let number = self.shared.read(Objects::applied);
            for (node, assignment) in sends {
                self.sessions.send(node, number, assignment);
            }
        }
        if let Some(open) = &self.log.open {
            for step in seats {
                self.seats.perform(step, open.consensus.clone());
            }
        }
        self.wake_at = wake_at;
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Restored(snapshot) => {
                if let Err(error) = self.restore(&snapshot) {
                    self.give_up(&error).await;
                }
            }
            Notice::Committed { index, payload, own } => {
                if let Err(error) = self.committed(index, payload, own) {
                    self.give_up(&error).await;
                }
            }
            Notice::Leads { term } => self.lead(term),
            Notice::Follows { leader } => {
                if self.leads {
                    info!(leader = ?leader.map(|(_, address)| address), "this manager leads the swarm no longer");
                }
                self.follow(None);
            }
            Notice::Refused { id, reason } => {
                if self.flight.take_if(|flight| flight.id == id).is_some() {
                    warn!(reason, "the log refused a proposal");
                    self.step(Event::Refused { reason });
                }
            }
            Notice::Failed { reason, damaged: true } => {
                let reason = damage(&reason, &self.log.config.file());
                error!(reason, "the swarm's state is damaged: this manager takes no part any more");
                self.step_down(reason).await;
            }
            Notice::Failed { reason, damaged: false } => {
                error!(
                    reason,
                    "the swarm's state cannot be written: this manager takes no part until it can"
                );
                self.step_down(reason).await;
                self.reopen_at = Some(self.clock.now() + REOPEN_DELAY);
            }
        }
    }

    fn lead(&mut self, term: u64) {
        info!(term, "this manager leads the swarm");
        (self.leads, self.term) = (true, term);
        self.shared.lock_mut().trouble = None;
        if let Some(open) = &mut self.log.open {
            // Of before, it would say that nobody is reached.
            self.standing = open.standing.borrow_and_update().clone();
        }
        self.step(Event::Started);
        let wish = self.shared.read(|objects| {
            let period = objects.cluster().map_or(BEAT, |cluster| cluster.spec.heartbeat);
            self.sessions.lead(period, objects.nodes().map(|node| node.id));
            self.teller.begin(objects)
        });
        self.step(Event::Reachable(self.standing.reachable.clone()));
        self.show_standing();
        self.wish(wish);
    }

    /// Asks the brain for what the leader itself wants. Refused, it is wanted again after the next change.
    fn wish(&mut self, request: Option<Request>) {
        if let Some(request) = request {
            let id = RequestId(self.next_request);
            self.next_request += 1;
            self.step(Event::Request(id, request));
        }
    }

    /// Ends the lead, if this manager had it: sessions first, so that nobody hears of what is decided no more.
    fn follow(&mut self, trouble: Option<&str>) {
        if let Some(trouble) = trouble {
            self.shared.lock_mut().trouble = Some(trouble.to_owned());
        }
        if !std::mem::replace(&mut self.leads, false) {
            return;
        }
        self.sessions.depose();
        self.show_standing();
        // It may still be agreed on, and then comes back as another's.
        self.flight = None;
        self.step(Event::Deposed);
        self.wake_at = None;
    }

    fn stand(&mut self, standing: Standing) {
        if standing.leader.is_some() && !standing.leads {
            // A follower whose disk works again has no entry of its own to show for it.
            self.shared.lock_mut().trouble = None;
        }
        let moved = standing.reachable != self.standing.reachable;
        self.standing = standing;
        self.show_standing();
        if self.leads && moved {
            self.step(Event::Reachable(self.standing.reachable.clone()));
        }
    }

    /// Others see this manager lead when its brain does.
    fn show_standing(&self) {
        self.shared.set_standing(Standing { leads: self.leads, ..self.standing.clone() });
    }

    /// Takes an entry that is agreed on. After the log was opened again entries are told that are known already.
    fn committed(
        &mut self,
        index: u64,
        payload: Option<Vec<u8>>,
        own: Option<ProposalId>,
    ) -> Result<(), UnusableError> {
        if index <= self.shared.read(Objects::applied) {
            return Ok(());
        }
        let flight = self.flight.take_if(|flight| Some(flight.id) == own);
        let is_own = flight.is_some();
        let changes = match (flight, payload) {
            (Some(flight), _) => flight.changes,
            (None, Some(bytes)) => {
                codec::decode(&bytes).map_err(|source| UnusableError::Entry { index, source })?
            }
            // It only moves the position.
            (None, None) => Vec::new(),
        };
        let before = self.shared.read(|objects| self.announcer.before(objects, &changes));
        let touched = news::touched(&changes);
        self.step(if is_own { Event::Committed { index } } else { Event::Applied { index, changes } });
        let now = self.clock.now();
        let wish = self.shared.read(|objects| {
            self.announcer.announce(before, objects, now);
            if self.leads { self.teller.tell(objects, &self.sessions, &touched) } else { None }
        });
        self.wish(wish);
        self.snapshot();
        Ok(())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), UnusableError> {
        if snapshot.index <= self.shared.read(Objects::applied) {
            return Ok(());
        }
        let source = |source| UnusableError::Entry { index: snapshot.index, source };
        let objects = Objects::restore(codec::decode(&snapshot.payload).map_err(source)?)?;
        self.shared.lock_mut().cluster = Cluster::new(objects);
        self.shared.tell_applied();
        self.entries = 0;
        Ok(())
    }

    fn snapshot(&mut self) {
        self.entries += 1;
        let (consensus, entries) = (&self.log.open, self.entries);
        let due = self.shared.read(|objects| {
            let interval =
                objects.cluster().map_or(u64::MAX, |cluster| cluster.spec.snapshot_interval.max(1));
            (entries >= interval).then(|| (objects.applied(), objects.snapshot()))
        });
        if let (Some((index, snapshot)), Some(open)) = (due, consensus) {
            open.consensus.compact(index, codec::encode(&snapshot));
            self.entries = 0;
        }
    }

    /// Takes no part any more: the log holds what this program cannot use. Another program may.
    async fn give_up(&mut self, error: &UnusableError) {
        let reason = chain(error);
        error!(reason, "the swarm's state cannot be read: this manager takes no part any more");
        self.step_down(reason).await;
    }

    async fn step_down(&mut self, reason: String) {
        self.follow(Some(&reason));
        self.shared.lock_mut().consensus = None;
        self.standing = Standing::default();
        self.show_standing();
        self.log.close().await;
    }

    /// Opens the log again. The state stays: whatever was told is in the log.
    async fn reopen(&mut self) {
        match self.log.reopen().await {
            Ok(()) => {
                info!("the swarm's state could be opened again");
                self.reopen_at = None;
                self.shared.lock_mut().consensus = self.log.open.as_ref().map(|open| open.consensus.clone());
            }
            Err(error) if error.is_damage() => {
                let reason = damage(&chain(&error), &self.log.config.file());
                error!(reason, "the swarm's state is damaged: this manager takes no part any more");
                self.shared.lock_mut().trouble = Some(reason);
                self.reopen_at = None;
            }
            Err(error) => {
                self.shared.lock_mut().trouble = Some(chain(&error));
                self.reopen_at = Some(self.clock.now() + REOPEN_DELAY);
            }
        }
    }
}

/// What a user is told of damage: where, and what to do.
pub(super) fn damage(reason: &str, file: &Path) -> String {
    format!(
        "{reason} (file {}). Where other managers go on, this node can leave with `docker swarm leave --force`, be \
         removed there with `docker node demote` and `docker node rm`, and join again",
        file.display()
    )
}

async fn wait_until(at: Option<Time>, now: Time) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now)).await,
        None => std::future::pending().await,
    }
}
