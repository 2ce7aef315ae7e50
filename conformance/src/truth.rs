//! Truth on real processes: after each of many random operations, what every node serves is what runs.
//!
//! Three nodes, two networks, services on them with published ports, virtual addresses or none, guests. After an
//! operation the cluster settles: services have their replicas, nodes are ready. From then on, within two seconds, every
//! node's mesh must be answered by exactly the running tasks, and in every node's containers names and virtual addresses
//! must lead to exactly these. At the end everything is removed, and nothing may be left in any kernel.

mod operation;
mod tables;
mod world;

use std::time::{Duration, Instant};

use crate::Lab;
use crate::faults::Dice;

use operation::Operation;
use world::World;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides what happens.
    pub seed: u64,
    /// How many operations.
    pub operations: u32,
    /// Leave the cluster as it is when something was wrong.
    pub keep: bool,
}

/// The nodes, all of them managers.
const NODES: u16 = 3;
/// Time within which the cluster settles after an operation.
const SETTLE: Duration = Duration::from_secs(60);
/// Time within which all tables are true once it has.
const QUIET: Duration = Duration::from_secs(2);

/// How a run ended well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Operations.
    pub operations: u32,
    /// The longest from quiet to true tables.
    pub slowest: Duration,
}

/// Runs all operations; tells each as it begins.
///
/// # Errors
/// What was not true after which operation.
pub fn run(options: Options, mut tell: impl FnMut(&str)) -> Result<Tally, String> {
    let lab = Lab::up(NODES, 0, &["nginx", "busybox"]);
    let result = play(&lab, options, &mut tell);
    if result.is_err() && options.keep {
        tell(&format!("the lab is kept: node 1 in {}", lab.folder(1).display()));
        std::mem::forget(lab);
    }
    result
}

fn play(lab: &Lab, options: Options, tell: &mut impl FnMut(&str)) -> Result<Tally, String> {
    let mut dice = Dice::new(options.seed);
    let mut world = World::found(lab)?;
    let mut tally = Tally::default();
    for number in 1..=options.operations {
        let operation = Operation::draw(&mut dice, &world);
        tell(&format!("{number}: {operation}"));
        let after =
            |error: String| format!("seed {}, operation {number} ({operation}): {error}", options.seed);
        operation.perform(lab, &mut world, &mut dice).map_err(after)?;
        within(SETTLE, || world.settled(lab)).map_err(after)?;
        let quiet = Instant::now();
        within(QUIET, || tables::check(lab, &world)).map_err(after)?;
        tally.slowest = tally.slowest.max(quiet.elapsed());
        tally.operations += 1;
    }
    world.remove_everything(lab)?;
    within(SETTLE, || tables::nothing_left(lab))?;
    Ok(tally)
}

/// Looks until it is right. A look that began in time counts.
fn within(limit: Duration, mut look: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let in_time = begun.elapsed() <= limit;
        match look() {
            Ok(()) => return Ok(()),
            Err(wrong) if !in_time => return Err(format!("after {limit:?}: {wrong}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
