//! A swarm of one against the real engine and the real kernel, in a network and a mount namespace of its own.
//! Needs root; whatever is missing fails the tests.
//!
//! This executable is three programs: called with `shim` it is the shim of a container; called from outside it
//! starts itself again in new namespaces; there it runs the tests, whose names can be filtered by an argument.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod house;
mod life;
mod restart;

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
        life::a_node_enters_and_leaves,
        life::a_service_answers_scales_and_heals,
        life::an_update_replaces_tasks,
        life::a_missing_image_is_told,
        life::leaving_takes_everything_along,
        restart::containers_outlive_the_daemon,
        restart::a_membership_survives_and_its_damage_is_told,
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
