//! Constraints: where tasks go, and what happens when nodes or services change.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::node::{Availability, NodeRole};
use skep_types::placement::{Constraint, Platform};
use skep_types::service::ServiceSpec;
use skep_types::{NodeId, ServiceId, TaskState};

use super::scene::{Scene, node, spec, task_spec};
use crate::{Event, Request};

fn constrain(spec: &mut ServiceSpec, constraints: &[&str]) {
    let constraints: Vec<Constraint> = constraints.iter().map(|text| text.parse().unwrap()).collect();
    task_spec(spec, |task| task.placement.constraints = constraints);
}

fn label(scene: &mut Scene, number: u64, value: &str) {
    let label = ("store".to_owned(), value.to_owned());
    scene.change_node(number, |spec| spec.labels = [label].into()).unwrap();
}

fn nodes(scene: &Scene, service: ServiceId) -> Vec<u128> {
    let wanted = scene.objects().tasks_of(service).filter(|task| task.desired <= TaskState::Running);
    wanted.filter_map(|task| task.node).map(|node| node.0).collect()
}

fn check(constraints: &[&str], expected: Expect) {
    let mut scene = Scene::of(3);
    label(&mut scene, 2, "ssd");
    let mut web = spec("web", 2);
    constrain(&mut web, constraints);
    let web = scene.create(web);
    let task = scene.task(web, 2);
    expected.assert_eq(&format!("{:?} {}", nodes(&scene, web), task.status.error));
}

#[test]
fn tasks_go_where_every_constraint_holds() {
    check(&["node.labels.store==SSD"], expect!["[2, 2] "]);
    check(&["node.labels.store!=ssd", "node.role==worker"], expect!["[3, 3] "]);
    check(&["node.hostname!=n2"], expect!["[1, 3] "]);
    check(&["node.role==manager"], expect!["[1, 1] "]);
    check(
        &["node.role==manager", "node.labels.store==ssd"],
        expect!["[] no suitable node (scheduling constraints not satisfied on 3 nodes)"],
    );
}

#[test]
fn reasons_are_counted_and_the_most_frequent_comes_first() {
    let mut scene = Scene::of(5);
    scene.change_node(1, |spec| spec.availability = Availability::Drain).unwrap();
    for number in [2, 3] {
        label(&mut scene, number, "ssd");
    }
    let mut web = spec("web", 3);
    constrain(&mut web, &["node.labels.store==ssd"]);
    task_spec(&mut web, |task| {
        task.reservations.nano_cpus = 3_000_000_000;
    });
    let web = scene.create(web);
    expect!["no suitable node (insufficient resources on 2 nodes; scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"].assert_eq(&scene.task(web, 3).status.error);
    // Labels that come let it start.
    label(&mut scene, 4, "ssd");
    assert_eq!(nodes(&scene, web), [2, 3, 4]);
}

#[test]
fn a_platform_that_no_node_has_is_said() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 1);
    let platform = Platform { architecture: "arm64".to_owned(), os: String::new() };
    task_spec(&mut web, |task| task.placement.platforms = vec![platform]);
    let web = scene.create(web);
    expect!["no suitable node (unsupported platform on 1 node)"].assert_eq(&scene.task(web, 1).status.error);
    let description =
        skep_types::node::NodeDescription { architecture: "aarch64".to_owned(), ..node(1).description };
    let (node, address) = (NodeId(1), node(1).address);
    scene.tell(Event::NodeReady { node, description: Box::new(description), address, data_path: None });
    assert_eq!(nodes(&scene, web), [1]);
}

