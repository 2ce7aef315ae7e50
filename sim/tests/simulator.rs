//! The simulator replays, finds nothing wrong with the code, and notices what is wrong with the world.

use skep_sim::{Flaw, Options, Outcome, run};

fn simulate(seed: u64, flaw: Flaw) -> Result<Outcome, String> {
    run(Options { seed, minutes: 1, nodes: 3, flaw }).map_err(|failure| failure.what)
}

/// Whether the simulator says one of these of one of twenty seeds in a flawed world. A flaw may also show
/// in other ways first.
fn is_noticed(flaw: Flaw, words: &[&str]) -> bool {
    let says = |what: String| words.iter().any(|word| what.contains(word));
    (1..=20).filter_map(|seed| simulate(seed, flaw).err()).any(says)
}

#[test]
fn a_seed_logs_the_same_lines_twice() {
    let (one, two) = (simulate(3, Flaw::None), simulate(3, Flaw::None));
    assert!(one.as_ref().is_ok_and(|outcome| outcome.commits > 50), "{:?}", one.err());
    assert_eq!(one, two);
}

#[test]
fn seeds_differ() {
    assert_ne!(simulate(1, Flaw::None), simulate(2, Flaw::None));
}

#[test]
fn nothing_goes_wrong() {
    for seed in 1000..1008 {
        if let Err(what) = simulate(seed, Flaw::None) {
            panic!("{what}\nreplay: cargo run -p skep-sim -- --seed {seed} --minutes 1 --nodes 3 --story");
        }
    }
}

#[test]
fn nothing_goes_wrong_on_a_single_node() {
    for seed in 2000..2006 {
        if let Err(failure) = run(Options { seed, minutes: 1, nodes: 1, flaw: Flaw::None }) {
            panic!(
                "{}\nreplay: cargo run -p skep-sim -- --seed {seed} --minutes 1 --nodes 1 --story",
                failure.what
            );
        }
    }
}

#[test]
fn a_log_that_forgets_is_noticed() {
    assert!(is_noticed(
        Flaw::LogForgets,
        &["was acknowledged and is lost", "not its newest", "was removed and"]
    ));
}

#[test]
fn a_lost_report_is_noticed() {
    assert!(is_noticed(Flaw::ReportsVanish, &["but the task is", "does not end", "is said to run"]));
}

#[test]
fn a_container_that_was_not_stopped_is_noticed() {
    assert!(is_noticed(Flaw::StopsLie, &["runs twice", "is given to"]));
}

#[test]
fn a_forgotten_restart_delay_is_noticed() {
    assert!(is_noticed(Flaw::TimersEarly, &["before its restart delay is over"]));
}
