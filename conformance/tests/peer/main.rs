//! The same commands and requests on a one-node swarm of Docker's own daemon and on Skep: exit codes, what is printed and
//! the API's JSON, field by field. What may differ stands in `differences.txt` with its reason; a difference that is
//! not there fails a test, and so does one that is there and no longer occurs.
//!
//! The steps are in `*.steps`, see [`steps`].

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

mod differences;
mod normal;
mod pair;
mod steps;

use pair::Pair;

/// Runs a file of steps on both daemons.
#[track_caller]
fn compare(name: &str, text: &str) {
    let steps = steps::parse(text).unwrap_or_else(|error| panic!("{name}.steps: {error}"));
    let found = Pair::new().run(&steps);
    let allowed = differences::parse(include_str!("differences.txt")).unwrap();
    let faults = differences::judge(name, &found, &allowed);
    assert!(faults.is_empty(), "{} steps, {} faults:\n{}", steps.len(), faults.len(), faults.join("\n"));
}

#[test]
fn services_are_as_dockers() {
    compare("services", include_str!("services.steps"));
}

#[test]
fn every_flag_of_an_update_is_as_dockers() {
    compare("flags", include_str!("flags.steps"));
}

#[test]
fn modes_and_progress_are_as_dockers() {
    compare("modes", include_str!("modes.steps"));
}

#[test]
fn nodes_and_the_swarm_are_as_dockers() {
    compare("nodes", include_str!("nodes.steps"));
}

#[test]
fn networks_are_as_dockers() {
    compare("networks", include_str!("networks.steps"));
}
