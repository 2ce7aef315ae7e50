//! The world: virtual time, and everything that happens in it in order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use skep_agent::{AgentEvent, Operation};
use skep_cluster::{Change, Cluster, Event, Objects, Output, Request};
use skep_types::assignment::{Assignment, StatusReport};
use skep_types::node::NodeDescription;
use skep_types::{ContainerId, Ids, NodeId, TaskId, Time};

use crate::chance::Chance;
use crate::checks;
use crate::log::Log;
use crate::machine::Machine;
use crate::user::User;

mod faults;
mod founding;
mod operations;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Virtual minutes of the unsafe phase.
    pub minutes: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// What is wrong with the world, to see whether the simulator notices.
    pub flaw: Flaw,
}

/// A way in which the world breaks its contract with the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: whatever fails is the code's fault.
    None,
    /// The log forgets its youngest acknowledged entries in a crash.
    LogForgets,
    /// Some reports vanish without their session ending.
    ReportsVanish,
    /// Some stops are said to be done while the container goes on.
    StopsLie,
    /// The manager's timers ring ten seconds early, claiming the time has come.
    TimersEarly,
}

/// What a run that found nothing wrong gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything that happened, a line each.
    pub story: Vec<String>,
    /// Entries of the log.
    pub commits: u64,
    /// Containers that were started.
    pub starts: u64,
}

/// Something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub what: String,
    /// What happened, a line each; the last ones matter most.
    pub story: Vec<String>,
}

/// When the faults and the user begin.
const BEGIN: Time = Time(5_000_000_000);
/// Virtual time after the healing within which everything must be right.
const BOUND: Duration = Duration::from_secs(300);
/// Time after which the manager's side gives up a node whose session ended.
const GRACE: Duration = Duration::from_secs(3);

/// What will happen.
#[derive(Debug)]
enum Happening {
    LogDone { life: u64, refused: bool },
    ManagerTick { life: u64, at: Time },
    ManagerUp,
    Hello { node: usize, session: u64 },
    Lost { node: usize, session: u64 },
    Deliver { node: usize, session: u64, assignment: Assignment },
    Reports { node: usize, session: u64, reports: Vec<StatusReport> },
    Reconnect { node: usize },
    DaemonUp { node: usize },
    AgentTick { node: usize, life: u64, at: Time },
    Done { node: usize, life: u64, operation: Operation },
    Exit { node: usize, task: TaskId, container: ContainerId, code: i32 },
    Fault,
    User,
    Found,
    Heal,
}

/// The manager's process.
#[derive(Debug)]
pub(crate) struct Manager {
    pub cluster: Option<Cluster>,
    life: u64,
    ids: Ids,
    in_flight: Option<Vec<Change>>,
    sessions: BTreeMap<usize, u64>,
    wake_at: Option<Time>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub options: Options,
    pub now: Time,
    chance: Chance,
    queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    log: Log,
    pub manager: Manager,
    pub machines: Vec<Machine>,
    pub user: User,
    /// Whether faults strike and containers end by themselves.
    unsafe_phase: bool,
    /// Whether this run's nodes may vanish for so long that the manager gives them up.
    pub nodes_vanish: bool,
    story: Vec<String>,
    commits: u64,
    starts: u64,
}

/// Simulates one seed.
pub fn run(options: Options) -> Result<Outcome, Failure> {
    let mut world = World::new(options);
    match world.run() {
        Ok(()) => Ok(Outcome { story: world.story, commits: world.commits, starts: world.starts }),
        Err(what) => Err(Failure { what, story: world.story }),
    }
}

/// What must never be, or should have come to be.
pub(crate) type Verdict = Result<(), String>;

impl World {
    fn new(options: Options) -> World {
        let mut chance = Chance::new(options.seed);
        let mut ids = Ids::new(u128::from(options.seed) << 1 | 1);
        let machines = (0..options.nodes).map(|_| Machine::new(NodeId(ids.next_u128()))).collect();
        let nodes_vanish = chance.happens(500);
        World {
            options,
            now: Time(0),
            chance,
            queue: BTreeMap::new(),
            sequence: 0,
            log: Log::default(),
            manager: Manager {
                cluster: None,
                life: 0,
                ids,
                in_flight: None,
                sessions: BTreeMap::new(),
                wake_at: None,
            },
            machines,
            user: User::default(),
            unsafe_phase: true,
            nodes_vanish,
            story: Vec::new(),
            commits: 0,
            starts: 0,
        }
    }

