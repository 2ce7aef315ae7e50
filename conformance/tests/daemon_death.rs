//! The daemon dies by kill -9 at any moment: containers, their output and their ends do not notice.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::path::Path;
use std::time::Duration;

use skep_conformance::{Host, eventually};

const COUNTER: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until the log file has `more` lines than now; works without a daemon.
fn until_longer(log: &str, more: usize) {
    let lines = || std::fs::read_to_string(log).unwrap().lines().count();
    let wanted = lines() + more;
    eventually(
        "the log grows",
        LIMIT,
        || if lines() >= wanted { Ok(()) } else { Err(format!("{}", lines())) },
    );
}

fn until_gone(pid: &str) {
    eventually("the process ends", LIMIT, || {
        if Path::new(&format!("/proc/{pid}")).exists() { Err(format!("{pid} lives")) } else { Ok(()) }
    });
}

/// Asserts that the counter's output has no gap and no repetition, and returns its length.
fn counted(printed: &str) -> usize {
    let numbers: Vec<usize> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "a line was lost: {numbers:?}");
    numbers.len()
}

#[test]
fn containers_go_on_and_no_line_is_lost() {
    let mut host = Host::with_busybox();
    let names = ["one", "two", "three"];
    for name in names {
        host.run_detached(name, &[], COUNTER);
    }
    let pids = names.map(|name| host.inspect(name, "{{.State.Pid}}"));
    let logs = names.map(|name| host.inspect(name, "{{.LogPath}}"));
    for _ in 0..3 {
        host.kill_daemon();
        logs.iter().for_each(|log| until_longer(log, 20));
        host.start_daemon();
        for (name, pid) in names.iter().zip(&pids) {
            assert_eq!(host.inspect(name, "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
        }
    }
    logs.iter().for_each(|log| until_longer(log, 20));
    for name in names {
        let printed = host.docker(&["logs", name]).ok();
        assert!(counted(&printed) > 60);
    }
    let mut following = host.session(&["logs", "--follow", "one"]);
    following.expect("\n100\n");
    host.docker(&["kill", "one"]).ok();
    counted(&following.finish().ok());
    assert_eq!(host.inspect("one", "{{.State.ExitCode}}"), "137");
}

#[test]
fn ends_that_happened_meanwhile_are_told() {
    let mut host = Host::with_busybox();
    let folder = host.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    let bind = format!("{}:/shared", folder.display());
    let script = "while [ ! -e /shared/go ]; do sleep 0.02; done; echo last words; exit ";
    host.run_detached("kept", &["--volume", &bind], &format!("{script} 7"));
    host.run_detached("gone", &["--volume", &bind, "--rm"], &format!("{script} 8"));
    host.run_detached("shot", &[], "while :; do sleep 1; done");
    let pids = ["kept", "gone", "shot"].map(|name| host.inspect(name, "{{.State.Pid}}"));
    host.kill_daemon();
    std::fs::write(folder.join("go"), "").unwrap();
    skep_conformance::signal(pids[2].parse().unwrap(), libc::SIGKILL);
    pids.iter().for_each(|pid| until_gone(pid));
    host.start_daemon();
    host.until("kept", "{{.State.Status}} {{.State.ExitCode}}", "exited 7");
    host.until("shot", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    assert_eq!(host.docker(&["wait", "kept"]).ok(), "7");
    assert_eq!(host.docker(&["logs", "kept"]).ok(), "last words");
    eventually("--rm is honoured", LIMIT, || {
        let names = host.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok();
        if names.contains("gone") { Err(names) } else { Ok(()) }
    });
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}";
    let events = host.docker(&[
        "events",
        "--since",
        "1",
        "--until",
        &now(),
        "--filter",
        "event=die",
        "--format",
        format,
    ]);
    let events = events.ok();
    for told in ["die kept 7", "die gone 8", "die shot 137"] {
        assert_eq!(events.lines().filter(|line| *line == told).count(), 1, "{told} in {events}");
    }
    host.docker(&["start", "kept"]).ok();
    assert_eq!(host.docker(&["wait", "kept"]).ok(), "7", "it starts again");
}

#[test]
fn attach_exec_wait_and_stop_work_afterwards() {
    let mut host = Host::with_busybox();
    let script = "trap 'exit 21' TERM; while :; do read line && echo \"heard $line\"; done";
    host.run_detached("talk", &["--interactive"], script);
    host.run_detached("screen", &["--interactive", "--tty"], "exec sh");
    let waiting = host.session(&["wait", "talk"]);
    host.kill_daemon();
    let cut = waiting.finish();
    assert_ne!(cut.code, 0, "a wait that lost its daemon says so: {cut}");
    host.start_daemon();
    let mut attached = host.session(&["attach", "talk"]);
    attached.send("again\n");
    attached.expect("heard again\n");
    assert_eq!(
        host.docker(&["exec", "talk", "sh", "-c", "echo inside; exit 4"]).fails(4, "").stdout,
        "inside\n"
    );
    let mut screen = host.at_terminal(&["attach", "screen"]);
    screen.send("stty size; echo $((6*7))\n");
    screen.expect("42");
    screen.resize(40, 100);
    screen.send("while [ \"$(stty size)\" != '40 100' ]; do sleep 0.05; done; echo resized\n");
    screen.expect("\nresized");
    screen.send("exit 5\n");
    assert_eq!(screen.finish().code, 5);
    let waiting = host.session(&["wait", "talk"]);
    host.docker(&["stop", "talk"]).ok();
    assert_eq!(waiting.finish().ok(), "21");
    assert_eq!(attached.finish().code, 21);
}

#[test]
fn published_ports_answer_while_the_daemon_is_dead() {
    let mut host = Host::with_busybox();
    let script = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";
    host.run_detached("web", &["--hostname", "web", "--publish", "8080:80"], script);
    eventually("it answers", LIMIT, || host.curl_from_outside(8080));
    host.kill_daemon();
    for _ in 0..20 {
        assert_eq!(host.curl_from_outside(8080).unwrap(), "web\n");
        assert_eq!(host.curl(8080).unwrap(), "web\n");
    }
    host.start_daemon();
    assert_eq!(host.curl_from_outside(8080).unwrap(), "web\n");
    assert_eq!(host.curl(8080).unwrap(), "web\n");
    // The port is still taken, the address too.
    host.run(&["--publish", "8080:80"], "true").fails(125, "port is already allocated");
    host.run_detached("other", &[], "while :; do sleep 1; done");
    let address = |name: &str| host.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert_ne!(address("web"), address("other"));
    host.docker(&["rm", "--force", "web"]).ok();
    assert!(host.curl_from_outside(8080).is_err());
}

#[test]
fn a_port_of_a_container_that_ended_meanwhile_is_free() {
    let mut host = Host::with_busybox();
    let script = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";
    host.run_detached("old", &["--hostname", "old", "--publish", "8080:80"], script);
    let pid = host.inspect("old", "{{.State.Pid}}");
    host.kill_daemon();
    skep_conformance::signal(pid.parse().unwrap(), libc::SIGKILL);
    until_gone(&pid);
    host.start_daemon();
    host.until("old", "{{.State.Status}}", "exited");
    host.run_detached("new", &["--hostname", "new", "--publish", "8080:80"], script);
    assert_eq!(eventually("it answers", LIMIT, || host.curl_from_outside(8080)), "new\n");
}

#[test]
fn killed_amid_a_storm_of_runs_it_comes_back_sound() {
    let mut host = Host::with_busybox();
    for round in 0..3 {
        let mut sessions: Vec<_> = (0..8)
            .map(|number| {
                let name = format!("storm{round}-{number}");
                (host.session(&["run", "--detach", "--name", &name, "busybox", "sleep", "1000"]), name)
            })
            .collect();
        // The first that is acknowledged gives the sign, in the midst of the others.
        let first = sessions.remove(0);
        let id = first.0.finish().ok();
        host.kill_daemon();
        let acknowledged: Vec<(String, String)> = sessions
            .into_iter()
            .filter_map(|(session, name)| {
                let output = session.finish();
                (output.code == 0).then(|| (name, output.stdout.trim().to_owned()))
            })
            .chain([(first.1, id)])
            .collect();
        host.start_daemon();
        for (name, id) in &acknowledged {
            assert_eq!(host.inspect(name, "{{.Id}} {{.State.Status}}"), format!("{id} running"));
        }
        let listed = host.docker(&["ps", "--all", "--quiet", "--no-trunc"]).ok();
        for container in listed.lines() {
            let state = host.inspect(container, "{{.State.Status}}");
            assert!(matches!(&*state, "created" | "running" | "exited"), "{state}");
            host.docker(&["rm", "--force", container]).ok();
        }
        assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "");
    }
    host.assert_nothing_left();
    assert_eq!(host.run(&[], "echo sound").ok(), "sound");
}

#[test]
fn killed_amid_stops_and_removals_it_can_finish_them() {
    let mut host = Host::with_busybox();
    for round in 0..3 {
        let names: Vec<String> = (0..8).map(|number| format!("storm{round}-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let port = format!("{}:80", 8080 + number);
            host.run_detached(name, &["--publish", &port, "--volume", "/data"], "while :; do sleep 1; done");
        }
        let sessions = names.iter().enumerate().map(|(number, name)| match number % 3 {
            0 => host.session(&["rm", "--force", "--volumes", name]),
            1 => host.session(&["stop", "--time", "0", name]),
            _ => host.session(&["exec", name, "sh", "-c", "kill -KILL 1; sleep 1; echo inside"]),
        });
        let mut sessions: Vec<_> = sessions.collect();
        let first = sessions.remove(0);
        let gone = first.finish().ok();
        host.kill_daemon();
        drop(sessions);
        host.start_daemon();
        let listed = host.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok();
        assert!(!listed.lines().any(|name| name == gone), "{gone} was removed: {listed}");
        for name in listed.lines() {
            host.docker(&["rm", "--force", "--volumes", name]).ok();
        }
        // Every port is free again.
        for number in 0..8 {
            host.run(&["--publish", &format!("{}:80", 8080 + number)], "true").ok();
        }
        assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), "");
    }
    host.assert_nothing_left();
}

#[test]
fn a_killed_shim_is_noticed() {
    let host = Host::with_busybox();
    host.run_detached("orphan", &[], "while :; do sleep 1; done");
    let pid = host.inspect("orphan", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert!(shim != host.daemon_pid() && shim != 1, "the container is its shim's child");
    skep_conformance::signal(shim, libc::SIGKILL);
    host.until("orphan", "{{.State.Running}}", "false");
    until_gone(&pid);
    assert_ne!(host.inspect("orphan", "{{.State.ExitCode}}"), "0");
    host.docker(&["start", "orphan"]).ok();
    assert_eq!(host.inspect("orphan", "{{.State.Status}}"), "running");
    host.docker(&["rm", "--force", "orphan"]).ok();
    host.assert_nothing_left();
}

fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (since.as_secs() + 1).to_string()
}
