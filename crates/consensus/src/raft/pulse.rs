//! Who is alive: the leader's pulse, and elections when it stops.
//!
//! openraft 0.9 elects by a timer in its core and has no vote before the vote. So its elections are switched off,
//! and held here: a member that hears no leader for a random time asks the others whether they would vote for it,
//! and stands only when a majority would. A member that was cut off, or that alone has no connection to a good
//! leader, changes nothing by asking. A leader that hears no majority for long gives up.
//!
//! All of this decides when to elect, never what is agreed on: that is openraft's.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::metrics::RaftMetrics;
use openraft::raft::VoteRequest;
use openraft::{BasicNode, CommittedLeaderId, LogId, ServerState, Vote};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::herald::{Herald, View};
use super::members::change_members;
use super::network::Network;
use super::wire::{Answer, Question};
use super::{Raft, index_of};
use crate::log::{Index, Term};
use crate::notice::{RaftId, Seat, Standing};

pub(crate) type Metrics = RaftMetrics<RaftId, BasicNode>;

/// Signs of life of other members.
#[derive(Default)]
pub(crate) struct Signs {
    /// When the leader was last heard.
    leader: Option<Instant>,
    /// When each member last answered this leader.
    members: BTreeMap<RaftId, Instant>,
}

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Pulse {
    pub(crate) id: RaftId,
    pub(crate) raft: Raft,
    pub(crate) network: Network,
    pub(crate) herald: Arc<Herald>,
    pub(crate) view: Arc<watch::Sender<View>>,
    pub(crate) signs: Arc<Mutex<Signs>>,
    /// Held during a change of members.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) heartbeat: Duration,
    pub(crate) election: Range<Duration>,
}

/// What the pulse task remembers.
struct Course {
    /// When to stand for election if nothing is heard until then.
    deadline: Instant,
    /// It has stood since it last led or heard a leader. A single member need not wait before it does.
    stood: bool,
    /// The term led in, and since when.
    leads: Option<(Term, Instant)>,
    next_beat: Instant,
    last_tick: Instant,
    /// While this member leads: since when it knows each other one, and whether it has told that one to be silent.
    watched: BTreeMap<RaftId, (Instant, bool)>,
}

impl Course {
    /// Says who answers no longer, and who does again: once each, though every message to them fails.
    fn tell_silent(&mut self, metrics: &Metrics, heard: &BTreeSet<RaftId>, patience: Duration) {
        let members = metrics.membership_config.membership();
        self.watched.retain(|id, _| members.get_node(id).is_some());
        for (id, node) in members.nodes() {
            let (since, silent) = self.watched.entry(*id).or_insert_with(|| (Instant::now(), false));
            if heard.contains(id) {
                if std::mem::replace(silent, false) {
                    tracing::info!(address = node.addr, "a manager answers again");
                }
            } else if since.elapsed() > patience && !std::mem::replace(silent, true) {
                tracing::warn!(address = node.addr, "a manager does not answer");
            }
        }
    }
}

impl Pulse {
    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of a leader of `term` came.
    pub(crate) fn heard_leader(&self, term: Term) {
        if term >= self.raft.metrics().borrow().current_term {
            self.signs().leader = Some(Instant::now());
        }
    }

    fn hears_leader(&self, within: Duration) -> bool {
        self.signs().leader.is_some_and(|at| at.elapsed() < within)
    }

    /// Whether this member would vote for one whose log ends at `last`.
    pub(crate) async fn would_vote(&self, last: Option<LogId<RaftId>>) -> bool {
        let leads = self.raft.metrics().borrow().state == ServerState::Leader;
        if leads || self.hears_leader(self.election.start) {
            return false;
        }
        self.network.store().last().await.is_ok_and(|own| last >= own)
    }

    fn random_wait(&self) -> Duration {
        let span = self.election.end.saturating_sub(self.election.start).as_millis().max(1) as u64;
        // Any source will do that differs between members.
        let random = RandomState::new().hash_one(self.id);
        self.election.start + Duration::from_millis(random % span)
    }

