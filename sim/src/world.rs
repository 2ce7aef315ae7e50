//! The world: virtual time, and everything that happens in it in order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use skep_agent::{AgentEvent, Operation};
use skep_cluster::Objects;
use skep_types::assignment::{Assignment, StatusReport};
use skep_types::generic::{Generic, GenericResources};
use skep_types::node::NodeDescription;
use skep_types::tunnel::TunnelKey;
use skep_types::{ContainerId, Ids, NetworkId, NodeId, ServiceId, TaskId, Time};

use crate::chance::Chance;
use crate::checks::{self, Book};
use crate::consensus::Consensus;
use crate::links::Links;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::options::{Failure, Options, Outcome};
use crate::story::Story;
use crate::user::User;

mod clients;
mod faults;
mod founding;
mod guests;
mod leading;
mod loads;
mod log;
mod operations;
mod seats;
mod sessions;
mod users;

/// When the faults and the user begin.
const BEGIN: Time = Time(5_000_000_000);
/// How long users still ask for things, and containers end, after the faults are over: who leads then has to take in
/// everything, without another that looks at everything anew.
const CALM: Duration = Duration::from_secs(30);
/// Virtual time after that within which everything must be right.
const BOUND: Duration = Duration::from_secs(300);
/// Time after which the manager's side gives up a node whose session ended.
const GRACE: Duration = Duration::from_secs(3);
/// How long schedules are kept after that: then users take them away, so that all jobs have their end.
const SCHEDULED: Duration = Duration::from_secs(190);
/// More does not happen at one moment, unless something asks to be woken at once again and again.
const MOST_AT_ONCE: u64 = 100_000;
/// Seconds by which clocks may be off where they are off by more than a day.
const DAYS_OFF: u64 = 90_000;
/// The thousand-millionths of CPUs of a small machine.
const TIGHT: i64 = 1_500_000_000;
/// More entries of the log than so many for each node are not needed once nobody asks for anything.
const MOST_AT_REST: u64 = 3000;
/// Clusters of at most so many nodes are looked at in whole after each entry of the log.
const SMALL: usize = 20;

/// What will happen.
#[derive(Debug)]
enum Happening {
    /// A proposal reaches a quorum, if there is one.
    Commit {
        manager: usize,
        term: u64,
    },
    /// A manager hears of committed entries.
    Replicated {
        manager: usize,
        life: u64,
    },
    /// The managers see whether they need another leader.
    Election,
    /// Everyone who can hear the leader hears from it.
    Beat,
    /// A manager learns that it does not lead in this term any more.
    Follows {
        manager: usize,
        term: u64,
    },
    ManagerTick {
        manager: usize,
        life: u64,
        at: Time,
    },
    Crash {
        manager: usize,
    },
    ManagerUp {
        manager: usize,
    },
    ManagerWakes {
        manager: usize,
    },
    Hello {
        node: usize,
        session: u64,
    },
    Lost {
        node: usize,
        manager: usize,
        session: u64,
    },
    Broken {
        node: usize,
        session: u64,
    },
    Deliver {
        node: usize,
        manager: usize,
        session: u64,
        index: u64,
        assignment: Assignment,
    },
    Reports {
        node: usize,
        manager: usize,
        session: u64,
        reports: Vec<StatusReport>,
    },
    Acknowledged {
        node: usize,
        manager: usize,
        session: u64,
        number: u64,
    },
    Reconnect {
        node: usize,
    },
    DaemonUp {
        node: usize,
    },
    AgentTick {
        node: usize,
        life: u64,
        at: Time,
    },
    Done {
        node: usize,
        life: u64,
        operation: Box<Operation>,
    },
    Exit {
        node: usize,
        task: TaskId,
        container: ContainerId,
        code: i32,
    },
    Rejoin {
        node: usize,
    },
    /// A node's daemon has no session any more.
    Alone {
        node: usize,
        life: u64,
    },
    /// Machines see whether they are to be managers.
    Seats,
    /// The consensus takes a member away.
    Unseat {
        manager: usize,
        node: NodeId,
        raft: u64,
    },
    Fault,
    HealLinks,
    User,
    Client,
    /// A guest comes or goes.
    Guest,
    /// The managers are told that a guest has left.
    SeeOut {
        node: usize,
        life: u64,
        key: (ContainerId, NetworkId),
    },
    /// A node says which guests it has.
    Keep {
        node: usize,
        session: u64,
    },
    /// A user asks for a change of a service, in a moment in which something happens to it.
    Deploy {
        service: ServiceId,
    },
    /// A user drains a node, in a moment in which something happens there.
    Drain {
        node: usize,
    },
    Found,
    /// Nodes tell what tasks use.
    Measure,
    Heal,
    Rest,
    /// Users take all schedules away.
    Unschedule,
}

