//! `skep-sim --seed S`: replays one seed; with `--seeds N`, that seed and those after it; with `--hours H`,
//! as many as there is time for.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use skep_sim::{Failure, Flaw, Options, run};

/// Time between lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Simulates a cluster.
#[derive(Parser, Debug)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Go on with further seeds until so many hours are over.
    #[arg(long)]
    hours: Option<f64>,
    /// Virtual minutes of faults.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// How many of the nodes are managers; otherwise the seed says.
    #[arg(long)]
    managers: Option<u64>,
    /// How many seconds the managers' clocks may be wrong; otherwise the seed says.
    #[arg(long)]
    skew: Option<u64>,
    /// Seeds at a time; otherwise one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// What is wrong with the world, by name.
    #[arg(long, default_value = "none", value_parser = flaw)]
    flaw: Flaw,
    /// Tell everything that happened.
    #[arg(long)]
    story: bool,
}

fn flaw(name: &str) -> Result<Flaw, String> {
    Flaw::named(name).ok_or_else(|| {
        let names: Vec<&str> = Flaw::ALL.iter().map(|flaw| flaw.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// What the threads share.
#[derive(Debug, Default)]
struct Progress {
    next: AtomicU64,
    seeds: AtomicU64,
    events: AtomicU64,
    commits: AtomicU64,
    starts: AtomicU64,
    elections: AtomicU64,
    failed: AtomicBool,
}

impl Progress {
    fn line(&self) -> String {
        let counts = [&self.seeds, &self.events, &self.commits, &self.starts, &self.elections];
        let [seeds, events, commits, starts, elections] = counts.map(|count| count.load(Ordering::Relaxed));
        format!(
            "{seeds} seeds: nothing wrong in {events} events, {commits} entries of the log, {elections} terms of \
             leaders and {starts} starts of containers"
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = Progress::default();
    let began = Instant::now();
    let jobs = arguments.jobs.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    std::thread::scope(|scope| {
        let work = || seeds(&arguments, &progress, began);
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                eprintln!("{:6.0} s, {}", began.elapsed().as_secs_f64(), progress.line());
            }
        }
    });
    if progress.failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    println!("{}", progress.line());
    ExitCode::SUCCESS
}

/// Takes seeds until there are no more, or one has failed.
fn seeds(arguments: &Arguments, progress: &Progress, began: Instant) {
    let limit = arguments.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    while !progress.failed.load(Ordering::Relaxed) {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        let over = limit.map_or(number >= arguments.seeds, |limit| began.elapsed() > limit);
        if over {
            break;
        }
        let Arguments { minutes, nodes, managers, skew, flaw, .. } = *arguments;
        let options =
            Options { seed: arguments.seed.wrapping_add(number), minutes, nodes, managers, skew, flaw };
        match run(options) {
            Ok(outcome) => {
                progress.seeds.fetch_add(1, Ordering::Relaxed);
                progress.events.fetch_add(outcome.events, Ordering::Relaxed);
                progress.commits.fetch_add(outcome.commits, Ordering::Relaxed);
                progress.starts.fetch_add(outcome.starts, Ordering::Relaxed);
                progress.elections.fetch_add(outcome.elections, Ordering::Relaxed);
                if arguments.story {
                    println!("{}", outcome.story.join("\n"));
                }
            }
            Err(failure) => {
                // Only the first failure is shown.
                if !progress.failed.swap(true, Ordering::Relaxed) {
                    report(arguments, options, &failure);
                }
            }
        }
    }
}

fn report(arguments: &Arguments, options: Options, failure: &Failure) {
    let shown = if arguments.story { &failure.story } else { &failure.excerpt };
    println!("{}", shown.join("\n"));
    println!("seed {}: {}", options.seed, failure.what);
    println!("replay: {}", options.replay());
}
