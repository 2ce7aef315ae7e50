//! Daemons that die, links that break, processes that stand still.

use skep_conformance::{Lab, eventually};

use crate::{SOON, await_answer, containers, leader};

/// A worker whose managers are all gone keeps its tasks and its ports, also when its own daemon is restarted.
#[test]
fn a_worker_without_managers_goes_on() {
    let lab = Lab::up(1, 1, &["simple_server"]);
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "2", "-p", "80:8000"];
    let create = [&create[..], &["--constraint", "node.role==worker", "simple_server"]].concat();
    lab.docker(1, &create).ok();
    lab.until_replicas(1, "web", "2/2", SOON);
    await_answer(&lab, 2, 80);
    let before = containers(&lab, 2);
    lab.run(&["kill", "1"]).ok();
    lab.fetch(2, 80).unwrap();
    lab.run(&["kill", "2"]).ok();
    lab.fetch(2, 80).unwrap();
    lab.run(&["start", "2"]).ok();
    lab.fetch(2, 80).unwrap();
    assert_eq!(containers(&lab, 2), before);
    lab.run(&["start", "1"]).ok();
    lab.until(1, "both are ready", SOON, &["node", "ls", "--format", "{{.Status}}"], |all| {
        all.lines().filter(|status| *status == "Ready").count() == 2
    });
    lab.until_replicas(1, "web", "2/2", SOON);
    assert_eq!(containers(&lab, 2), before, "no task was touched");
}

/// A leader that stands still and then goes on, not knowing that another leads.
#[test]
fn a_leader_that_was_frozen_does_no_harm() {
    let lab = Lab::up(3, 1, &["busybox"]);
    lab.docker(1, &["service", "create", "--detach", "--name", "web", "busybox", "sleep", "1000"]).ok();
    lab.until_replicas(1, "web", "1/1", SOON);
    let old = leader(&lab, 1).unwrap();
    let other = (1..=3).find(|node| *node != old).unwrap();
    lab.run(&["pause", &old.to_string()]).ok();
    eventually("another leads", SOON, || {
        let scaled = lab.docker(other, &["service", "scale", "--detach", "web=3"]);
        if scaled.code == 0 { Ok(()) } else { Err(scaled.to_string()) }
    });
    lab.until_replicas(other, "web", "3/3", SOON);
    lab.run(&["resume", &old.to_string()]).ok();
    // What it answers is what was agreed on while it stood still.
    lab.until_replicas(old, "web", "3/3", SOON);
    eventually("three run in all", SOON, || {
        let count: usize = lab.nodes().map(|node| containers(&lab, node).len()).sum();
        if count == 3 { Ok(()) } else { Err(format!("{count} run")) }
    });
}

/// The leader is cut off with the minority: it acknowledges nothing, and afterwards agrees with the others.
#[test]
fn a_minority_acknowledges_nothing() {
    let lab = Lab::up(3, 0, &["busybox"]);
    let old = leader(&lab, 1).unwrap();
    let other = (1..=3).find(|node| *node != old).unwrap();
    lab.run(&["cut", &old.to_string()]).ok();
    let create = |node, name| {
        lab.docker(node, &["service", "create", "--detach", "--name", name, "busybox", "sleep", "1000"])
    };
    eventually("the majority agrees", SOON, || {
        let created = create(other, "kept");
        if created.code == 0 { Ok(()) } else { Err(created.to_string()) }
    });
    assert_ne!(create(old, "lost").code, 0, "the minority refuses");
    assert_ne!(lab.docker(old, &["service", "ls"]).code, 0, "it does not show what may be out of date");
    lab.run(&["heal"]).ok();
    let listed = lab.until(old, "all agree", SOON, &["service", "ls", "--format", "{{.Name}}"], |_| true);
    assert_eq!(listed, "kept");
    lab.until_replicas(old, "kept", "1/1", SOON);
}
