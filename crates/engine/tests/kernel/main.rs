//! The engine against the real kernel: containers from Debian's busybox, in a network and a mount namespace of their
//! own. Needs root; whatever is missing fails the tests.
//!
//! This executable is three programs: called with `shim` it is the shim of a container; called from outside it
//! starts itself again in new namespaces; there it runs the tests, whose names can be filtered by an argument.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod house;
mod life;
mod network;
mod restart;
mod storage;
mod streams;

use std::future::Future;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Set in the environment of the process inside the namespaces.
const INSIDE: &str = "SKEP_TEST_INSIDE";

type Test = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), (|| Box::pin($module::$name())) as Test)),*]
    };
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "shim") {
        skep_runtime::shim_main(&arguments[1..]);
    }
    if std::env::var_os(INSIDE).is_none() {
        return go_inside(&arguments);
    }
    let filter = arguments.iter().filter_map(|word| word.to_str()).find(|word| !word.starts_with('-'));
    run(filter.unwrap_or(""))
}

/// Starts this executable again in namespaces that take everything with them when they end.
fn go_inside(arguments: &[std::ffi::OsString]) -> ExitCode {
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .env(INSIDE, "1")
        .status()
        .expect("unshare of util-linux is there");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101))
}

fn run(filter: &str) -> ExitCode {
    let _ =
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN).try_init();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let tests = tests![
        life::a_container_runs_to_its_end,
        life::stop_asks_first_and_kills_then,
        life::kill_needs_a_running_container,
        life::a_container_starts_again,
        life::rm_makes_it_go_when_it_ends,
        life::removal_follows_docker_s_rules,
        life::fifty_start_at_the_same_time,
        streams::logs_are_replayed_and_followed,
        streams::input_reaches_the_container,
        streams::execs_tell_their_exit_codes,
        storage::volumes_receive_the_image_s_content,
        storage::anonymous_volumes_go_with_their_container,
        storage::binds_are_checked_and_made,
        network::a_published_port_answers,
        network::a_taken_port_leaves_nothing_behind,
        network::the_host_s_and_no_network,
        network::files_in_etc_are_docker_s,
        network::a_service_is_answered_by_its_backends,
        restart::a_running_container_is_adopted,
        restart::an_end_meanwhile_is_told,
        restart::published_ports_answer_before_and_after,
        restart::damage_to_one_container_is_set_aside,
        faults::programs_that_cannot_run,
        faults::a_full_start_is_undone,
        faults::a_full_disk_is_said_and_survived,
    ];
    let mut failed = Vec::new();
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(filter)) {
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async move { tokio::spawn(test()).await });
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", began.elapsed().as_millis());
        if result.is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
