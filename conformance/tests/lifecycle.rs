//! Create, start, stop, kill, restart, wait, rm: states, signals, exit codes and the events they leave.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::time::{Duration, Instant};

use skep_conformance::{Host, eventually};

const FOREVER: &str = "trap 'echo asked to stop; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
const STATE: &str = "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}";

#[test]
fn states_from_creation_to_removal() {
    let host = Host::with_busybox();
    let id = host.docker(&["create", "--name", "life", "busybox", "sh", "-c", FOREVER]).ok();
    assert_eq!(host.inspect("life", STATE), "created false 0");
    assert_eq!(host.inspect("life", "{{.State.StartedAt}}"), "0001-01-01T00:00:00Z");
    assert_eq!(host.docker(&["start", "life"]).ok(), "life");
    assert_eq!(host.inspect(&id[..8], STATE), "running true 0");
    assert_ne!(host.inspect("life", "{{.State.Pid}}"), "0");
    host.until_logged("life", "ready");
    assert_eq!(host.docker(&["stop", "life"]).ok(), "life");
    assert_eq!(host.inspect("life", STATE), "exited false 0");
    assert_eq!(host.inspect("life", "{{.State.Pid}}"), "0");
    assert!(host.docker(&["logs", "life"]).ok().ends_with("asked to stop"));
    assert_eq!(host.docker(&["rm", "life"]).ok(), "life");
    host.docker(&["start", "life"]).fails(1, "No such container: life");
}

#[test]
fn the_file_system_survives_a_stop_and_a_start() {
    let host = Host::with_busybox();
    let script = "echo once more >> /notes; cat /notes";
    let id = host.docker(&["create", "--name", "notes", "busybox", "sh", "-c", script]).ok();
    assert_eq!(host.docker(&["start", "--attach", "notes"]).ok(), "once more");
    assert_eq!(host.docker(&["start", "--attach", &id]).ok(), "once more\nonce more");
    let log = host.docker(&["logs", "notes"]).ok();
    assert_eq!(log.lines().count(), 3, "the log keeps both runs: {log}");
}

#[test]
fn start_and_stop_are_idempotent() {
    let host = Host::with_busybox();
    host.run_detached("again", &[], FOREVER);
    host.docker(&["start", "again"]).ok();
    assert_eq!(host.api("POST", "/containers/again/start", "").unwrap().status, 304);
    host.until_logged("again", "ready");
    host.docker(&["stop", "again"]).ok();
    host.docker(&["stop", "again"]).ok();
    assert_eq!(host.api("POST", "/containers/again/stop", "").unwrap().status, 304);
}

