//! The leader's side of all sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_cluster::Event;
use skep_types::assignment::Assignment;
use skep_types::{NodeId, ServiceId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::{FromAgent, Hello, Link, News, ToAgent, Word};
use crate::manager::Input;
use crate::wire::CallError;

/// Beats that a node may miss. SwarmKit's `defaultGracePeriodMultiplier`.
const GRACE: u32 = 3;
/// Beats within which nodes have to find a new leader. SwarmKit gives them twice the usual, too.
const GRACE_OF_UNKNOWN: u32 = 2 * GRACE;
/// What an agent may leave unread; more, and its session is cut. It gets everything anew in the next.
const UNREAD: usize = 1024;
/// What an agent may say before it waits for the manager.
const UNHEARD: usize = 64;
/// Reports that go to the manager together, unless one batch of the agent has more.
const BATCH: usize = 1024;

/// The leader's sessions. Clones share them.
///
/// Nothing here waits for an agent: one that does not take what it is told has its session cut, and gets
/// everything anew in the next.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    inputs: mpsc::Sender<Input>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Numbers leads and sessions.
    latest: u64,
    lead: Option<Lead>,
}

#[derive(Debug)]
struct Lead {
    number: u64,
    period: watch::Sender<Duration>,
    sessions: HashMap<NodeId, Session>,
    /// Nodes that were there when the lead began and that have not opened a session yet.
    unknown: BTreeSet<NodeId>,
    /// Nodes that were let in under this lead and that have not opened a session yet.
    expected: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    /// `None` once it was cut.
    to_agent: Option<mpsc::Sender<ToAgent>>,
    /// Dropping it ends the session for good; a word on it only cuts the connection.
    cut: Option<oneshot::Sender<()>>,
    /// Whether the agent has been told all its duties. Differences before that are to another session's.
    whole: bool,
}

impl Session {
    /// Ends what connects the agent. If it does not come again, it is lost after its time of grace.
    fn cut(&mut self) {
        self.to_agent = None;
        if let Some(cut) = self.cut.take() {
            // Who attends to the session may have seen its end already.
            let _ = cut.send(());
        }
    }

    fn tell(&mut self, node: NodeId, told: ToAgent) {
        let Some(to_agent) = &self.to_agent else { return };
        match to_agent.try_send(told) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                warn!(%node, "a node does not read what it is told: its session is cut");
                self.cut();
            }
            Err(TrySendError::Closed(_)) => self.cut(),
        }
    }
}

fn not_leader() -> CallError {
    CallError::NotLeader { leader: None }
}

