//! Health checks, of containers and of tasks.

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

use std::time::Duration;

use skep_conformance::{Host, eventually};

const SOON: Duration = Duration::from_secs(30);

/// What `docker ps` says of the only container.
#[track_caller]
fn until_status(host: &Host, wanted: &str) {
    eventually(wanted, SOON, || {
        let status = host.docker(&["ps", "--format", "{{.Status}}"]).ok();
        if status.contains(wanted) { Ok(()) } else { Err(status) }
    });
}

#[test]
fn a_container_is_starting_healthy_and_unhealthy() {
    let mut host = Host::with_busybox();
    let run =
        ["run", "--detach", "--name", "web", "--health-cmd", "cat /tmp/well", "--health-interval", "200ms"];
    let more = ["--health-retries", "2", "busybox", "sleep", "1000"];
    host.docker(&[&run[..], &more].concat()).ok();
    until_status(&host, "(health: starting)");
    host.docker(&["exec", "web", "sh", "-c", "echo fine > /tmp/well"]).ok();
    until_status(&host, "(healthy)");
    let log = host.docker(&["inspect", "--format", "{{json .State.Health}}", "web"]).ok();
    assert!(log.contains(r#""Output":"fine\n""#) && log.contains(r#""Status":"healthy""#), "{log}");
    assert_eq!(host.docker(&["ps", "--quiet", "--filter", "health=unhealthy"]).ok(), "");

    // What is known outlives the daemon.
    host.kill_daemon();
    host.start_daemon();
    until_status(&host, "(healthy)");
    host.docker(&["exec", "web", "rm", "/tmp/well"]).ok();
    until_status(&host, "(unhealthy)");
    assert_ne!(host.docker(&["ps", "--quiet", "--filter", "health=unhealthy"]).ok(), "");
    let shown = host.docker(&["inspect", "--format", "{{.Config.Healthcheck.Test}}", "web"]).ok();
    assert_eq!(shown, "[CMD-SHELL cat /tmp/well]");
}

#[test]
fn a_probe_that_takes_too_long_has_failed_and_is_ended() {
    let host = Host::with_busybox();
    let run =
        ["run", "--detach", "--name", "web", "--health-cmd", "exec sleep 77", "--health-interval", "100ms"];
    let more = ["--health-timeout", "300ms", "--health-retries", "1", "busybox", "sleep", "1000"];
    host.docker(&[&run[..], &more].concat()).ok();
    until_status(&host, "(unhealthy)");
    let log = host.docker(&["inspect", "--format", "{{json .State.Health.Log}}", "web"]).ok();
    assert!(
        log.contains("Health check exceeded timeout (300ms)") && log.contains(r#""ExitCode":-1"#),
        "{log}"
    );
    host.docker(&["stop", "--time", "0", "web"]).ok();
    host.docker(&["start", "web"]).ok();
    until_status(&host, "(health: starting)");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let host = Host::with_busybox();
    let create = |body: &str| host.api("POST", "/containers/create", body).unwrap();
    let answer = create(r#"{"Image":"busybox","Healthcheck":{"Test":["CMD","true"],"Interval":1}}"#);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Interval in Healthcheck cannot be less than 1ms"), "{}", answer.body);
}

/// A task runs once it is healthy, and is replaced when it is not any more.
#[test]
fn a_service_s_tasks_are_as_healthy_as_their_containers() {
    let host = Host::with_busybox();
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    let create = ["service", "create", "--detach", "--name", "web", "--restart-delay", "0s", "--health-cmd"];
    let how = ["test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "2"];
    // It becomes healthy by itself, after a while in which failures do not count.
    let what = ["--health-start-period", "60s", "--health-start-interval", "200ms", "busybox", "sh", "-c"];
    let program = ["sleep 2; touch /tmp/well; sleep 1000"];
    host.docker(&[&create[..], &how, &what, &program].concat()).ok();
    until_status(&host, "(health: starting)");
    let tasks = ["service", "ps", "--format", "{{.CurrentState}} {{.Error}}", "web"];
    assert!(host.docker(&tasks).ok().starts_with("Starting"), "it does not run before it is healthy");
    until_status(&host, "(healthy)");
    eventually("it runs", SOON, || {
        let shown = host.docker(&tasks).ok();
        if shown.starts_with("Running") { Ok(()) } else { Err(shown) }
    });
    let first = host.docker(&["ps", "--quiet"]).ok();
    host.docker(&["exec", &first, "rm", "/tmp/well"]).ok();
    eventually("another takes its place", SOON, || {
        let shown = host.docker(&tasks).ok();
        let replaced = shown.starts_with("Running") && shown.contains("unhealthy container");
        if replaced { Ok(()) } else { Err(shown) }
    });
    assert_ne!(host.docker(&["ps", "--quiet"]).ok(), first);
}
