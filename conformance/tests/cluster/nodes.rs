//! The nodes' commands.

use skep_conformance::{Lab, eventually};

use crate::{SOON, containers, leader};

fn host(lab: &Lab, node: u16) -> String {
    lab.docker(node, &["info", "--format", "{{.Name}}"]).ok()
}

#[test]
fn nodes_are_listed_inspected_and_labelled_from_any_manager() {
    let lab = Lab::up(3, 1, &[]);
    let format = "{{.ID}}|{{.Self}}|{{.Hostname}}|{{.Status}}|{{.Availability}}|{{.ManagerStatus}}";
    for manager in 1..=3 {
        let listed =
            lab.until(manager, "all are ready", SOON, &["node", "ls", "--format", format], |listed| {
                listed.lines().filter(|line| line.contains("|Ready|Active|")).count() == 4
            });
        let own = listed.lines().filter(|line| line.contains("|true|")).collect::<Vec<_>>();
        assert!(own.len() == 1 && own[0].contains(&host(&lab, manager)), "itself is marked: {listed}");
        let roles: Vec<&str> = listed.lines().filter_map(|line| line.rsplit('|').next()).collect();
        assert_eq!(roles.iter().filter(|role| **role == "Leader").count(), 1, "{listed}");
        assert_eq!(roles.iter().filter(|role| **role == "Reachable").count(), 2, "{listed}");
        assert_eq!(roles.iter().filter(|role| role.is_empty()).count(), 1, "{listed}");
    }
    let worker = host(&lab, 4);
    lab.docker(2, &["node", "update", "--label-add", "rack=7", &worker]).ok();
    let labels = lab.docker(3, &["node", "inspect", "--format", "{{.Spec.Labels}}", &worker]).ok();
    assert_eq!(labels, "map[rack:7]");
    let filtered = lab.docker(1, &["node", "ls", "--quiet", "--filter", "node.label=rack=7"]).ok();
    assert_eq!(filtered.lines().count(), 1, "{filtered}");
    let pretty = lab.docker(1, &["node", "inspect", "--pretty", "self"]).ok();
    for line in ["State:\t\t\tReady", "Availability:         \tActive", "Address:\t\t192.0.2.1"] {
        let (label, value) = line.split_once(':').unwrap();
        let found = pretty.lines().any(|shown| {
            shown.trim_start().starts_with(label) && shown.ends_with(value.trim_start_matches(['\t', ' ']))
        });
        assert!(found, "{line:?} in {pretty}");
    }
    lab.docker(4, &["node", "ls"]).fails(
        1,
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please \
         run this command on a manager node or promote the current node to a manager.",
    );
}

#[test]
fn drained_and_paused_nodes_take_no_tasks() {
    let lab = Lab::up(1, 2, &["busybox"]);
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "6", "busybox"];
    lab.docker(1, &[&create[..], &["sleep", "1000"]].concat()).ok();
    lab.until_replicas(1, "web", "6/6", SOON);
    let second = host(&lab, 2);
    lab.docker(1, &["node", "update", "--availability", "drain", &second]).ok();
    eventually("the drained node is empty", SOON, || match containers(&lab, 2).len() {
        0 => Ok(()),
        other => Err(format!("{other} run")),
    });
    lab.until_replicas(1, "web", "6/6", SOON);
    lab.docker(1, &["node", "update", "--availability", "active", &second]).ok();
    let third = host(&lab, 3);
    lab.docker(1, &["node", "update", "--availability", "pause", &third]).ok();
    let before = containers(&lab, 3);
    assert_eq!(before.len(), 3, "a paused node keeps its tasks");
    lab.docker(1, &["service", "scale", "--detach", "web=9"]).ok();
    lab.until_replicas(1, "web", "9/9", SOON);
    assert_eq!(containers(&lab, 3), before, "and takes no new ones");
    let own = lab.docker(1, &["node", "ps", "--filter", "desired-state=running", "--quiet"]).ok();
    assert_eq!(own.lines().count(), containers(&lab, 1).len(), "node ps without a name is this node's");
}

#[test]
fn nodes_are_promoted_demoted_and_removed() {
    let lab = Lab::up(1, 2, &["busybox"]);
    let names: Vec<String> = lab.nodes().map(|node| host(&lab, node)).collect();
    let promoted = lab.docker(1, &["node", "promote", &names[1], &names[2]]).ok();
    assert!(promoted.contains(&format!("Node {} promoted to a manager in the swarm.", names[1])));
    for manager in [2, 3] {
        lab.until(
            manager,
            "it is a manager",
            SOON,
            &["node", "ls", "--format", "{{.ManagerStatus}}"],
            |shown| shown.lines().filter(|role| ["Leader", "Reachable"].contains(role)).count() == 3,
        );
    }
    lab.docker(3, &["service", "create", "--detach", "--name", "web", "busybox", "sleep", "1000"]).ok();

    // The one that leads is demoted: another leads, and it is a worker.
    let first = leader(&lab, 2).unwrap();
    let other = (1..=3).find(|node| *node != first).unwrap();
    lab.docker(other, &["node", "demote", &names[usize::from(first) - 1]]).ok();
    lab.until(first, "it is a worker", SOON, &["info", "--format", "{{.Swarm.ControlAvailable}}"], |shown| {
        shown == "false"
    });
    lab.until(other, "two managers are left", SOON, &["info", "--format", "{{.Swarm.Managers}}"], |shown| {
        shown == "2"
    });
    lab.docker(other, &["service", "inspect", "web"]).ok();

    lab.docker(other, &["node", "rm", &names[usize::from(first) - 1]])
        .fails(1, "is not down and can't be removed");
    let manager = (1..=3).find(|node| *node != first && *node != other).unwrap();
    lab.docker(other, &["node", "rm", &names[usize::from(manager) - 1]]).fails(
        1,
        "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    );
    lab.docker(first, &["swarm", "leave"]).ok();
    let down = ["node", "ls", "--filter", "role=worker", "--format", "{{.Status}}"];
    lab.until(other, "it is down", SOON, &down, |shown| shown == "Down");
    lab.docker(other, &["node", "rm", &names[usize::from(first) - 1]]).ok();
    let left = lab.docker(other, &["node", "ls", "--quiet"]).ok();
    assert_eq!(left.lines().count(), 2, "{left}");
}
