//! Where tasks go, and why: with the stock client, and with `skep why` and `skep service`.

use skep_conformance::Lab;

use crate::SOON;

fn host(lab: &Lab, node: u16) -> String {
    lab.docker(node, &["info", "--format", "{{.Name}}"]).ok()
}

/// The nodes of a service's running tasks, sorted.
fn nodes_of(lab: &Lab, service: &str) -> Vec<String> {
    let format = ["service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}}", service];
    let mut nodes: Vec<String> =
        lab.docker(1, &format).ok().lines().filter(|node| !node.is_empty()).map(str::to_owned).collect();
    nodes.sort();
    nodes
}

#[test]
fn tasks_are_spread_bounded_given_resources_and_explained() {
    let flags = [
        "--daemon-flag=--node-generic-resource=gpu=uuid1",
        "--daemon-flag=--node-generic-resource=gpu=uuid2",
    ];
    let lab = Lab::with_flags(1, 2, &["busybox"], &flags);
    let hosts: Vec<String> = lab.nodes().map(|node| host(&lab, node)).collect();
    for (host, rack) in hosts.iter().zip(["rack=a", "rack=b", "rack=b"]) {
        lab.docker(1, &["node", "update", "--label-add", rack, host]).ok();
    }
    let shown = lab
        .docker(
            1,
            &["node", "inspect", "self", "--format", "{{json .Description.Resources.GenericResources}}"],
        )
        .ok();
    assert!(shown.contains(r#""Kind":"gpu","Value":"uuid1""#), "{shown}");

    let create = ["service", "create", "--detach", "--replicas", "4", "--name"];
    let sleep = ["busybox", "sleep", "1000"];
    lab.docker(
        1,
        &[&create[..], &["spread", "--placement-pref", "spread=node.labels.rack"], &sleep].concat(),
    )
    .ok();
    lab.until_replicas(1, "spread", "4/4", SOON);
    let on_first = nodes_of(&lab, "spread").iter().filter(|node| **node == hosts[0]).count();
    assert_eq!(on_first, 2, "half of the tasks are in each rack");

    lab.docker(1, &[&create[..], &["bounded", "--replicas-max-per-node", "1"], &sleep].concat()).ok();
    lab.until_replicas(1, "bounded", "3/4 (max 1 per node)", SOON);
    let told = lab.docker(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "bounded"]).ok();
    assert!(told.contains("no suitable node (max replicas per node limit exceed)"), "{told}");
    let why = lab.skep(1, &["why", "bounded"]).ok();
    assert!(why.contains("3 of 4 tasks run") && why.contains("1 have no node"), "{why}");
    lab.skep(1, &["service", "wait", "--timeout", "1", "bounded"])
        .fails(1, "has not converged: 3 of 4 tasks run");

    lab.docker(1, &[&create[..], &["gpus", "--generic-resource", "gpu=2"], &sleep].concat()).ok();
    lab.until_replicas(1, "gpus", "3/4", SOON);
    let id = lab.docker(1, &["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=gpus"]).ok();
    let env = lab.docker(1, &["exec", id.trim(), "sh", "-c", "echo $DOCKER_RESOURCE_GPU"]).ok();
    assert_eq!(env.trim(), "uuid1,uuid2");
    let told = lab.docker(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "gpus"]).ok();
    assert!(told.contains("no suitable node (insufficient resources on 3 nodes)"), "{told}");
}

#[test]
fn a_node_that_comes_back_gets_its_share_when_it_is_asked_for() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let second = host(&lab, 2);
    lab.docker(1, &["node", "update", "--availability", "drain", &second]).ok();
    let create =
        ["service", "create", "--detach", "--replicas", "4", "--name", "web", "busybox", "sleep", "1000"];
    lab.docker(1, &create).ok();
    lab.skep(1, &["service", "wait", "web"]).ok();
    lab.docker(1, &["node", "update", "--availability", "active", &second]).ok();
    assert!(!nodes_of(&lab, "web").contains(&second), "nothing moves by itself");
    lab.skep(1, &["service", "rebalance", "web"]).ok();
    lab.skep(1, &["service", "wait", "web"]).ok();
    assert_eq!(nodes_of(&lab, "web").iter().filter(|node| **node == second).count(), 2);
    lab.docker(1, &["service", "update", "--detach", "--image", "missing:1", "web"]).ok();
    lab.skep(1, &["service", "wait", "web"])
        .fails(1, "update paused due to failure or early termination of task");
    lab.skep(1, &["why", "nothing"]).fails(1, "no task, service or node is called nothing");
}
