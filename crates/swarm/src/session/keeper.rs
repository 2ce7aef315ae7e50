//! The agent's side: keeps a session with whoever leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_types::ServiceId;
use skep_types::assignment::{Assignment, StatusReport, TaskUsage};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::{Connector, FromAgent, Hello, Link, News, ToAgent};

/// Waits between tries to find the leader. The last is what a new leader may be missed by.
const PAUSES_MS: [u64; 4] = [50, 100, 200, 400];
/// A session that ends sooner than this counts as a failed try.
const SHORT: Duration = Duration::from_secs(1);
/// Time between beats until the leader says otherwise.
const FIRST_PERIOD: Duration = Duration::from_secs(1);

/// Carries between the agent and its leaders. What it has taken is sent in the next session if it was not in this
/// one; what was sent and got lost, the agent reports again after a leader named all its duties.
pub(crate) struct Keeper<C> {
    pub(crate) connector: Arc<C>,
    /// A new value opens a new session.
    pub(crate) hello: watch::Receiver<Hello>,
    pub(crate) agent: mpsc::Sender<Told>,
    pub(crate) news: mpsc::Sender<News>,
    /// One is taken at a time, so that what comes later gathers at the agent.
    pub(crate) words: mpsc::Receiver<Word>,
}

/// What the agent has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// What became of its tasks.
    pub(crate) reports: Vec<StatusReport>,
    /// See [`FromAgent::Acknowledged`]. It says how things are, whoever it is said to.
    pub(crate) acknowledged: Option<u64>,
    /// What tasks used of late. It is said in the session that it was measured in, or never.
    pub(crate) usage: Vec<TaskUsage>,
}

impl Word {
    /// The next part to be said.
    fn part(&mut self) -> Option<FromAgent> {
        if !self.reports.is_empty() {
            return Some(FromAgent::Reports(std::mem::take(&mut self.reports)));
        }
        if let Some(number) = self.acknowledged.take() {
            return Some(FromAgent::Acknowledged(number));
        }
        let usage = std::mem::take(&mut self.usage);
        (!usage.is_empty()).then_some(FromAgent::Usage(usage))
    }
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A leader's word, as of a position of the log.
    Assigned { number: u64, assignment: Assignment },
    /// The tasks of these services are to be measured, and of no others.
    Measure(BTreeSet<ServiceId>),
    /// No leader is heard any more.
    Alone,
}

/// Why a session is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The agent is gone.
    Agent,
    /// The leader ended it, or cannot be reached.
    Leader,
    /// There is something new to say of the node.
    Hello,
}

impl<C: Connector> Keeper<C> {
    /// Ends when the agent does.
    pub(crate) async fn run(mut self) {
        let mut kept = Word::default();
        let mut failures = 0;
        loop {
            let hello = self.hello.borrow_and_update().clone();
            let connected = tokio::select! {
                connected = self.connector.connect(hello) => connected,
                () = self.agent.closed() => return,
            };
            match connected {
                Ok(link) => {
                    let began = Instant::now();
                    info!("the session with the cluster's leader is open");
                    let ending = self.hold(link, &mut kept).await;
                    if self.agent.send(Told::Alone).await.is_err() {
                        return;
                    }
                    match ending {
                        Ending::Agent => return,
                        Ending::Hello => failures = 0,
                        Ending::Leader if began.elapsed() >= SHORT => {
                            info!("the session with the cluster's leader ended");
                            failures = 0;
                            // The first try follows at once.
                            continue;
                        }
                        Ending::Leader => failures += 1,
                    }
                }
                Err(error) => {
                    debug!(%error, "no leader to open a session with");
                    failures += 1;
                }
            }
            tokio::select! {
                () = sleep(pause(failures)) => {}
                () = self.agent.closed() => return,
            }
        }
    }

    /// Carries on one session until it ends.
    async fn hold(&mut self, link: Link, kept: &mut Word) -> Ending {
        let Link { to_manager, mut from_manager } = link;
        // What waited for a session was measured before it.
        if *kept == Word::default() {
            *kept = self.words.try_recv().unwrap_or_default();
        }
        kept.usage.clear();
        let mut period = FIRST_PERIOD;
        let mut said = Instant::now();
        loop {
            tokio::select! {
                told = from_manager.recv() => {
                    let carried = match told {
                        Some(ToAgent::Assignment { number, assignment }) => {
                            self.agent.send(Told::Assigned { number, assignment }).await.is_ok()
                        }
                        Some(ToAgent::Measure(services)) => {
                            self.agent.send(Told::Measure(services)).await.is_ok()
                        }
                        Some(ToAgent::News(news)) => {
                            // A node that listens no more is on its way out.
                            let _ = self.news.send(news).await;
                            true
                        }
                        Some(ToAgent::Beat(told)) => {
                            period = told;
                            if !beat(&to_manager) {
                                return Ending::Leader;
                            }
                            said = Instant::now();
                            true
                        }
                        None => return Ending::Leader,
                    };
                    if !carried {
                        return Ending::Agent;
                    }
                }
                word = self.words.recv(), if *kept == Word::default() => match word {
                    Some(word) => *kept = word,
                    None => return Ending::Agent,
                },
                room = to_manager.reserve(), if *kept != Word::default() => {
                    let Ok(room) = room else { return Ending::Leader };
                    if let Some(part) = kept.part() {
                        room.send(part);
                        said = Instant::now();
                    }
                }
                // A leader that was delayed still hears of the agent in time.
                () = sleep_until(said + period * 3 / 2) => {
                    said = Instant::now();
                    if !beat(&to_manager) {
                        return Ending::Leader;
                    }
                }
                Ok(()) = self.hello.changed() => return Ending::Hello,
                () = self.agent.closed() => return Ending::Agent,
            }
        }
    }
}

/// Says that the agent is there; words that still wait to be carried say it, too. Gives whether the leader can be reached.
fn beat(to_manager: &mpsc::Sender<FromAgent>) -> bool {
    !matches!(to_manager.try_send(FromAgent::Beat), Err(mpsc::error::TrySendError::Closed(_)))
}

fn pause(failures: usize) -> Duration {
    let millis = PAUSES_MS[failures.saturating_sub(1).min(PAUSES_MS.len() - 1)];
    // Agents that lost their leader together do not come again together.
    let mut random = [0; 1];
    let drawn = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()).is_ok();
    let part = if drawn { u64::from(random[0]) } else { 128 };
    Duration::from_millis(millis / 2 + millis * part / 512)
}