#[test]
fn stop_kills_after_its_time() {
    let host = Host::with_busybox();
    host.run_detached("deaf", &[], "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    host.until_logged("deaf", "ready");
    let before = Instant::now();
    host.docker(&["stop", "--time", "1", "deaf"]).ok();
    let took = before.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(host.inspect("deaf", STATE), "exited false 137");
}

#[test]
fn stop_signal_and_stop_timeout_are_the_containers_own() {
    let host = Host::with_busybox();
    let script = "trap 'exit 33' USR1; echo ready; while :; do sleep 0.05; done";
    host.run_detached("own", &["--stop-signal", "SIGUSR1"], script);
    host.until_logged("own", "ready");
    host.docker(&["stop", "own"]).ok();
    assert_eq!(host.inspect("own", STATE), "exited false 33");
    host.run_detached("hasty", &["--stop-timeout", "0"], "trap '' TERM; while :; do sleep 0.05; done");
    let before = Instant::now();
    host.docker(&["stop", "hasty"]).ok();
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn kill_sends_any_signal() {
    let host = Host::with_busybox();
    let script = "trap 'echo hup' HUP; trap 'exit 12' INT; echo ready; while :; do sleep 0.05; done";
    host.run_detached("target", &[], script);
    host.until_logged("target", "ready");
    host.docker(&["kill", "--signal", "HUP", "target"]).ok();
    host.until_logged("target", "hup");
    assert_eq!(host.inspect("target", STATE), "running true 0");
    host.docker(&["kill", "--signal", "2", "target"]).ok();
    host.until("target", STATE, "exited false 12");
    host.docker(&["start", "target"]).ok();
    host.docker(&["kill", "target"]).ok();
    host.until("target", STATE, "exited false 137");
    host.docker(&["kill", "target"]).fails(1, "is not running");
    host.docker(&["start", "target"]).ok();
    host.docker(&["kill", "--signal", "BUZZ", "target"]).fails(1, "nvalid signal: BUZZ");
}

#[test]
fn restart_runs_it_again() {
    let host = Host::with_busybox();
    host.run_detached("twice", &[], FOREVER);
    host.until_logged("twice", "ready");
    let before = host.inspect("twice", "{{.State.Pid}} {{.State.StartedAt}}");
    host.docker(&["restart", "twice"]).ok();
    assert_eq!(host.inspect("twice", STATE), "running true 0");
    assert_ne!(host.inspect("twice", "{{.State.Pid}} {{.State.StartedAt}}"), before);
    host.docker(&["stop", "--time", "0", "twice"]).ok();
    host.docker(&["restart", "twice"]).ok();
    assert_eq!(host.inspect("twice", STATE), "running true 0");
}

#[test]
fn wait_prints_the_exit_code() {
    let host = Host::with_busybox();
    host.run_detached("waited", &[], "while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; exit 23");
    let waiting = host.session(&["wait", "waited"]);
    host.docker(&["exec", "waited", "touch", "/go"]).ok();
    assert_eq!(waiting.finish().ok(), "23");
    assert_eq!(host.docker(&["wait", "waited"]).ok(), "23", "an ended one answers at once");
    host.docker(&["wait", "nobody"]).fails(1, "No such container: nobody");
}

#[test]
fn remove_refuses_what_runs_unless_forced() {
    let host = Host::with_busybox();
    host.run_detached("busy", &[], FOREVER);
    host.docker(&["rm", "busy"])
        .fails(1, "container is running: stop the container before removing or force");
    host.docker(&["rm", "--force", "busy"]).ok();
    host.docker(&["rm", "busy"]).fails(1, "No such container: busy");
    host.docker(&["rm", "--force", "busy"]);
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn an_ambiguous_or_unknown_id_is_refused() {
    let host = Host::with_busybox();
    // 17 ids start with at most 16 different digits.
    for _ in 0..17 {
        host.docker(&["create", "busybox"]).ok();
    }
    let ids = host.docker(&["ps", "--all", "--quiet"]).ok();
    let mut firsts: Vec<char> = ids.lines().map(|id| id.chars().next().unwrap()).collect();
    firsts.sort_unstable();
    let shared = firsts.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].to_string();
    let answer = host.api("GET", &format!("/containers/{shared}/json"), "").unwrap();
    assert!(matches!(answer.status, 400 | 404 | 500), "{answer:?}");
    assert!(
        answer.body.to_lowercase().contains("multiple") || answer.body.contains("ambiguous"),
        "{answer:?}"
    );
}

#[test]
fn out_of_memory_is_reported() {
    let host = Host::with_busybox();
    let options = ["run", "--name", "hungry", "--memory", "16m", "--memory-swap", "16m", "busybox"];
    let output = host.docker(&[&options[..], &["sh", "-c", "tail /dev/zero; exit $?"]].concat());
    assert_eq!(output.code, 137, "{output}");
    assert_eq!(host.inspect("hungry", "{{.State.OOMKilled}}"), "true");
}

#[test]
fn the_main_process_takes_everything_with_it() {
    let host = Host::with_busybox();
    host.run_detached(
        "parent",
        &[],
        "sleep 1234567 & echo started; while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3",
    );
    host.until_logged("parent", "started");
    let ours = |line: &&str| line.trim() == "sleep 1234567";
    let processes = host.docker(&["exec", "parent", "ps", "-o", "args"]).ok();
    assert_eq!(processes.lines().filter(ours).count(), 1, "{processes}");
    let pid = host.inspect("parent", "{{.State.Pid}}");
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    host.docker(&["exec", "parent", "touch", "/go"]).ok();
    assert_eq!(host.docker(&["wait", "parent"]).ok(), "0");
    eventually("no process of the container is left", Duration::from_secs(5), || {
        let left = std::fs::read_dir("/proc").unwrap().flatten();
        let left = left.filter(|process| {
            std::fs::read_link(process.path().join("ns/pid")).is_ok_and(|other| other == namespace)
        });
        let left: Vec<_> = left.map(|process| process.file_name()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_created_container_keeps_its_reserved_name_and_options() {
    let host = Host::with_busybox();
    let options = ["create", "--name", "kept", "--env", "A=1", "--memory", "64m", "--cpus", "1.5", "--init"];
    host.docker(&[&options[..], &["--label", "x=y", "busybox", "sleep", "100"]].concat()).ok();
    let container = host.inspect_json("kept");
    assert_eq!(container["Name"], "/kept");
    assert_eq!(container["Path"], "sleep");
    assert_eq!(container["Args"], serde_json::json!(["100"]));
    assert_eq!(container["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(container["HostConfig"]["NanoCpus"], 1_500_000_000);
    assert_eq!(container["HostConfig"]["Init"], true);
    let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap();
    assert!(matches!(mode, "bridge" | "default"), "{mode}");
    assert_eq!(container["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(container["Config"]["Image"], "busybox");
    assert_eq!(container["Config"]["Labels"]["x"], "y");
    let environment = container["Config"]["Env"].as_array().unwrap();
    assert!(environment.contains(&"A=1".into()) && environment.contains(&"PATH=/bin".into()));
    assert!(container["Image"].as_str().unwrap().starts_with("sha256:"));
    assert!(container["Created"].as_str().unwrap().ends_with('Z'));
    assert_eq!(container["Driver"], "overlay2");
    assert_eq!(container["Platform"], "linux");
    assert_eq!(container["RestartCount"], 0);
}
