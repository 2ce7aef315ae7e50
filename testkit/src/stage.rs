//! Tests with a `main` of their own, in a network and a mount namespace that take everything with them when they end.
//! Needs root; whatever is missing fails the tests.
//!
//! The test's executable is three programs: called with `shim` it is the shim of a container; called from outside it
//! starts itself again in new namespaces; there it runs the tests, whose names can be filtered by an argument.

use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Set in the environment of the process inside the namespaces.
const INSIDE: &str = "SKEP_TEST_INSIDE";

/// A test, begun anew by each call.
pub type Test = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names tests: `tests![module::function, ...]`.
#[macro_export]
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($module), "::", stringify!($name)),
            (|| Box::pin($module::$name())) as $crate::stage::Test,
        )),*]
    };
}

/// The body of the test's `main`.
pub fn main(tests: &[(&str, Test)]) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "shim") {
        skep_runtime::shim_main(&arguments[1..]);
    }
    if std::env::var_os(INSIDE).is_none() {
        return go_inside(&arguments);
    }
    let filter = arguments.iter().filter_map(|word| word.to_str()).find(|word| !word.starts_with('-'));
    run(tests, filter.unwrap_or(""))
}

fn go_inside(arguments: &[OsString]) -> ExitCode {
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .env(INSIDE, "1")
        .status()
        .expect("unshare of util-linux is there");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101))
}

fn run(tests: &[(&str, Test)], filter: &str) -> ExitCode {
    let _ =
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN).try_init();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(filter)) {
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async move { tokio::spawn(test()).await });
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", began.elapsed().as_millis());
        match result {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