#[test]
fn a_task_goes_elsewhere_when_its_node_changes_and_keeps_what_it_has_until_it_ended() {
    let mut scene = Scene::of(2);
    for number in 1..=2 {
        label(&mut scene, number, "ssd");
    }
    let mut web = spec("web", 1);
    constrain(&mut web, &["node.labels.store==ssd"]);
    task_spec(&mut web, |task| task.reservations.memory_bytes = 8 << 20);
    let web = scene.create(web);
    scene.work();
    scene.story();
    label(&mut scene, 1, "disk");
    expect![[r#"
          node n1 Ready Active 10.0.0.2
        commit
        reply: done
          task web.1#1 is running, task rejected by constraint enforcer (assigned node no longer meets constraints)
          task web.1#1 wanted shutdown
          task web.1#2 (Restart) on n2, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#1 shutdown]
        send n2: [web.1#2 ready]
    "#]].assert_eq(&scene.story());
    assert_eq!(scene.objects().index().loads[&NodeId(1)].memory_bytes, 8 << 20);
    scene.work();
    scene.story();
    assert_eq!((nodes(&scene, web), scene.task(web, 1).status.state), (vec![2], TaskState::Running));
    let former = scene.objects().tasks_of(web).next().unwrap();
    assert_eq!(former.status.state, TaskState::Shutdown);
    assert_eq!(former.status.error, "assigned node no longer meets constraints");
}

#[test]
fn a_paused_node_keeps_its_tasks_whatever_becomes_of_its_labels() {
    let mut scene = Scene::of(2);
    label(&mut scene, 1, "ssd");
    let mut web = spec("web", 1);
    constrain(&mut web, &["node.labels.store==ssd"]);
    let web = scene.create(web);
    scene.work();
    scene.change_node(1, |spec| spec.availability = Availability::Pause).unwrap();
    label(&mut scene, 1, "disk");
    assert_eq!(scene.task(web, 1).status.state, TaskState::Running);
}

#[test]
fn a_demoted_manager_keeps_managers_tasks_until_it_gave_up_its_seat() {
    let mut scene = Scene::of(2);
    scene.change_node(2, |spec| spec.role = NodeRole::Manager).unwrap();
    for number in [1, 2] {
        let seat = Some(skep_types::node::Member { raft: number, address: String::new() });
        scene.ask(Request::SetSeat { node: NodeId(u128::from(number)), seat }).unwrap();
    }
    let mut web = spec("web", 2);
    constrain(&mut web, &["node.role==manager"]);
    let web = scene.create(web);
    scene.work();
    scene.change_node(2, |spec| spec.role = NodeRole::Worker).unwrap();
    assert_eq!(nodes(&scene, web), [1, 2]);
    scene.ask(Request::SetSeat { node: NodeId(2), seat: None }).unwrap();
    assert_eq!(nodes(&scene, web), [1, 1]);
}

#[test]
fn new_constraints_alone_renew_only_what_is_in_the_wrong_place() {
    let mut scene = Scene::of(2);
    label(&mut scene, 1, "ssd");
    let web = scene.create(spec("web", 2));
    scene.work();
    assert_eq!(nodes(&scene, web), [1, 2]);
    let kept = scene.task(web, 1).id;
    scene.story();
    scene.update(web, |spec| constrain(spec, &["node.labels.store==ssd"]));
    scene.work();
    expect![[r#"
          service web x2 image:1
        commit
        reply: done
          update web: start over 1
          task web.2#1 wanted shutdown
          task web.2#2 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.2#2 ready]
        send n2: [web.2#1 shutdown]
          task web.2#2 is ready, ready
        commit
          task web.2#1 is shutdown, shutdown
        commit
          task web.2#2 wanted running
        commit
        send n1: [web.2#2 running]
          task web.2#2 is running, running
        commit
          update web: web.2#2 ran
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.pass(Duration::from_secs(10));
    assert_eq!(scene.task(web, 1).id, kept);
    assert_eq!(nodes(&scene, web), [1, 1]);
    // The kept task's own specification does not speak of labels, its service's does.
    label(&mut scene, 2, "ssd");
    label(&mut scene, 1, "disk");
    for _ in 0..4 {
        scene.work();
        scene.pass(Duration::from_secs(5));
    }
    assert_eq!(nodes(&scene, web), [2, 2]);
}
