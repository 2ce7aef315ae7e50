//! The step: one event in, decisions out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use skep_types::assignment::{Assignment, StatusReport, TaskUsage};
use skep_types::node::NodeDescription;
use skep_types::{Ids, NodeId, Time};

use crate::leader::{Leader, News};
use crate::objects::Touched;
use crate::plan::Plan;
use crate::timers::Timer;
use crate::{Change, Objects, Refusal, RefusalKind, Reply, Request, RequestId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This manager leads from now on; its objects hold all that is committed.
    Started,
    /// This manager leads no longer. Open requests are answered with "unavailable".
    Deposed,
    /// A user asks for a change.
    Request(RequestId, Request),
    /// An agent reports on its tasks. A report may come twice, and late.
    Reports(NodeId, Vec<StatusReport>),
    /// An agent tells what its running tasks of [`Objects::autoscaled`] services used since it told the last time.
    Usage(NodeId, Vec<TaskUsage>),
    /// An agent has brought into force all that it was told of tables up to this assignment. The number of an
    /// assignment is the position of the log that [`Cluster::objects`] had when it was given out.
    Acknowledged {
        /// Which node.
        node: NodeId,
        /// The assignment's number.
        number: u64,
    },
    /// An agent opened a session: it is sent everything it is responsible for, and then differences. It
    /// must follow up with reports on all tasks that it knows. One that is not a node of the cluster (yet,
    /// or any more) is told to hold nothing, and is to try again.
    NodeReady {
        /// Which node.
        node: NodeId,
        /// What it tells of itself.
        description: Box<NodeDescription>,
        /// The address that it is reached at.
        address: IpAddr,
        /// The address that overlay networks reach it at; `None` follows `address`.
        data_path: Option<IpAddr>,
    },
    /// An agent's session ended and its time of grace passed.
    NodeLost {
        /// Which node.
        node: NodeId,
        /// Why, for the user: `heartbeat failure`.
        reason: String,
    },
    /// The managers, by their names in the consensus, that the leader reaches, itself among them. Said when it
    /// begins to lead and whenever it changes; until then all are taken to be reached.
    Reachable(BTreeSet<u64>),
    /// The proposal in flight is durable, at this position of the log.
    Committed {
        /// The position.
        index: u64,
    },
    /// The log took the proposal in flight not, and never will (a full disk). It is made anew later.
    Refused {
        /// Why, for whoever asked.
        reason: String,
    },
    /// An entry that another manager proposed was committed.
    Applied {
        /// Its position.
        index: u64,
        /// What it holds.
        changes: Vec<Change>,
    },
    /// The time of [`Output::wake_at`] has come.
    Tick,
}

/// What is to be done, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Append these to the log as one entry, unless empty, then say [`Event::Committed`]. Never given
    /// while another proposal is in flight.
    pub propose: Vec<Change>,
    /// Answer these requests.
    pub replies: Vec<Reply>,
    /// Send these to the nodes' agents, in this order, numbered as [`Event::Acknowledged`] says. What cannot be delivered ends the agent's session.
    pub sends: Vec<(NodeId, Assignment)>,
    /// Do this to the seats of the managers' consensus. What did not succeed is asked for again after a while.
    pub seats: Vec<SeatStep>,
    /// Say [`Event::Tick`] at this time; replaces what earlier steps said.
    pub wake_at: Option<Time>,
}

/// A change to the seats of the managers' consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatStep {
    /// Take a demoted manager's seat away, then say so with [`Request::SetSeat`]. The others keep their quorum.
    Remove {
        /// The node.
        node: NodeId,
        /// The name of its seat in the consensus.
        raft: u64,
    },
}

/// Time after which a proposal that the log refused is made again.
const RETRY: Duration = Duration::from_secs(1);
/// Requests that may wait while a proposal is in flight.
const MAX_WAITING_REQUESTS: usize = 10_000;

/// A manager's view of the cluster, and the decisions of the one that leads.
#[derive(Debug)]
pub struct Cluster {
    objects: Objects,
    leader: Option<Leader>,
    proposal: Option<Proposal>,
}

/// What is on its way into the log.
#[derive(Debug)]
struct Proposal {
    changes: Vec<Change>,
    replies: Vec<Reply>,
}

impl Cluster {
    /// A manager that does not lead yet, over what its log gave so far.
    pub fn new(objects: Objects) -> Cluster {
        Cluster { objects, leader: None, proposal: None }
    }

