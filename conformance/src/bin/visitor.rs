//! `visitor RATE HOST:PORT...`: visits from inside a container, see [`skep_conformance::load`]; prints every second how
//! they went, as JSON. The binary stands alone, so that a test can mount it into any container.

use std::process::ExitCode;
use std::time::Duration;

use skep_conformance::load::Load;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let rate = words.next().and_then(|rate| rate.parse().ok());
    let targets: Vec<String> = words.collect();
    let (Some(rate), false) = (rate, targets.is_empty()) else {
        eprintln!("usage: visitor RATE HOST:PORT...");
        return ExitCode::from(2);
    };
    let load = Load::new();
    std::thread::scope(|scope| {
        scope.spawn(|| load.run(&targets, rate));
        loop {
            std::thread::sleep(Duration::from_secs(1));
            match serde_json::to_string(&load.visits()) {
                Ok(line) => println!("{line}"),
                Err(error) => eprintln!("{error}"),
            }
        }
    })
}
