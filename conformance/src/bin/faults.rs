//! `faults --rounds 500`: torments a cluster of real processes; see [`skep_conformance::faults`].

use std::process::ExitCode;
use std::time::Duration;

use skep_conformance::faults::{Options, run};

fn main() -> ExitCode {
    let mut options = Options {
        seed: 1,
        rounds: 500,
        freeze: Duration::from_secs(30),
        clocks: false,
        renewal: false,
        keep: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => {
                options.keep = true;
                continue;
            }
            "--clock" => {
                options.clocks = true;
                continue;
            }
            "--renewal" => {
                options.renewal = true;
                continue;
            }
            _ => {}
        }
        let value = words.next().and_then(|value| value.parse::<u32>().ok());
        match (word.as_str(), value) {
            ("--rounds", Some(rounds)) => options.rounds = rounds,
            ("--seed", Some(seed)) => options.seed = u64::from(seed),
            ("--freeze", Some(seconds)) => options.freeze = Duration::from_secs(u64::from(seconds)),
            _ => {
                eprintln!(
                    "usage: faults [--rounds N] [--seed N] [--freeze SECONDS] [--clock] [--renewal] [--keep]"
                );
                return ExitCode::from(2);
            }
        }
    }
    match run(options, |line| println!("{line}")) {
        Ok(tally) => {
            println!("{} rounds, nothing lost: {tally:?}", options.rounds);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("seed {}: {error}", options.seed);
            ExitCode::FAILURE
        }
    }
}