    /// The committed state.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Everything a leader decides. Reads no clock and draws no id of its own.
    ///
    /// `now` may fall, and need not be what another manager says: no delay gets longer than anew from when this
    /// manager learns of it. A time that jumps ahead ends delays early.
    pub fn step(&mut self, event: Event, now: Time, ids: &mut Ids) -> Output {
        let mut output = Output::default();
        match event {
            Event::Started => self.leader = Some(Leader::new(&self.objects, now)),
            Event::Deposed => self.depose(&mut output),
            Event::Request(to, request) => match &mut self.leader {
                Some(leader) if leader.requests.len() < MAX_WAITING_REQUESTS => {
                    leader.requests.push_back((to, request));
                }
                Some(_) | None => output.replies.push(Reply { to, result: Err(unavailable()) }),
            },
            Event::Committed { index } => self.commit(index, now, &mut output),
            Event::Refused { reason } => self.refused(&reason, now, &mut output),
            Event::Applied { index, changes } => self.apply(index, &changes, now, &mut output),
            Event::Reports(node, reports) => {
                if let Some(leader) = &mut self.leader {
                    leader.keep_reports(&self.objects, node, reports);
                }
            }
            Event::Usage(node, usages) => {
                if let Some(leader) = &mut self.leader {
                    leader.measured(&self.objects, node, &usages, now);
                }
            }
            Event::Acknowledged { node, number } => {
                if let Some(leader) = &mut self.leader {
                    leader.dispatcher.acknowledge(node, number);
                }
            }
            Event::NodeReady { node, description, address, data_path } => {
                if let Some(leader) = &mut self.leader {
                    let duties =
                        leader.hear(&self.objects, node, News::Ready { description, address, data_path });
                    output.sends.push((node, duties));
                }
            }
            Event::NodeLost { node, reason } => {
                if let Some(leader) = &mut self.leader {
                    leader.dispatcher.close(node);
                    leader.news.insert(node, News::Lost { reason });
                }
            }
            Event::Reachable(managers) => {
                if let Some(leader) = &mut self.leader {
                    leader.reaches(managers);
                }
            }
            Event::Tick => {}
        }
        self.decide(now, ids, &mut output);
        output
    }

    /// Makes the next proposal, if none is in flight.
    fn decide(&mut self, now: Time, ids: &mut Ids, output: &mut Output) {
        let Some(leader) = &mut self.leader else { return };
        leader.wake(&self.objects, now);
        // Requests that change nothing are answered at once, and the next ones looked at.
        while self.proposal.is_none() && !leader.timers.is_set(Timer::Retry) {
            let mut plan = Plan::new(&self.objects, now, ids);
            leader.plan(&mut plan);
            let Plan { changes, replies, .. } = plan;
            if !changes.is_empty() {
                output.propose.clone_from(&changes);
                self.proposal = Some(Proposal { changes, replies });
                break;
            }
            output.replies.extend(replies);
            if leader.requests.is_empty() {
                break;
            }
        }
        output.sends.extend(leader.dispatcher.released(&self.objects));
        output.seats = leader.seat_steps(&self.objects, now);
        output.wake_at = leader.timers.next();
    }

    fn commit(&mut self, index: u64, now: Time, output: &mut Output) {
        let Some(proposal) = self.proposal.take() else { return };
        assert!(index > self.objects.applied(), "the log's positions rise: {index} came after a later one");
        self.apply(index, &proposal.changes, now, output);
        output.replies.extend(proposal.replies);
    }

    fn apply(&mut self, index: u64, changes: &[Change], now: Time, output: &mut Output) {
        let mut touched = Touched::default();
        self.objects.apply_tracked(index, changes, &mut touched);
        if let Some(leader) = &mut self.leader {
            output.sends.extend(leader.tell(&self.objects, &touched, now));
            for node in touched.nodes.iter().filter(|node| self.objects.node(**node).is_none()) {
                leader.forget_node(*node);
                output.sends.push((*node, Assignment::Complete(Vec::new())));
            }
            leader.look_at(&self.objects, &touched);
        }
    }

    /// Takes back a proposal that had no effect: who asked is told, what was decided is decided again.
    fn refused(&mut self, reason: &str, now: Time, output: &mut Output) {
        let Some(proposal) = self.proposal.take() else { return };
        for reply in proposal.replies {
            let refusal = Refusal { kind: RefusalKind::Log, message: reason.to_owned() };
            // A refusal stands; only what would have been done was not.
            output.replies.push(Reply { to: reply.to, result: reply.result.and(Err(refusal)) });
        }
        let Some(leader) = &mut self.leader else { return };
        for change in proposal.changes {
            leader.take_back(&self.objects, change);
        }
        leader.look_at_everything(&self.objects);
        leader.timers.set(Timer::Retry, Some(now + RETRY));
    }

    /// Forgets all that only a leader holds. The proposal in flight may still be committed: it comes
    /// back as [`Event::Applied`] then.
    fn depose(&mut self, output: &mut Output) {
        let in_flight = self.proposal.take().map(|proposal| proposal.replies).unwrap_or_default();
        let waiting = self.leader.take().map(|leader| leader.requests).unwrap_or_default();
        let open = in_flight.into_iter().map(|reply| reply.to).chain(waiting.into_iter().map(|(to, _)| to));
        output.replies.extend(open.map(|to| Reply { to, result: Err(unavailable()) }));
    }
}

fn unavailable() -> Refusal {
    let message = "this manager does not lead the cluster; whether the request took effect is not known";
    Refusal { kind: RefusalKind::Unavailable, message: message.to_owned() }
}
