//! Global services, jobs, schedules and dependencies, with the stock client.

use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::SOON;

const SLEEP: [&str; 3] = ["busybox", "sleep", "1000"];

fn create(lab: &Lab, options: &[&str], image: &[&str]) {
    lab.docker(1, &[&["service", "create", "--detach", "--quiet"][..], options, image].concat()).ok();
}

/// What `docker service ls` says of how many there are.
fn until_progress(lab: &Lab, service: &str, wanted: &str, limit: Duration) {
    let filter = format!("name={service}");
    let list = ["service", "ls", "--filter", &filter, "--format", "{{.Mode}} {{.Replicas}}"];
    lab.until(1, &format!("{service} is {wanted}"), limit, &list, |shown| shown == wanted);
}

fn iteration(lab: &Lab, service: &str) -> String {
    let format = "{{.JobStatus.JobIteration.Index}}";
    lab.docker(1, &["service", "inspect", "--format", format, service]).ok()
}

#[test]
fn a_global_service_follows_the_nodes() {
    let lab = Lab::up(1, 2, &["busybox"]);
    let host = |node: u16| lab.docker(node, &["info", "--format", "{{.Name}}"]).ok();
    create(&lab, &["--mode", "global", "--name", "agent"], &SLEEP);
    until_progress(&lab, "agent", "global 3/3", SOON);
    let on_node = |node: u16| lab.docker(node, &["ps", "--format", "{{.Names}}"]).ok();
    for node in lab.nodes() {
        let id = lab.docker(node, &["info", "--format", "{{.Swarm.NodeID}}"]).ok();
        let name = on_node(node);
        assert!(name.starts_with(&format!("agent.{id}.")), "{name}");
    }

    lab.docker(1, &["node", "update", "--availability", "drain", &host(2)]).ok();
    until_progress(&lab, "agent", "global 2/2", SOON);
    eventually("the drained node has none", SOON, || match on_node(2).as_str() {
        "" => Ok(()),
        other => Err(other.to_owned()),
    });
    lab.docker(1, &["node", "update", "--availability", "active", &host(2)]).ok();
    until_progress(&lab, "agent", "global 3/3", SOON);

    lab.docker(1, &["node", "update", "--label-add", "disk=ssd", &host(3)]).ok();
    let update = ["service", "update", "--detach", "--constraint-add", "node.labels.disk==ssd", "agent"];
    lab.docker(1, &update).ok();
    until_progress(&lab, "agent", "global 1/1", SOON);
    eventually("the other nodes have none", SOON, || match (on_node(1), on_node(2)) {
        (first, second) if first.is_empty() && second.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn jobs_run_to_completion_and_again_when_they_are_forced() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let job = ["--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2", "--name", "job"];
    // Without --detach: the client follows it to its end.
    let create_job = [&["service", "create", "--quiet"][..], &job, &["busybox", "true"]].concat();
    lab.docker(1, &create_job).ok();
    until_progress(&lab, "job", "replicated job 0/2 (4/4 completed)", SOON);
    let states = ["service", "ps", "--format", "{{.CurrentState}}", "job"];
    let shown = lab.docker(1, &states).ok();
    assert_eq!(shown.lines().filter(|state| state.starts_with("Complete ")).count(), 4, "{shown}");
    assert_eq!(iteration(&lab, "job"), "0");
    lab.docker(1, &["service", "update", "--detach", "--force", "job"]).ok();
    eventually("it ran again", SOON, || match lab.docker(1, &states).ok() {
        shown if shown.lines().filter(|state| state.starts_with("Complete ")).count() == 8 => Ok(()),
        shown => Err(shown),
    });
    assert_eq!(iteration(&lab, "job"), "1");

    create(&lab, &["--mode", "global-job", "--name", "everywhere"], &["busybox", "true"]);
    until_progress(&lab, "everywhere", "global job 0/0 (2/2 completed)", SOON);
    let failing =
        ["--mode", "replicated-job", "--restart-max-attempts", "1", "--restart-delay", "0s", "--name"];
    create(&lab, &[&failing[..], &["failing"]].concat(), &["busybox", "false"]);
    let states = ["service", "ps", "--format", "{{.CurrentState}}", "failing"];
    lab.until(1, "it failed twice", SOON, &states, |shown| {
        shown.lines().filter(|state| state.starts_with("Failed ")).count() == 2
    });
}

#[test]
fn a_job_runs_by_its_schedule() {
    let lab = Lab::up(1, 0, &["busybox"]);
    let job = ["--mode", "replicated-job", "--name"];
    let truth = ["busybox", "true"];
    create(&lab, &[&job[..], &["minutely", "--label", "skep.cron=* * * * *"]].concat(), &truth);
    let leap = ["leap", "--label", "skep.cron=0 0 29 2 *", "--label", "skep.cron.timezone=Europe/Berlin"];
    create(&lab, &[&job[..], &leap].concat(), &truth);
    lab.docker(1, &["service", "update", "--detach", "--env-add", "A=b", "leap"]).ok();
    assert_eq!(
        (
            iteration(&lab, "leap").as_str(),
            lab.docker(1, &["service", "ps", "--quiet", "leap"]).ok().as_str()
        ),
        ("0", "")
    );
    lab.docker(1, &["service", "update", "--detach", "--force", "leap"]).ok();
    until_progress(&lab, "leap", "replicated job 0/1 (1/1 completed)", SOON);
    assert_eq!(iteration(&lab, "leap"), "1");

    let limit = Duration::from_secs(90);
    until_progress(&lab, "minutely", "replicated job 0/1 (1/1 completed)", limit);
    assert_eq!(iteration(&lab, "minutely"), "1");

    let refused = ["service", "create", "--detach", "--label", "skep.cron=@daily"];
    lab.docker(1, &[&refused[..], &SLEEP].concat()).fails(1, "only jobs run by a schedule");
    let refused = ["service", "create", "--detach", "--mode", "replicated-job", "--label", "skep.cron=daily"];
    lab.docker(1, &[&refused[..], &truth].concat()).fails(1, "has not the five fields");
}

#[test]
fn a_service_waits_until_what_it_depends_on_is_healthy() {
    let lab = Lab::up(1, 0, &["busybox"]);
    create(&lab, &["--name", "web", "--label", "skep.depends_on=db"], &SLEEP);
    let error = ["service", "ps", "--no-trunc", "--format", "{{.Error}}", "web"];
    let waits = |what: &str, wanted: &str| {
        lab.until(1, what, SOON, &error, |shown| shown.trim_matches('"') == wanted);
    };
    waits("it waits for nobody yet", "waiting for service db, which does not exist");
    let health =
        ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1000"];
    create(&lab, &[&["--name", "db"][..], &health].concat(), &SLEEP);
    waits("it waits for the database", "waiting for service db (0/1 running)");
    let ps = ["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=db"];
    let id = lab.until(1, "the database started", SOON, &ps, |shown| !shown.is_empty());
    lab.docker(1, &["exec", &id, "touch", "/tmp/well"]).ok();
    lab.until_replicas(1, "web", "1/1", SOON);
    let circle = ["service", "update", "--detach", "--label-add", "skep.depends_on=web", "db"];
    lab.docker(1, &circle).fails(1, "db waits for web, web waits for db");
}
