//! Faults on real processes: a cluster under a stream of requests loses daemons, links, disk and time, heals,
//! and must then be what was acknowledged.
//!
//! A round is: users ask for services to be created, scaled and removed at random managers; something breaks,
//! and is mended; the users stop; and then, within a bound, every acknowledged change must be there, every
//! service have exactly its replicas, no container be nobody's, and no address be held twice. What a user was
//! not answered may or may not have happened. Rounds follow from a seed as far as real processes allow.

mod check;
mod fault;
mod renewal;
mod users;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Lab;

use fault::Fault;
use users::{Model, Users};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides what breaks when.
    pub seed: u64,
    /// How often something breaks.
    pub rounds: u32,
    /// How long a process stands still when it does.
    pub freeze: Duration,
    /// Clocks jump, too.
    pub clocks: bool,
    /// In the end all nodes' certificates come of age. Takes clocks.
    pub renewal: bool,
    /// Leave the cluster as it is when something was wrong.
    pub keep: bool,
}

/// How a run ended well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// Requests whose fate was not told.
    pub unknown: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// The longest that a request took, on daemons that were not frozen.
    pub slowest: Duration,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Managers of the cluster that is tormented.
const MANAGERS: u16 = 3;
/// The size of each disk in MiB: the image, the containers and the log fit well.
const DISK: u32 = 96;
/// Lines of each daemon's log that a failure shows.
const LINES: usize = 60;
/// Its workers.
const WORKERS: u16 = 2;

/// A small generator of numbers (SplitMix64): the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// Runs all rounds; tells each as it begins, and how it went.
///
/// # Errors
/// What was wrong after which round, and the end of the daemons' logs.
pub fn run(options: Options, mut tell: impl FnMut(&str)) -> Result<Tally, String> {
    let lab = match options.clocks || options.renewal {
        true => Lab::with_clocks(MANAGERS, WORKERS, &["busybox"], DISK, &fake_time()?),
        false => Lab::with_disks(MANAGERS, WORKERS, &["busybox"], DISK),
    };
    let result = torment(&lab, options, &mut tell);
    result.map_err(|error| {
        let error = format!("{error}\n{}", logs(&lab));
        if options.keep {
            let kept = format!("the lab is kept: node 1 in {}", lab.folder(1).display());
            // Neither its daemons nor its folder end with it.
            std::mem::forget(lab);
            return format!("{error}\n{kept}");
        }
        error
    })
}

/// Where libfaketime is, in its variant for programs with several threads.
fn fake_time() -> Result<PathBuf, String> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|machine| Path::new("/usr/lib").join(machine));
    let found = places.map(|folder| folder.join(NAME)).into_iter().find(|path| path.exists());
    found.ok_or_else(|| format!("{NAME} is missing: install the package libfaketime"))
}

fn torment(lab: &Lab, options: Options, tell: &mut impl FnMut(&str)) -> Result<Tally, String> {
    let mut dice = Dice::new(options.seed);
    let mut model = Model::default();
    let mut tally = Tally::default();
    for round in 1..=options.rounds {
        let fault = match options.clocks && dice.below(2) == 0 {
            true => Fault::draw_clock(&mut dice, lab),
            false => Fault::draw(&mut dice, lab, options.freeze),
        };
        tell(&format!("round {round}: {fault}"));
        let begun = Instant::now();
        let stop = AtomicBool::new(false);
        let seed = dice.next();
        let users = std::thread::scope(|scope| {
            let users = scope.spawn(|| Users::new(seed, model.clone(), fault.frozen()).run(lab, &stop));
            let struck = fault.strike(lab, &mut dice);
            stop.store(true, Ordering::Relaxed);
            let users = users.join().map_err(|_| "the users' thread panicked".to_owned());
            struck.and(users)
        });
        let in_round = |error: String| format!("round {round} ({fault}): {error}");
        let users = users.map_err(in_round)?;
        tally.add(users.tally);
        if let Some(slow) = users.slow.first() {
            return Err(in_round(slow.clone()));
        }
        model = users.model;
        let mended = Instant::now();
        check::converged(lab, &mut model).map_err(in_round)?;
        let (whole, after) = (begun.elapsed().as_secs_f32(), mended.elapsed().as_secs_f32());
        tell(&format!("  {whole:.1} s, of which right after {after:.1} s; {:?}", users.tally));
    }
    if options.renewal {
        tally.add(renewal::torment(lab, dice.next(), &mut model, tell)?);
    }
    Ok(tally)
}

/// The ends of the daemons' logs.
fn logs(lab: &Lab) -> String {
    let end = |node| {
        let log = lab.log(node);
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=debug")).collect();
        format!("--- node {node}\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    };
    lab.nodes().map(end).collect::<Vec<_>>().join("\n")
}
