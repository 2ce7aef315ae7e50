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

/// What the last write left in a manager's log is damaged while the manager is down. It says so, shows nothing, and
/// can be put in order as a node whose disk was replaced: the others go on meanwhile.
#[test]
fn a_manager_with_a_damaged_log_says_so_and_can_join_again() {
    let lab = Lab::up(3, 0, &["busybox"]);
    let first = leader(&lab, 1).unwrap();
    let damaged = (1..=3).find(|node| *node != first).unwrap();
    let name = lab.docker(damaged, &["info", "--format", "{{.Name}}"]).ok();
    let log = lab.folder(damaged).join("data/swarm/log/log.redb");
    let before = std::fs::read(&log).unwrap();
    let create = ["service", "create", "--detach", "--name", "web", "busybox", "sleep", "1000"];
    lab.docker(damaged, &create).ok();
    lab.until_replicas(damaged, "web", "1/1", SOON);
    lab.run(&["stop", &damaged.to_string()]).ok();
    damage(&log, &before);

    lab.run(&["start", &damaged.to_string()]).ok();
    lab.docker(damaged, &["service", "ls"]).fails(1, "the log is damaged");
    let error =
        lab.docker(damaged, &["info", "--format", "{{.Swarm.LocalNodeState}}: {{.Swarm.Error}}"]).ok();
    assert!(error.starts_with("error: ") && error.contains("the log is damaged"), "{error}");
    lab.docker(first, &["service", "scale", "--detach", "web=2"]).ok();

    lab.docker(damaged, &["swarm", "leave", "--force"]).ok();
    let token = lab.token(first, "manager");
    let status = ["node", "inspect", "--format", "{{.Status.State}}", &name];
    lab.until(first, "it is missed", SOON, &status, |state| state == "down");
    lab.docker(first, &["node", "demote", &name]).ok();
    lab.until(first, "it can be removed", SOON, &["node", "rm", &name], |_| true);
    let others = format!("{}:2377", lab.address(first));
    let own = lab.address(damaged).to_string();
    lab.docker(damaged, &["swarm", "join", "--token", &token, "--advertise-addr", &own, &others]).ok();
    lab.until(damaged, "three managers again", SOON, &["info", "--format", "{{.Swarm.Managers}}"], |count| {
        count == "3"
    });
    lab.until_replicas(damaged, "web", "2/2", SOON);
}

/// Inverts what changed in a file since it was as `before`, except for its first page, which is the store's own.
fn damage(file: &std::path::Path, before: &[u8]) {
    const PAGE: usize = 4096;
    let mut content = std::fs::read(file).unwrap();
    let mut changed = 0;
    for (number, page) in content.chunks_mut(PAGE).enumerate().skip(1) {
        if before.get(number * PAGE..number * PAGE + page.len()) != Some(&*page) {
            page.iter_mut().for_each(|byte| *byte = !*byte);
            changed += 1;
        }
    }
    assert!(changed > 0, "the log was written to");
    std::fs::write(file, content).unwrap();
}
