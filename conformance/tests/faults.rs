//! A short run of what `faults --rounds 500` does at length.

use std::time::Duration;

use skep_conformance::faults::{Options, run};

#[test]
fn nothing_acknowledged_is_lost_in_a_few_rounds() {
    let options = Options {
        seed: 3,
        rounds: 8,
        freeze: Duration::from_secs(5),
        clocks: false,
        renewal: false,
        keep: false,
    };
    let tally = run(options, |line| println!("{line}")).unwrap_or_else(|error| panic!("{error}"));
    assert!(tally.acknowledged > 20, "the users were served: {tally:?}");
}
