//! What to simulate, and what a run gives.

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Virtual minutes of the unsafe phase.
    pub minutes: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// How many of them are managers; `None` leaves it to the seed.
    pub managers: Option<u64>,
    /// How wrong the managers' clocks may be, in seconds; `None` leaves it to the seed.
    pub skew: Option<u64>,
    /// What is wrong with the world, to see whether the simulator notices.
    pub flaw: Flaw,
}

impl Options {
    /// A run of one minute on three nodes.
    pub fn new(seed: u64) -> Options {
        Options { seed, minutes: 1, nodes: 3, managers: None, skew: None, flaw: Flaw::None }
    }

    /// The command that repeats the run.
    pub fn replay(&self) -> String {
        let Options { seed, minutes, nodes, .. } = self;
        let managers = self.managers.map(|count| format!(" --managers {count}")).unwrap_or_default();
        let skew = self.skew.map(|seconds| format!(" --skew {seconds}")).unwrap_or_default();
        let flaw = match self.flaw {
            Flaw::None => String::new(),
            flaw => format!(" --flaw {}", flaw.name()),
        };
        format!(
            "cargo run -p skep-sim -- --seed {seed} --minutes {minutes} --nodes {nodes}{managers}{skew}{flaw} --story"
        )
    }
}

/// A way in which the world breaks its contract with the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: whatever fails is the code's fault.
    None,
    /// The managers' disks forget their youngest entries in a crash.
    LogForgets,
    /// Some reports vanish without their session ending.
    ReportsVanish,
    /// Some stops are said to be done while the container goes on.
    StopsLie,
    /// The managers' timers ring ten seconds early, claiming the time has come.
    TimersEarly,
    /// Agents take what comes late from sessions that ended, and sessions with managers that lead no longer.
    StaleAssignments,
    /// Users are answered when their change is proposed, not when it is committed; leaders die in between.
    AnswersEarly,
    /// A new leader does not wait for what its predecessors committed.
    LeadsBehind,
}

impl Flaw {
    /// All that are flaws.
    pub const ALL: [Flaw; 7] = [
        Flaw::LogForgets,
        Flaw::ReportsVanish,
        Flaw::StopsLie,
        Flaw::TimersEarly,
        Flaw::StaleAssignments,
        Flaw::AnswersEarly,
        Flaw::LeadsBehind,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::None => "none",
            Flaw::LogForgets => "log-forgets",
            Flaw::ReportsVanish => "reports-vanish",
            Flaw::StopsLie => "stops-lie",
            Flaw::TimersEarly => "timers-early",
            Flaw::StaleAssignments => "stale-assignments",
            Flaw::AnswersEarly => "answers-early",
            Flaw::LeadsBehind => "leads-behind",
        }
    }

    /// The flaw of a name.
    pub fn named(name: &str) -> Option<Flaw> {
        Flaw::ALL.into_iter().chain([Flaw::None]).find(|flaw| flaw.name() == name)
    }
}

/// What a run that found nothing wrong gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The last of what happened, a line each.
    pub story: Vec<String>,
    /// A number that all lines of the story make, the forgotten ones too.
    pub digest: u64,
    /// What happened: messages that arrived, timers, operations that ended, requests, faults.
    pub events: u64,
    /// Entries of the log.
    pub commits: u64,
    /// Containers that were started.
    pub starts: u64,
    /// How often the managers changed their leader.
    pub elections: u64,
}

/// Something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub what: String,
    /// The last of what happened, a line each.
    pub story: Vec<String>,
    /// The lines of the story that name what the failure names, and all faults.
    pub excerpt: Vec<String>,
}
