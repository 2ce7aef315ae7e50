//! What containers leave behind when they are gone: nothing.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::time::Duration;

use skep_conformance::{Host, eventually};

const FOREVER: &str = "while :; do sleep 1; done";

#[test]
fn removed_containers_leave_nothing() {
    let mut host = Host::with_busybox();
    // The bridge, its rules and whatever else the daemon keeps are there after the first container.
    host.run(&["--publish", "8080:80"], "true").ok();
    // The kernel takes a namespace's interfaces down a little later.
    host.assert_nothing_left();
    let before = host.traces();
    host.run_detached("plain", &[], FOREVER);
    host.run_detached("published", &["--publish", "8080:80", "--publish", "5353:53/udp"], FOREVER);
    host.run_detached(
        "mounted",
        &["--volume", "nest:/nest", "--volume", "/nameless", "--tmpfs", "/t"],
        FOREVER,
    );
    host.run_detached("limited", &["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"], FOREVER);
    host.run_detached("shares", &["--network", "host"], FOREVER);
    host.run_detached("alone", &["--network", "none", "--init", "--interactive", "--tty"], FOREVER);
    host.docker(&["exec", "--detach", "plain", "sleep", "1000"]).ok();
    host.docker(&["run", "--name", "broken", "--publish", "8081:80", "busybox", "no-such-command"])
        .fails(127, "");
    host.docker(&["run", "--name", "clash", "--publish", "8080:80", "busybox", "true"]).fails(125, "");
    assert_ne!(host.traces(), before, "the check sees something");
    host.docker(&["restart", "--time", "0", "published"]).ok();
    host.kill_daemon();
    host.start_daemon();
    let names = host.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok();
    let remove: Vec<&str> = ["rm", "--force", "--volumes"].into_iter().chain(names.lines()).collect();
    host.docker(&remove).ok();
    host.docker(&["volume", "rm", "nest"]).ok();
    eventually("everything is gone", Duration::from_secs(10), || {
        let after = host.traces();
        if after == before { Ok(()) } else { Err(format!("before: {before:#?}\nafter: {after:#?}")) }
    });
    host.assert_nothing_left();
    for folder in ["containers", "volumes"] {
        let folder = host.data_root().join(folder);
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let left: Vec<_> = left.into_iter().filter(|path| path.is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_hundred_runs_leave_the_daemon_as_it_was() {
    let host = Host::with_busybox();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", host.daemon_pid())).unwrap().count();
    let threads = || std::fs::read_dir(format!("/proc/{}/task", host.daemon_pid())).unwrap().count();
    let run = || host.run(&["--publish", "8080:80", "--memory", "32m"], "echo done").ok();
    (0..10).for_each(|_| assert_eq!(run(), "done"));
    let (before, threads_before) = (descriptors(), threads());
    (0..50).for_each(|_| assert_eq!(run(), "done"));
    eventually("descriptors are closed", Duration::from_secs(10), || {
        let now = descriptors();
        if now <= before + 5 { Ok(()) } else { Err(format!("{before} before, {now} after")) }
    });
    assert!(threads() <= threads_before + 20, "{threads_before} threads before, {} after", threads());
    host.assert_nothing_left();
}
