//! The simulator replays, finds nothing wrong with the code, and notices what is wrong with the world.

use skep_sim::{Flaw, Options, Outcome, run};

fn simulate(options: Options) -> Result<Outcome, String> {
    run(options).map_err(|failure| failure.what)
}

/// Nothing goes wrong under these seeds.
fn all_is_well(seeds: std::ops::Range<u64>, nodes: u64, managers: u64) {
    for seed in seeds {
        let options = Options { nodes, managers: Some(managers), ..Options::new(seed) };
        if let Err(failure) = run(options) {
            let (story, replay) = (failure.excerpt.join("\n"), options.replay());
            panic!("{story}\n{}\nreplay: {replay}", failure.what);
        }
    }
}

/// Whether the simulator says one of these of one of so many seeds in a flawed world. A flaw may also show
/// in other ways first.
fn is_noticed(flaw: Flaw, words: &[&str]) -> bool {
    let says = |what: String| words.iter().any(|word| what.contains(word));
    let options = |seed| Options { flaw, ..Options::new(seed) };
    (1..=60).filter_map(|seed| simulate(options(seed)).err()).any(says)
}

#[test]
fn a_seed_logs_the_same_lines_twice() {
    let options = Options { nodes: 5, managers: Some(3), ..Options::new(3) };
    let (one, two) = (simulate(options), simulate(options));
    assert!(one.as_ref().is_ok_and(|outcome| outcome.commits > 50), "{:?}", one.err());
    assert_eq!(one, two);
}

#[test]
fn seeds_differ() {
    assert_ne!(simulate(Options::new(1)), simulate(Options::new(2)));
}

#[test]
fn nothing_goes_wrong_with_one_manager() {
    all_is_well(1000..1030, 3, 1);
    all_is_well(2000..2010, 1, 1);
}

#[test]
fn nothing_goes_wrong_with_three_managers() {
    all_is_well(3000..3030, 5, 3);
}

#[test]
fn nothing_goes_wrong_with_five_managers() {
    all_is_well(5000..5010, 7, 5);
}

#[test]
fn nothing_goes_wrong_on_a_thousand_nodes() {
    all_is_well(1..2, 1000, 3);
}

#[test]
fn a_disk_that_forgets_is_noticed() {
    assert!(is_noticed(
        Flaw::LogForgets,
        &["than the log gives", "not its newest", "was removed and", "is lost"]
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

#[test]
fn a_stale_assignment_is_noticed() {
    assert!(is_noticed(Flaw::StaleAssignments, &["is given its duties as of entry"]));
}

#[test]
fn an_answer_before_the_commit_is_noticed() {
    assert!(is_noticed(Flaw::AnswersEarly, &["is lost", "has lost a specification"]));
}

#[test]
fn a_leader_that_has_not_caught_up_is_noticed() {
    assert!(is_noticed(Flaw::LeadsBehind, &["is wanted", "than the log gives", "is now", "has two holders"]));
}
