//! What every node serves is what runs: a few operations of each run of the tests; the script does many.

use skep_conformance::truth::{Options, run};

#[test]
fn every_node_serves_what_runs() {
    let options = Options { seed: 4, operations: 25, keep: false };
    if let Err(error) = run(options, |line| println!("{line}")) {
        panic!("{error}");
    }
}