    /// Runs until openraft stops.
    pub(crate) async fn run(self) {
        let now = Instant::now();
        let mut course = Course {
            deadline: now + self.random_wait(),
            stood: false,
            leads: None,
            next_beat: now,
            last_tick: now,
            watched: BTreeMap::new(),
        };
        let mut metrics = self.raft.metrics();
        let mut ticks = tokio::time::interval(self.heartbeat / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = JoinSet::new();
        loop {
            let ticked = tokio::select! {
                _ = ticks.tick() => true,
                changed = metrics.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
            };
            while beats.try_join_next().is_some() {}
            let now = metrics.borrow_and_update().clone();
            if now.running_state.is_err() {
                return;
            }
            let view = self.look(&now);
            self.view.send_replace(view.clone());
            self.herald.settle(&view);
            if ticked {
                match view.leads {
                    Some(term) => self.lead(&now, term, &mut course, &mut beats).await,
                    None => self.follow(&now, &mut course).await,
                }
            } else if let (Some(term), None) = (view.leads, course.leads) {
                self.lead(&now, term, &mut course, &mut beats).await;
            }
            self.publish(&now, &view);
        }
    }

    /// Who leads by `metrics`; nobody when the leader has been silent for long.
    fn look(&self, metrics: &Metrics) -> View {
        let vote = &metrics.vote;
        let own = metrics.state == ServerState::Leader
            && vote.committed
            && vote.leader_id().voted_for() == Some(self.id)
            && vote.leader_id().get_term() == metrics.current_term;
        let leader = metrics.current_leader.filter(|leader| match *leader == self.id {
            true => own,
            false => self.hears_leader(self.election.end),
        });
        let members = metrics.membership_config.membership();
        let address = |id: RaftId| members.get_node(&id).map(|node| (id, node.addr.clone()));
        View { leads: own.then_some(metrics.current_term), leader: leader.and_then(address) }
    }

    fn publish(&self, metrics: &Metrics, view: &View) {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        let seat = |(id, node): (&RaftId, &BasicNode)| {
            (*id, Seat { address: node.addr.clone(), voter: voters.contains(id) })
        };
        let members: BTreeMap<RaftId, Seat> = membership.nodes().map(seat).collect();
        let reachable = match view.leads {
            Some(_) => {
                let mut heard = self.heard(self.election.end);
                heard.retain(|id| members.contains_key(id));
                heard
            }
            None => BTreeSet::new(),
        };
        let (leader, term) = (view.leader.clone(), metrics.current_term);
        self.herald.publish(Standing { leads: false, leader, term, members, reachable });
    }

    /// Members that answered within `within`, this one included.
    fn heard(&self, within: Duration) -> BTreeSet<RaftId> {
        let signs = self.signs();
        let heard = signs.members.iter().filter(|(_, at)| at.elapsed() < within).map(|(id, _)| *id);
        heard.chain([self.id]).collect()
    }

    async fn lead(&self, metrics: &Metrics, term: Term, course: &mut Course, beats: &mut JoinSet<()>) {
        let now = Instant::now();
        if course.leads.is_none_or(|(led, _)| led != term) {
            course.leads = Some((term, now));
            course.stood = false;
            course.next_beat = now;
            course.watched.clear();
            self.signs().members.clear();
        }
        self.finish_change(metrics);
        let patience = self.election.end * 3;
        let since = course.leads.map_or(now, |(_, since)| since);
        let heard = self.heard(patience);
        if now.duration_since(since) > patience && !is_quorum(metrics, &heard) {
            self.give_up(term).await;
            return;
        }
        course.tell_silent(metrics, &heard, patience);
        if now < course.next_beat || !self.network.may_lead() {
            return;
        }
        course.next_beat = now + self.heartbeat;
        for (id, node) in metrics.membership_config.membership().nodes() {
            if *id == self.id {
                continue;
            }
            let (pulse, id, node) = (self.clone(), *id, node.clone());
            beats.spawn(async move {
                let question = Question::Pulse { term };
                let asked = pulse.network.ask(id, &node.addr, question);
                if let Ok(Ok(Answer::Done)) = timeout(pulse.election.end, asked).await {
                    pulse.signs().members.insert(id, Instant::now());
                }
            });
        }
    }

    /// A change of members that nobody is at any more, because its leader is gone or it took too long, is between two
    /// sets of voters: ends it.
    fn finish_change(&self, metrics: &Metrics) {
        if metrics.membership_config.membership().get_joint_config().len() < 2 {
            return;
        }
        let Ok(turn) = self.changing.clone().try_lock_owned() else { return };
        let pulse = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            // What was seen before the turn was free may be over.
            let members = pulse.raft.metrics().borrow().membership_config.clone();
            if members.membership().get_joint_config().len() > 1 {
                let none = openraft::ChangeMembers::AddVoterIds(BTreeSet::new());
                // What fails is tried again as long as this member leads.
                let _ = change_members(&pulse.raft, pulse.network.store(), none, false).await;
            }
        });
    }

    /// Votes for nobody in the next term, which ends the lead.
    async fn give_up(&self, term: Term) {
        tracing::warn!(term, "no majority of the managers answers: giving up the lead");
        let after_all = LogId::new(CommittedLeaderId::new(term + 1, 0), Index::MAX / 2);
        let vote = VoteRequest::new(Vote::new(term + 1, 0), Some(after_all));
        // An error means that openraft has stopped, which is told elsewhere.
        let _ = self.raft.vote(vote).await;
    }

    async fn follow(&self, metrics: &Metrics, course: &mut Course) {
        let now = Instant::now();
        course.leads = None;
        let late = now.duration_since(course.last_tick) > self.heartbeat * 2;
        course.last_tick = now;
        let heard = self.signs().leader;
        if let Some(heard) = heard.filter(|heard| *heard + self.election.start > course.deadline) {
            course.deadline = heard + self.random_wait();
            course.stood = false;
        }
        if late {
            // This process stood still; what the leader sent meanwhile may lie in a socket.
            course.deadline = course.deadline.max(now + self.heartbeat * 2);
        }
        let members = metrics.membership_config.membership();
        if !members.voter_ids().any(|id| id == self.id) {
            return;
        }
        let alone = is_quorum(metrics, &BTreeSet::from([self.id]));
        if now < course.deadline && (course.stood || !alone) {
            return;
        }
        if !self.network.store().disk().is_idle() {
            // Perhaps the vote for itself: standing again would make that void, for ever on a slow disk.
            return;
        }
        course.deadline = now + self.random_wait();
        if alone || is_quorum(metrics, &self.canvass(metrics).await) {
            let _ = self.raft.trigger().elect().await;
            course.stood = true;
            course.deadline = Instant::now() + self.random_wait();
        }
        course.last_tick = Instant::now();
    }

    /// Who would vote for this member.
    async fn canvass(&self, metrics: &Metrics) -> BTreeSet<RaftId> {
        let mut willing = BTreeSet::from([self.id]);
        let Ok(last) = self.network.store().last().await else { return willing };
        let members = metrics.membership_config.membership();
        let voters: Vec<RaftId> = members.voter_ids().filter(|id| *id != self.id).collect();
        let mut asked = JoinSet::new();
        for id in voters {
            let Some(node) = members.get_node(&id).cloned() else { continue };
            let network = self.network.clone();
            asked.spawn(async move {
                let answer = network.ask(id, &node.addr, Question::Canvass { last }).await;
                matches!(answer, Ok(Answer::Canvass(true))).then_some(id)
            });
        }
        let end = Instant::now() + self.election.start / 2;
        while let Ok(Some(answer)) = tokio::time::timeout_at(end, asked.join_next()).await {
            willing.extend(answer.ok().flatten());
            if is_quorum(metrics, &willing) {
                break;
            }
        }
        willing
    }

    /// The member to hand the lead to: one that answers, votes, and has most of the log.
    pub(crate) fn heir(&self) -> Option<(RaftId, String, Index)> {
        let metrics = self.raft.metrics().borrow().clone();
        let members = metrics.membership_config.membership();
        let heard = self.heard(self.election.start);
        let voters = members.voter_ids().filter(|id| *id != self.id && heard.contains(id));
        let matching = |id: RaftId| {
            metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(&id))
                .and_then(Option::as_ref)
                .map_or(0, index_of)
        };
        let heir = voters.max_by_key(|id| matching(*id))?;
        Some((heir, members.get_node(&heir)?.addr.clone(), matching(heir)))
    }
}

/// Whether `members` have a majority in each set of voters.
fn is_quorum(metrics: &Metrics, members: &BTreeSet<RaftId>) -> bool {
    let sets = metrics.membership_config.membership().get_joint_config();
    !sets.is_empty() && sets.iter().all(|voters| voters.intersection(members).count() * 2 > voters.len())
}
