//! Daemons that die, links that break, processes that stand still.

use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::{SOON, await_answer, containers, leader};

/// How often a record is damaged until it was one that counted.
const TRIES: usize = 5;

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

/// A manager is killed under writes, and the last record of its log goes bad. The store would go back to the record
/// before; the manager has promised more. It says so and which file it is, shows nothing, and can be put in order as
/// a node whose disk was replaced: the others go on meanwhile.
#[test]
fn a_manager_with_a_damaged_log_says_so_and_can_join_again() {
    let lab = Lab::up(3, 0, &["busybox"]);
    let first = leader(&lab, 1).unwrap();
    let damaged = (1..=3).find(|node| *node != first).unwrap();
    let name = lab.docker(damaged, &["info", "--format", "{{.Name}}"]).ok();
    let log = lab.folder(damaged).join("data/swarm/log/log.redb");
    let create = ["service", "create", "--detach", "--name", "web", "busybox", "sleep", "1000"];
    lab.docker(damaged, &create).ok();
    lab.until_replicas(damaged, "web", "1/1", SOON);
    // A record that was cut off before it was confirmed may go unnoticed: it is for the others to tell again.
    let told = (0..TRIES).any(|_| {
        kill_under_writes(&lab, first, damaged);
        damage_last_record(&log);
        lab.run(&["start", &damaged.to_string()]).ok();
        lab.docker(damaged, &["service", "ls"]).code != 0
    });
    assert!(told, "a confirmed record is missed");
    lab.docker(damaged, &["service", "ls"]).fails(1, "the log is damaged");
    let error =
        lab.docker(damaged, &["info", "--format", "{{.Swarm.LocalNodeState}}: {{.Swarm.Error}}"]).ok();
    assert!(error.starts_with("error: "), "{error}");
    for told in ["that were confirmed", log.to_str().unwrap(), "docker swarm leave --force"] {
        assert!(error.contains(told), "{told} is not in {error}");
    }
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

/// Kills a manager while another takes requests, in whichever write it is.
fn kill_under_writes(lab: &Lab, manager: u16, killed: u16) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for replicas in [2, 3, 1] {
                lab.docker(manager, &["service", "scale", "--detach", &format!("web={replicas}")]).ok();
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        lab.run(&["kill", &killed.to_string()]).ok();
    });
}

/// Damages what redb wrote last: where its newest transaction begins. Of two places for that the header's ninth byte
/// says which one counts, by its lowest bit; each ends with a checksum.
fn damage_last_record(file: &std::path::Path) {
    const WHICH: usize = 9;
    const PLACES: [std::ops::Range<usize>; 2] = [64..192, 192..320];
    let mut content = std::fs::read(file).unwrap();
    let newest = PLACES[usize::from(content[WHICH] & 1)].clone();
    content[newest.end - 16..newest.end].iter_mut().for_each(|byte| *byte = !*byte);
    std::fs::write(file, content).unwrap();
}