impl Sessions {
    /// No sessions, and no lead. Agents' events go to `inputs`.
    pub(crate) fn new(inputs: mpsc::Sender<Input>) -> Sessions {
        Sessions { inputs, table: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This manager leads from now on. Those of `nodes` that do not open a session within their time of grace are
    /// told as lost.
    pub(crate) fn lead(&self, period: Duration, nodes: impl IntoIterator<Item = NodeId>) {
        let unknown: BTreeSet<NodeId> = nodes.into_iter().collect();
        let mut table = self.lock();
        table.latest += 1;
        let number = table.latest;
        let (period, periods) = watch::channel(period);
        table.lead =
            Some(Lead { number, period, sessions: HashMap::new(), unknown, expected: BTreeSet::new() });
        drop(table);
        tokio::spawn(self.clone().beat(number, periods.clone()));
        tokio::spawn(self.clone().miss(number, periods));
    }

    /// A node was let in. If it does not open its first session within its time of grace, it is told as lost.
    pub(crate) fn expect(&self, node: NodeId) {
        let mut table = self.lock();
        let Some(lead) = &mut table.lead else { return };
        if lead.unknown.contains(&node) || lead.sessions.contains_key(&node) || !lead.expected.insert(node) {
            return;
        }
        let (number, grace) = (lead.number, *lead.period.borrow() * GRACE_OF_UNKNOWN);
        drop(table);
        let sessions = self.clone();
        tokio::spawn(async move {
            sleep(grace).await;
            let missed = match &mut sessions.lock().lead {
                Some(current) if current.number == number => current.expected.remove(&node),
                Some(_) | None => false,
            };
            if missed {
                let reason = "the node never came after it was let in".to_owned();
                sessions.say(Event::NodeLost { node, reason }).await;
            }
        });
    }

    /// This manager leads no longer: ends all sessions, so that agents look for the next leader at once. Nobody is
    /// told as lost.
    pub(crate) fn depose(&self) {
        self.lock().lead = None;
    }

    /// The time between heartbeats from now on.
    pub(crate) fn set_period(&self, period: Duration) {
        let mut table = self.lock();
        let Some(lead) = &mut table.lead else { return };
        if lead.period.send_replace(period) != period {
            for (node, session) in &mut lead.sessions {
                session.tell(*node, ToAgent::Beat(period));
            }
        }
    }

    /// Opens a session, after telling the brain that the node is ready. Ends the node's former one.
    ///
    /// # Errors
    /// When this manager does not lead; the caller fills in who does.
    pub(crate) async fn open(&self, node: NodeId, hello: Hello) -> Result<Link, CallError> {
        let room = self.inputs.reserve().await.map_err(|_| not_leader())?;
        let (to_agent, from_manager) = mpsc::channel(UNREAD);
        let (to_manager, from_agent) = mpsc::channel(UNHEARD);
        let (cut, ended) = oneshot::channel();
        let mut table = self.lock();
        let number = table.latest + 1;
        let Some(lead) = &mut table.lead else { return Err(not_leader()) };
        lead.unknown.remove(&node);
        lead.expected.remove(&node);
        let mut session = Session { number, to_agent: Some(to_agent), cut: Some(cut), whole: false };
        session.tell(node, ToAgent::Beat(*lead.period.borrow()));
        let attendant = Attendant {
            sessions: self.clone(),
            node,
            number,
            period: lead.period.subscribe(),
            heard: Instant::now(),
        };
        lead.sessions.insert(node, session);
        table.latest = number;
        let Hello { description, address, data_path } = hello;
        // Under the lock: what the brain answers to this finds the session.
        room.send(Input::Event(Event::NodeReady {
            node,
            description: Box::new(description),
            address,
            data_path,
        }));
        drop(table);
        tokio::spawn(attendant.attend(from_agent, ended));
        Ok(Link { to_manager, from_manager })
    }

    fn with(&self, node: NodeId, act: impl FnOnce(&mut Session)) {
        if let Some(session) = self.lock().lead.as_mut().and_then(|lead| lead.sessions.get_mut(&node)) {
            act(session);
        }
    }

    /// Sends a node what changed in its duties, as of a position of the log. Nothing happens where it has no session.
    pub(crate) fn send(&self, node: NodeId, number: u64, assignment: Assignment) {
        self.with(node, |session| {
            session.whole |= matches!(assignment, Assignment::Complete(_));
            if session.whole {
                session.tell(node, ToAgent::Assignment { number, assignment });
            }
        });
    }

    /// Tells one node something.
    pub(crate) fn tell(&self, node: NodeId, news: News) {
        self.with(node, |session| session.tell(node, ToAgent::News(news)));
    }

    /// Names the services whose tasks one node is to measure.
    pub(crate) fn measure(&self, node: NodeId, services: &BTreeSet<ServiceId>) {
        self.with(node, |session| session.tell(node, ToAgent::Measure(services.clone())));
    }

    /// Names the services whose tasks all nodes are to measure.
    pub(crate) fn measure_all(&self, services: &BTreeSet<ServiceId>) {
        if let Some(lead) = &mut self.lock().lead {
            for (node, session) in &mut lead.sessions {
                session.tell(*node, ToAgent::Measure(services.clone()));
            }
        }
    }

    /// Tells every node that has a session something.
    pub(crate) fn tell_all(&self, news: &News) {
        if let Some(lead) = &mut self.lock().lead {
            for (node, session) in &mut lead.sessions {
                session.tell(*node, ToAgent::News(news.clone()));
            }
        }
    }

    /// Ends the session of a node that was removed. It is not told as lost.
    pub(crate) fn end(&self, node: NodeId) {
        if let Some(lead) = &mut self.lock().lead {
            lead.sessions.remove(&node);
            lead.unknown.remove(&node);
            lead.expected.remove(&node);
        }
    }

    /// Whether a node's agent is connected.
    #[cfg(test)]
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        let table = self.lock();
        let session = table.lead.as_ref().and_then(|lead| lead.sessions.get(&node));
        session.is_some_and(|session| session.to_agent.is_some())
    }

    /// Asks all agents at a time whether they are there, which costs a fraction of hearing from each at a time of its own:
    /// answers that come together wake the leader once. Agents that hear of their leader need not ask for it.
    async fn beat(self, lead: u64, mut periods: watch::Receiver<Duration>) {
        loop {
            let period = *periods.borrow_and_update();
            tokio::select! {
                () = sleep(period) => {}
                changed = periods.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let mut table = self.lock();
            let Some(current) = table.lead.as_mut().filter(|current| current.number == lead) else { return };
            for (node, session) in &mut current.sessions {
                session.tell(*node, ToAgent::Beat(period));
            }
        }
    }

    /// Tells the nodes as lost that did not find their new leader.
    async fn miss(self, lead: u64, mut period: watch::Receiver<Duration>) {
        let grace = *period.borrow_and_update() * GRACE_OF_UNKNOWN;
        sleep(grace).await;
        let unknown = match &mut self.lock().lead {
            Some(current) if current.number == lead => std::mem::take(&mut current.unknown),
            Some(_) | None => return,
        };
        for node in unknown {
            // SwarmKit's words.
            let reason = "heartbeat failure for node in \"unknown\" state".to_owned();
            self.say(Event::NodeLost { node, reason }).await;
        }
    }

    async fn say(&self, event: Event) {
        // A manager that is gone leads no more.
        let _ = self.inputs.send(Input::Event(event)).await;
    }

    /// Takes a session away; says whether it was still there.
    fn close(&self, node: NodeId, number: u64) -> bool {
        let mut table = self.lock();
        let Some(lead) = &mut table.lead else { return false };
        let current = lead.sessions.get(&node).is_some_and(|session| session.number == number);
        if current {
            lead.sessions.remove(&node);
        }
        current
    }
}

/// Listens to one agent.
struct Attendant {
    sessions: Sessions,
    node: NodeId,
    number: u64,
    period: watch::Receiver<Duration>,
    /// When the agent last said something.
    heard: Instant,
}

/// How a connection with an agent ended.
enum Ending {
    /// Another session, another leader, or no such node any more.
    Over,
    /// The agent may come again within its time of grace.
    Loose,
}

impl Attendant {
    async fn attend(mut self, from_agent: mpsc::Receiver<FromAgent>, ended: oneshot::Receiver<()>) {
        if let Ending::Over = self.listen(from_agent, ended).await {
            return;
        }
        sleep_until(self.deadline()).await;
        if self.sessions.close(self.node, self.number) {
            debug!(node = %self.node, "a node missed its heartbeats");
            let reason = "heartbeat failure".to_owned();
            self.sessions.say(Event::NodeLost { node: self.node, reason }).await;
        }
    }

    fn deadline(&self) -> Instant {
        self.heard + *self.period.borrow() * GRACE
    }

    async fn listen(
        &mut self,
        mut from_agent: mpsc::Receiver<FromAgent>,
        mut ended: oneshot::Receiver<()>,
    ) -> Ending {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                ended = &mut ended => return if ended.is_ok() { Ending::Loose } else { Ending::Over },
                said = from_agent.recv() => {
                    let Some(said) = said else { return Ending::Loose };
                    self.heard = Instant::now();
                    let Word { reports, acknowledged, usage } = gather(said, &mut from_agent);
                    if !reports.is_empty() {
                        self.sessions.say(Event::Reports(self.node, reports)).await;
                    }
                    if let Some(number) = acknowledged {
                        self.sessions.say(Event::Acknowledged { node: self.node, number }).await;
                    }
                    if !usage.is_empty() {
                        self.sessions.say(Event::Usage(self.node, usage)).await;
                    }
                }
                // Lost, unless it was this machine that stood still: then the agent's beats are still on their way.
                () = sleep_until(deadline) => {
                    if deadline.elapsed() < *self.period.borrow() {
                        self.cut();
                        return Ending::Loose;
                    }
                    self.heard = Instant::now();
                }
                changed = self.period.changed() => {
                    if changed.is_err() {
                        return Ending::Over;
                    }
                }
            }
        }
    }

    fn cut(&self) {
        self.sessions.with(self.node, |session| {
            if session.number == self.number {
                session.cut();
            }
        });
    }
}

/// What waits, together.
fn gather(first: FromAgent, from_agent: &mut mpsc::Receiver<FromAgent>) -> Word {
    let mut word = Word::default();
    let mut next = Some(first);
    while let Some(said) = next {
        match said {
            FromAgent::Reports(more) => word.reports.extend(more),
            FromAgent::Acknowledged(number) => word.acknowledged = Some(number),
            FromAgent::Usage(latest) => word.usage = latest,
            FromAgent::Beat => {}
        }
        next = if word.reports.len() < BATCH { from_agent.try_recv().ok() } else { None };
    }
    word
}
