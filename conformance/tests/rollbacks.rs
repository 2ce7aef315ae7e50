//! Updates that go back, as the stock client tells of them while it waits for their end.

use std::time::Duration;

use skep_conformance::{Host, Output, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A machine on which a service of two tasks runs.
fn host(options: &[&str]) -> Host {
    let host = Host::with_busybox();
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    let create =
        ["service", "create", "--detach", "--name", "web", "--replicas", "2", "--stop-grace-period", "0s"];
    let quick = ["--restart-delay", "0s", "--update-monitor", "1s", "--rollback-monitor", "1s"];
    host.docker(&[&create[..], &quick, options, &["busybox", "sleep", "1000"]].concat()).ok();
    eventually("web runs", SOON, || {
        let replicas = host.docker(&["service", "ls", "--format", "{{.Replicas}}"]).ok();
        if replicas == "2/2" { Ok(()) } else { Err(replicas) }
    });
    host
}

fn inspect(host: &Host, format: &str) -> String {
    host.docker(&["service", "inspect", "--format", format, "web"]).ok()
}

fn status(host: &Host) -> String {
    inspect(host, "{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}")
}

/// The client is content once the tasks ran for a while; the cluster watches each of them as long.
fn is_back(host: &Host) {
    eventually("the rollback is complete", SOON, || {
        let state = status(host);
        if state == "rollback_completed: rollback completed" { Ok(()) } else { Err(state) }
    });
}

/// A client that waits until its change is through.
fn waits(host: &Host, arguments: &[&str]) -> Output {
    host.docker(&[&["service"], arguments, &["--detach=false", "web"]].concat())
}

const ARGUMENTS: &str = "{{join .Spec.TaskTemplate.ContainerSpec.Args \" \"}}";

#[test]
fn a_rollback_by_hand_is_waited_for() {
    let host = host(&[]);
    let refused = host.docker(&["service", "rollback", "web"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("does not have a previous spec"), "{refused}");

    let update = waits(&host, &["update", "--args", "sleep 2000"]);
    assert!(update.ok().contains("Service web converged"));
    assert_eq!(inspect(&host, "{{.PreviousSpec.TaskTemplate.ContainerSpec.Args}}"), "[sleep 1000]");
    let back = waits(&host, &["rollback"]).ok();
    assert!(back.contains("manually requested rollback"), "{back}");
    assert!(back.contains("rolling back update: 2 out of 2 tasks"), "{back}");
    assert!(back.contains("Service web converged"), "{back}");
    is_back(&host);
    assert_eq!(inspect(&host, ARGUMENTS), "sleep 1000");
    // What was gone back from can be gone back to.
    waits(&host, &["update", "--rollback"]).ok();
    assert_eq!(inspect(&host, ARGUMENTS), "sleep 2000");
}

#[test]
fn an_update_that_fails_goes_back_while_the_client_waits() {
    let host = host(&["--update-failure-action", "rollback"]);
    let failed = waits(&host, &["update", "--args", "false"]);
    let told = failed.to_string();
    assert!(told.contains("update rolled back due to failure or early termination of task"), "{told}");
    assert!(told.contains("rolling back update: 2 out of 2 tasks"), "{told}");
    is_back(&host);
    assert_eq!(inspect(&host, ARGUMENTS), "sleep 1000");
    assert_eq!(inspect(&host, "{{json .PreviousSpec}}"), "null");
}

#[test]
fn an_update_that_fails_pauses_and_says_so() {
    let host = host(&[]);
    let paused = waits(&host, &["update", "--args", "false"]);
    assert_ne!(paused.code, 0);
    let message = "update paused due to failure or early termination of task";
    assert!(paused.stderr.contains(&format!("service update paused: {message}")), "{paused}");
    assert!(status(&host).starts_with(&format!("paused: {message}")), "{}", status(&host));
    waits(&host, &["rollback"]).ok();
    is_back(&host);
}

#[test]
fn rollbacks_are_configured_and_shown() {
    let options =
        ["--rollback-parallelism", "0", "--rollback-delay", "1s", "--rollback-order", "start-first"];
    let more = ["--rollback-max-failure-ratio", "0.5", "--rollback-failure-action", "continue"];
    let host = host(&[&options[..], &more].concat());
    let shown = inspect(&host, "{{json .Spec.RollbackConfig}}");
    let expected = r#"{"Parallelism":0,"Delay":1000000000,"FailureAction":"continue","Monitor":1000000000,"MaxFailureRatio":0.5,"Order":"start-first"}"#;
    assert_eq!(shown, expected);
    host.docker(&["service", "update", "--detach", "--rollback-parallelism", "2", "web"]).ok();
    assert_eq!(inspect(&host, "{{.Spec.RollbackConfig.Parallelism}}"), "2");
}
