//! `skep-sim --seed S`: replays one seed; with `--seeds N`, that seed and those after it.

use std::process::ExitCode;

use clap::Parser;
use skep_sim::{Failure, Flaw, Options, run};

/// Lines of the story that a failure shows.
const TAIL: usize = 40;

/// Simulates a cluster.
#[derive(Parser, Debug)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Virtual minutes of faults.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// Tell everything that happened.
    #[arg(long)]
    story: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { minutes, nodes, .. } = arguments;
    let (mut commits, mut starts) = (0, 0);
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match run(Options { seed, minutes, nodes, flaw: Flaw::None }) {
            Ok(outcome) => {
                commits += outcome.commits;
                starts += outcome.starts;
                if arguments.story {
                    println!("{}", outcome.story.join("\n"));
                }
            }
            Err(failure) => {
                report(&arguments, seed, &failure);
                return ExitCode::FAILURE;
            }
        }
    }
    let Arguments { seeds, .. } = arguments;
    println!(
        "{seeds} seeds: nothing wrong in {commits} entries of the log and {starts} starts of containers"
    );
    ExitCode::SUCCESS
}

fn report(arguments: &Arguments, seed: u64, failure: &Failure) {
    let shown = if arguments.story { failure.story.len() } else { TAIL };
    let skipped = failure.story.len().saturating_sub(shown);
    println!("{}", failure.story.iter().skip(skipped).cloned().collect::<Vec<_>>().join("\n"));
    let Arguments { minutes, nodes, .. } = arguments;
    println!("seed {seed}: {}", failure.what);
    println!("replay: cargo run -p skep-sim -- --seed {seed} --minutes {minutes} --nodes {nodes} --story");
}
