//! `truth --operations 1000`: holds what every node serves against what runs; see [`skep_conformance::truth`].

use std::process::ExitCode;

use skep_conformance::truth::{Options, run};

fn main() -> ExitCode {
    let mut options = Options { seed: 1, operations: 1000, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--keep" {
            options.keep = true;
            continue;
        }
        let value = words.next().and_then(|value| value.parse::<u32>().ok());
        match (word.as_str(), value) {
            ("--operations", Some(operations)) => options.operations = operations,
            ("--seed", Some(seed)) => options.seed = u64::from(seed),
            _ => {
                eprintln!("usage: truth [--operations N] [--seed N] [--keep]");
                return ExitCode::from(2);
            }
        }
    }
    match run(options, |line| println!("{line}")) {
        Ok(tally) => {
            println!("all true: {tally:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