/// What the seed lets this run be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Character {
    /// Whether nodes may vanish for so long that the managers give them up.
    pub nodes_vanish: bool,
    /// How wrong managers' clocks may be, in seconds.
    pub skew: u64,
    /// A machine that takes no tasks in the end.
    pub drained: Option<usize>,
    /// Whether the machines are too small for all that users may want.
    pub tight: bool,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub options: Options,
    pub character: Character,
    pub now: Time,
    chance: Chance,
    queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    /// The world's own ids: containers, nodes.
    ids: Ids,
    pub consensus: Consensus,
    /// What the committed entries give, known to nobody in the world.
    pub truth: Objects,
    pub book: Book,
    /// The first machines are the managers'.
    pub managers: BTreeMap<usize, Manager>,
    pub machines: Vec<Machine>,
    numbers: BTreeMap<NodeId, usize>,
    links: Links,
    pub user: User,
    /// What the tasks of services that are scaled by their load share, in thousandths of what one is to carry.
    pub loads: BTreeMap<ServiceId, u64>,
    /// Since when users ask for nothing any more.
    pub at_rest_since: Option<Time>,
    /// Whether faults strike.
    unsafe_phase: bool,
    /// Whether users ask for things and containers end by themselves.
    busy: bool,
    /// Entries of the log when users became content.
    commits_at_rest: u64,
    story: Story,
    /// What has happened so far.
    events: u64,
    commits: u64,
    starts: u64,
}

/// Simulates one seed.
pub fn run(options: Options) -> Result<Outcome, Failure> {
    let mut world = World::new(options);
    let result = world.run();
    let story = world.story.lines();
    match result {
        Ok(()) => Ok(Outcome {
            story,
            digest: world.story.digest(),
            events: world.events,
            commits: world.commits,
            starts: world.starts,
            elections: world.consensus.term,
        }),
        Err(what) => Err(Failure { excerpt: world.story.excerpt(&what), what, story }),
    }
}

/// What must never be, or should have come to be.
pub(crate) type Verdict = Result<(), String>;

impl World {
    fn new(options: Options) -> World {
        let mut chance = Chance::new(options.seed);
        let mut ids = Ids::new(u128::from(options.seed) << 1 | 1);
        let nodes = usize::try_from(options.nodes.max(1)).unwrap_or(1);
        let machines: Vec<Machine> = (0..nodes).map(|_| Machine::new(NodeId(ids.next_u128()))).collect();
        let numbers = machines.iter().enumerate().map(|(number, machine)| (machine.id, number)).collect();
        let drawn = chance.pick(&[1, 3, 3, 5]).copied().unwrap_or(1);
        let wanted = usize::try_from(options.managers.unwrap_or(drawn)).unwrap_or(1).clamp(1, nodes);
        let mut manager = |number| (number, Manager::new(Ids::new(ids.next_u128())));
        let managers = (0..wanted).map(&mut manager).collect();
        let drawn = chance.pick(&[0, 0, 0, 5, 3600]).copied().unwrap_or(0);
        // Half of the clocks that are far off are off by more than lost nodes are waited for.
        let drawn = if drawn == 3600 && options.seed.is_multiple_of(2) { DAYS_OFF } else { drawn };
        let skew = options.skew.unwrap_or(drawn);
        let drained = chance.pick(&(0..nodes).collect::<Vec<_>>()).copied();
        let drained = drained.filter(|_| nodes > 2 && chance.happens(300));
        let nodes_vanish = chance.happens(500);
        let character = Character { nodes_vanish, skew, drained, tight: chance.happens(250) };
        World {
            options,
            character,
            now: Time(0),
            chance,
            queue: BTreeMap::new(),
            sequence: 0,
            ids,
            consensus: Consensus::default(),
            truth: Objects::default(),
            book: Book::default(),
            managers,
            machines,
            numbers,
            links: Links::default(),
            user: User::new(nodes),
            loads: BTreeMap::new(),
            at_rest_since: None,
            unsafe_phase: true,
            busy: true,
            commits_at_rest: 0,
            story: Story::default(),
            events: 0,
            commits: 0,
            starts: 0,
        }
    }