    fn run(&mut self) -> Verdict {
        let heal_at = BEGIN + Duration::from_secs(60 * self.options.minutes);
        self.at(Time(0), Happening::ManagerUp);
        self.at(Time(1), Happening::Found);
        self.at(BEGIN, Happening::Fault);
        self.at(BEGIN, Happening::User);
        self.at(heal_at, Happening::Heal);
        let end = heal_at + BOUND;
        while let Some(((time, _), happening)) = self.queue.pop_first() {
            if time > end {
                break;
            }
            self.now = time;
            self.happen(happening)?;
        }
        self.tell(|| "the bound is reached".to_owned());
        checks::settled(self)
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::LogDone { life, refused } => self.log_done(life, refused),
            Happening::ManagerTick { life, at } => {
                if self.manager.life == life && self.manager.wake_at == Some(at) {
                    return self.manager_ticks(at);
                }
                Ok(())
            }
            Happening::ManagerUp => self.start_manager(),
            Happening::Hello { node, session } => self.hello(node, session),
            Happening::Lost { node, session } => self.lost(node, session),
            Happening::Deliver { node, session, assignment } => {
                if self.machine(node).session == Some(session) {
                    return self.agent(node, AgentEvent::Assigned(assignment));
                }
                Ok(())
            }
            Happening::Reports { node, session, reports } => {
                if self.manager.sessions.get(&node) == Some(&session) {
                    let id = self.machine(node).id;
                    for report in &reports {
                        let StatusReport { task, status } = report;
                        self.tell(|| format!("node {node} reports {task} {} {}", status.state, status.error));
                    }
                    return self.step(Event::Reports(id, reports));
                }
                Ok(())
            }
            Happening::Reconnect { node } => self.connect(node),
            Happening::DaemonUp { node } => self.start_daemon(node),
            Happening::AgentTick { node, life, at } => {
                let machine = self.machine(node);
                if machine.life == life && machine.wake_at == Some(at) {
                    return self.agent(node, AgentEvent::Tick);
                }
                Ok(())
            }
            Happening::Done { node, life, operation } => self.done(node, life, operation),
            Happening::Exit { node, task, container, code } => self.exit(node, task, container, code),
            Happening::Fault => self.fault(),
            Happening::User => self.user_acts(),
            Happening::Found => self.found(),
            Happening::Heal => self.heal(),
        }
    }

    fn at(&mut self, time: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), happening);
    }

    fn after(&mut self, from_millis: u64, to_millis: u64, happening: Happening) {
        let time = self.now + self.chance.millis(from_millis, to_millis);
        self.at(time, happening);
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 as f64 / 1e9;
        self.story.push(format!("{now:10.4} {}", line()));
    }

    fn machine(&mut self, node: usize) -> &mut Machine {
        self.machines.get_mut(node).expect("happenings name machines that exist")
    }

    /// The manager's objects, while it runs.
    pub fn objects(&self) -> Option<&Objects> {
        self.manager.cluster.as_ref().map(Cluster::objects)
    }

    // The manager.

    fn manager_ticks(&mut self, at: Time) -> Verdict {
        let early = self.options.flaw == Flaw::TimersEarly;
        let claimed = if early { at + Duration::from_secs(10) } else { self.now };
        self.step_at(Event::Tick, claimed)
    }

    fn step(&mut self, event: Event) -> Verdict {
        self.step_at(event, self.now)
    }

    fn step_at(&mut self, event: Event, now: Time) -> Verdict {
        let Some(cluster) = &mut self.manager.cluster else { return Ok(()) };
        let output = cluster.step(event, now, &mut self.manager.ids);
        self.perform(output);
        checks::always(self)
    }

    fn perform(&mut self, output: Output) {
        let Output { propose, replies, sends, wake_at, seats: _ } = output;
        if !propose.is_empty() {
            assert!(self.manager.in_flight.is_none(), "one proposal at a time");
            for change in &propose {
                self.tell(|| format!("propose {}", checks::brief(change)));
            }
            self.manager.in_flight = Some(propose);
            let refused = self.unsafe_phase && self.now > BEGIN && self.chance.happens(3);
            let life = self.manager.life;
            self.after(0, 8, Happening::LogDone { life, refused });
        }
        for reply in replies {
            let line = self.user.answered(reply.to, &reply.result);
            self.tell(|| line);
        }
        for (id, assignment) in sends {
            let node = self.machines.iter().position(|machine| machine.id == id);
            let session = node.and_then(|node| self.manager.sessions.get(&node).copied());
            let (Some(node), Some(session)) = (node, session) else { continue };
            let arrival = (self.now + self.chance.millis(0, 10)).max(self.machine(node).down_link);
            self.machine(node).down_link = arrival;
            self.at(arrival, Happening::Deliver { node, session, assignment });
        }
        self.manager.wake_at = wake_at;
        if let Some(at) = wake_at {
            let life = self.manager.life;
            // Timers that ring early ring at once.
            let early = Duration::from_secs(if self.options.flaw == Flaw::TimersEarly { 10 } else { 0 });
            self.at(at - early, Happening::ManagerTick { life, at });
        }
    }

    fn log_done(&mut self, life: u64, refused: bool) -> Verdict {
        if self.manager.life != life {
            return Ok(());
        }
        if refused && self.chance.happens(500) {
            // Nobody knows whether the entry is on the disk: the manager steps down and reads its log anew.
            self.tell(|| "the log fails".to_owned());
            self.step(Event::Deposed)?;
            return self.crash_manager();
        }
        let changes = self.manager.in_flight.take().unwrap_or_default();
        if refused {
            self.tell(|| "the log refuses: no space left on device".to_owned());
            return self.step(Event::Refused { reason: "no space left on device".to_owned() });
        }
        let index = self.append(&changes);
        self.step(Event::Committed { index })?;
        if let Some(cluster) = &self.manager.cluster {
            self.log.compact(cluster.objects());
        }
        Ok(())
    }

    fn append(&mut self, changes: &[Change]) -> u64 {
        self.commits += 1;
        let gap = self.chance.below(2);
        let index = self.log.append(changes, gap);
        self.tell(|| format!("entry {index} is durable"));
        index
    }

    fn start_manager(&mut self) -> Verdict {
        self.tell(|| "the manager starts".to_owned());
        self.manager.life += 1;
        self.manager.cluster = Some(Cluster::new(self.log.replay()));
        self.step(Event::Started)
    }

    // Links.

    fn connect(&mut self, node: usize) -> Verdict {
        if self.machine(node).up && self.machine(node).session.is_none() {
            self.sequence += 1;
            let session = self.sequence;
            self.machine(node).session = Some(session);
            self.after(0, 10, Happening::Hello { node, session });
        }
        Ok(())
    }

    fn hello(&mut self, node: usize, session: u64) -> Verdict {
        if self.machine(node).session != Some(session) {
            return Ok(());
        }
        let id = self.machine(node).id;
        let known = self.objects().is_some_and(|objects| objects.node(id).is_some());
        if !known {
            self.machine(node).session = None;
            self.after(100, 1000, Happening::Reconnect { node });
            return Ok(());
        }
        self.tell(|| format!("node {node} opens session {session}"));
        self.manager.sessions.insert(node, session);
        let description = Box::new(self.description(node));
        let address = address(node);
        self.step(Event::NodeReady { node: id, description, address })
    }

    fn lost(&mut self, node: usize, session: u64) -> Verdict {
        if self.manager.sessions.get(&node) != Some(&session) {
            return Ok(());
        }
        self.tell(|| format!("the manager gives up node {node}"));
        self.manager.sessions.remove(&node);
        let id = self.machine(node).id;
        self.step(Event::NodeLost { node: id, reason: "heartbeat failure".to_owned() })
    }

    fn description(&self, node: usize) -> NodeDescription {
        NodeDescription {
            hostname: format!("node-{node}"),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            // Enough for all that the user may want, with every node there.
            nano_cpus: 1_000_000_000 * (24 / self.options.nodes.max(1) + 1) as i64,
            memory_bytes: 1 << 34,
            ..NodeDescription::default()
        }
    }

    // The user.

    fn user_acts(&mut self) -> Verdict {
        if !self.unsafe_phase {
            return Ok(());
        }
        // Now and then in quick succession, while an earlier request is on its way into the log.
        let pause = if self.chance.happens(300) { 5 } else { 4000 };
        self.after(0, pause, Happening::User);
        let Some(cluster) = &self.manager.cluster else { return Ok(()) };
        let request = self.user.think(&mut self.chance, cluster.objects());
        request.map_or(Ok(()), |request| self.ask(request))
    }

    fn ask(&mut self, request: Request) -> Verdict {
        let (id, request) = self.user.ask(request);
        self.tell(|| format!("request {}: {}", id.0, checks::brief_request(&request)));
        if self.manager.cluster.is_none() {
            self.user.unanswered();
            return Ok(());
        }
        self.step(Event::Request(id, request))
    }
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(192, 168, 0, u8::try_from(node % 250).unwrap_or(0) + 1).into()
}