    fn run(&mut self) -> Verdict {
        let heal_at = BEGIN + Duration::from_secs(60 * self.options.minutes);
        for manager in 0..self.managers.len() {
            self.at(Time(0), Happening::ManagerUp { manager });
        }
        self.consensus.voters = self.managers.keys().copied().collect();
        self.at(Time(1_000_000), Happening::Election);
        self.at(Time(2_000_000), Happening::Beat);
        self.at(Time(500_000_000), Happening::Found);
        self.at(BEGIN, Happening::Fault);
        self.at(BEGIN, Happening::Seats);
        self.at(BEGIN, Happening::User);
        self.at(BEGIN, Happening::Client);
        self.at(BEGIN, Happening::Guest);
        self.at(BEGIN, Happening::Measure);
        self.at(heal_at, Happening::Heal);
        self.at(heal_at + CALM, Happening::Rest);
        self.at(heal_at + CALM + SCHEDULED, Happening::Unschedule);
        let end = heal_at + CALM + BOUND;
        let mut moment = 0;
        while let Some(((time, _), happening)) = self.queue.pop_first() {
            if time > end {
                break;
            }
            moment = if self.now == time { moment + 1 } else { 0 };
            if moment > MOST_AT_ONCE {
                return Err(format!("time stands still at {happening:?}"));
            }
            self.now = time;
            self.events += 1;
            self.happen(happening)?;
        }
        self.tell(|| "the bound is reached".to_owned());
        checks::settled(self)
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Commit { manager, term } => self.commit(manager, term),
            Happening::Replicated { manager, life } => self.replicated(manager, life),
            Happening::Election => self.election(),
            Happening::Beat => self.beat(),
            Happening::Follows { manager, term } => self.follows(manager, term),
            Happening::ManagerTick { manager, life, at } => self.manager_ticks(manager, life, at),
            Happening::Crash { manager } => self.crash_manager(manager),
            Happening::ManagerUp { manager } => self.start_manager(manager),
            Happening::ManagerWakes { manager } => self.manager_wakes(manager),
            Happening::Hello { node, session } => self.hello(node, session),
            Happening::Lost { node, manager, session } => self.lost(node, manager, session),
            Happening::Broken { node, session } => self.broken(node, session),
            Happening::Deliver { node, manager, session, index, assignment } => {
                self.deliver(node, manager, session, index, assignment)
            }
            Happening::Reports { node, manager, session, reports } => {
                self.reported(node, manager, session, reports)
            }
            Happening::Acknowledged { node, manager, session, number } => {
                self.acknowledged(node, manager, session, number)
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
            Happening::Rejoin { node } => self.rejoin(node),
            Happening::Alone { node, life } => {
                let same = self.machine(node).life == life;
                if same { self.agent(node, AgentEvent::Alone) } else { Ok(()) }
            }
            Happening::Seats => self.look_at_seats(),
            Happening::Unseat { manager, node, raft } => self.unseat(manager, node, raft),
            Happening::Fault => self.fault(),
            Happening::HealLinks => self.heal_links(),
            Happening::User => self.user_acts(),
            Happening::Client => self.client(),
            Happening::Guest => self.guest_acts(),
            Happening::SeeOut { node, life, key } => self.see_out(node, life, key),
            Happening::Keep { node, session } => self.keep_guests(node, session),
            Happening::Deploy { service } => self.deploy(service),
            Happening::Drain { node } => self.drain(node),
            Happening::Found => self.found(),
            Happening::Measure => self.measure(),
            Happening::Heal => self.heal(),
            Happening::Rest => self.rest(),
            Happening::Unschedule => self.unschedule(),
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
        self.story.tell(self.now, &line());
    }

    fn tell_fault(&mut self, line: impl FnOnce() -> String) {
        self.story.fault(self.now, &line());
    }

    fn machine(&mut self, node: usize) -> &mut Machine {
        self.machines.get_mut(node).expect("happenings name machines that exist")
    }

    fn manager(&mut self, manager: usize) -> &mut Manager {
        self.managers.get_mut(&manager).expect("happenings name managers that exist")
    }

    /// Whether a manager takes in what is said to it.
    pub fn runs(&self, manager: usize) -> bool {
        self.managers.get(&manager).is_some_and(|manager| manager.runs(self.now))
    }

    /// Whether a manager believes that it leads in the newest term.
    pub fn leads_newest(&self, manager: usize) -> bool {
        self.managers.get(&manager).is_some_and(|manager| manager.leads == Some(self.consensus.term))
    }

    /// Whether a whole machine is stopped for a while.
    fn stands_still(&self, node: usize) -> bool {
        self.machines.get(node).is_some_and(|machine| machine.paused_until > self.now)
    }

    fn some_machine(&mut self) -> usize {
        usize::try_from(self.chance.below(self.machines.len() as u64)).unwrap_or(0)
    }

    /// One of the machines that are managers.
    fn some_manager(&mut self) -> usize {
        let all: Vec<usize> =
            self.managers.keys().copied().filter(|manager| self.is_manager(*manager)).collect();
        self.chance.pick(&all).copied().unwrap_or(0)
    }

    /// Whether two machines hear each other.
    pub fn is_linked(&self, one: usize, other: usize) -> bool {
        self.links.both(one, other)
    }

    /// Whether only a few nodes are to be looked at.
    pub fn is_small(&self) -> bool {
        self.machines.len() <= SMALL
    }

    /// What a machine tells of itself.
    pub fn description(&self, node: usize) -> NodeDescription {
        // Enough for all that the user may want, with every node there.
        let plenty = 24 / self.options.nodes.max(1) + 4;
        NodeDescription {
            hostname: format!("node-{node}"),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            nano_cpus: if self.character.tight { TIGHT } else { 1_000_000_000 * plenty as i64 },
            memory_bytes: 1 << 34,
            generic: GenericResources([("apple".to_owned(), apples(node))].into()),
            tunnel_key: Some(TunnelKey([u8::try_from(node % 256).unwrap_or(0); 32])),
            ..NodeDescription::default()
        }
    }
}

/// Even nodes count their apples, odd ones name them.
fn apples(node: usize) -> Generic {
    if node.is_multiple_of(2) {
        Generic::Discrete(3)
    } else {
        Generic::Named(["boskoop", "elstar", "jonagold"].map(str::to_owned).into())
    }
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + u32::try_from(node).unwrap_or(0)).into()
}
