//! Tables before tasks: who is waited for, and for how long.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::service::ServiceMode;
use skep_types::{NodeId, ServiceId, TaskState};

use super::scene::{Scene, port, spec};
use crate::{Event, Force, Request};

/// A published service with a task on each node, and all tables in force.
fn served(nodes: u64) -> (Scene, ServiceId) {
    let mut scene = Scene::of(nodes);
    let mut web = spec("web", nodes);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.work();
    scene.acknowledge(1..=nodes);
    scene.story();
    (scene, web)
}

fn scale(scene: &mut Scene, service: ServiceId, replicas: u64) {
    scene.update(service, |spec| spec.mode = ServiceMode::Replicated { replicas });
}

fn says(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scene.story());
}

fn silent(scene: &mut Scene) {
    assert_eq!(scene.story(), "\n");
}

#[test]
fn a_task_is_told_to_end_once_every_node_sends_it_no_connections() {
    let (mut scene, web) = served(3);
    let before = scene.objects().applied();
    scale(&mut scene, web, 2);
    says(
        &mut scene,
        expect![[r#"
          service web x2 image:1 8080:80 10.0.0.5
        commit
        reply: done
          task web.3#1 wanted remove
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7]]
        send n2: [endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7]]
        send n3: [endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7]]
    "#]],
    );
    scene.acknowledge([1, 3]);
    scene.tell(Event::Acknowledged { node: NodeId(2), number: before });
    silent(&mut scene);
    scene.acknowledge([2]);
    says(
        &mut scene,
        expect![[r#"
        send n3: [web.3#1 remove]
    "#]],
    );
    // Nobody is told twice.
    scene.acknowledge([1, 2, 3]);
    scene.pass(Duration::from_secs(10));
    silent(&mut scene);
}

#[test]
fn a_node_that_does_not_acknowledge_is_waited_for_two_seconds() {
    let (mut scene, web) = served(2);
    scale(&mut scene, web, 1);
    scene.acknowledge([1]);
    scene.story();
    scene.pass(Duration::from_millis(1999));
    silent(&mut scene);
    scene.pass(Duration::from_millis(1));
    says(
        &mut scene,
        expect![[r#"
        send n2: [web.2#1 remove]
    "#]],
    );
}

#[test]
fn a_node_that_is_lost_is_not_waited_for() {
    let (mut scene, web) = served(3);
    scale(&mut scene, web, 1);
    scene.acknowledge([1, 3]);
    scene.story();
    scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    says(
        &mut scene,
        expect![[r#"
        send n3: [web.3#1 remove]
          node n2 Down Active 10.0.0.3, heartbeat failure
        commit
    "#]],
    );
}

#[test]
fn a_task_in_no_table_is_told_to_end_at_once() {
    let mut scene = Scene::of(2);
    let web = scene.create(spec("web", 2));
    scene.work();
    scene.story();
    scale(&mut scene, web, 1);
    says(
        &mut scene,
        expect![[r#"
          service web x1 image:1
        commit
        reply: done
          task web.2#1 wanted remove
        commit
        send n2: [web.2#1 remove]
    "#]],
    );
}

#[test]
fn a_task_that_never_ran_is_told_to_end_at_once() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 2);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.story();
    scale(&mut scene, web, 1);
    says(
        &mut scene,
        expect![[r#"
          service web x1 image:1 8080:80 10.0.0.4
        commit
        reply: done
          task web.2#1 wanted remove
        commit
        send n2: [web.2#1 remove]
    "#]],
    );
}

#[test]
fn tasks_of_a_removed_service_are_told_to_end_once_its_ports_are_closed_everywhere() {
    let (mut scene, web) = served(2);
    scene.ask(Request::RemoveService(web)).unwrap();
    scene.acknowledge([1]);
    says(
        &mut scene,
        expect![[r#"
          remove service web
        commit
        reply: done
        send n1: [-endpoint web]
        send n2: [-endpoint web]
          task web.1#1 wanted remove
          task web.2#1 wanted remove
        commit
    "#]],
    );
    scene.acknowledge([2]);
    says(
        &mut scene,
        expect![[r#"
        send n1: [web.1#1 remove]
        send n2: [web.2#1 remove]
    "#]],
    );
}

#[test]
fn whoever_opens_a_session_meanwhile_hears_of_no_end() {
    let (mut scene, web) = served(2);
    scale(&mut scene, web, 1);
    scene.story();
    scene.ready(2);
    says(
        &mut scene,
        expect![[r#"
        send n2: all[ingress, endpoint web 8080:80 -> [10.0.0.5], web.2#1 running]
    "#]],
    );
    scene.acknowledge([1, 2]);
    says(
        &mut scene,
        expect![[r#"
        send n2: [web.2#1 remove]
    "#]],
    );
}

#[test]
fn a_task_that_ends_by_itself_is_told_at_once() {
    let (mut scene, web) = served(2);
    let task = scene.task(web, 2).id;
    scale(&mut scene, web, 1);
    scene.story();
    scene.report(&[task], TaskState::Failed, "task: non-zero exit (1)");
    says(
        &mut scene,
        expect![[r#"
          task web.2#1 is failed, failed (task: non-zero exit (1))
        commit
        send n2: [web.2#1 remove]
          forget task web.2#1
        commit
        send n2: [-web.2#1]
    "#]],
    );
}

#[test]
fn a_new_leader_waits_once_for_all_nodes_that_may_be_there() {
    let (mut scene, web) = served(3);
    scale(&mut scene, web, 2);
    scene.story();
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    scene.story();
    scene.ready(2);
    scene.ready(3);
    scene.acknowledge([2, 3]);
    says(
        &mut scene,
        expect![[r#"
        send n2: all[ingress, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7], web.2#1 running]
          node n2 Ready Active 10.0.0.3
        commit
        send n3: all[ingress, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7], web.3#1 running]
          node n3 Ready Active 10.0.0.4
        commit
    "#]],
    );
    scene.ready(1);
    scene.acknowledge([1]);
    says(
        &mut scene,
        expect![[r#"
        send n1: all[ingress, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7], web.1#1 running]
          node n1 Ready Active 10.0.0.2
        commit
        send n3: [web.3#1 remove]
    "#]],
    );
}

#[test]
fn a_new_leader_waits_for_nodes_that_it_has_not_heard_of() {
    let (mut scene, web) = served(3);
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    scene.ready(2);
    scene.ready(3);
    scene.acknowledge([2, 3]);
    scene.story();
    scale(&mut scene, web, 2);
    scene.acknowledge([2, 3]);
    scene.story();
    scene.ready(1);
    scene.story();
    scene.acknowledge([1]);
    says(
        &mut scene,
        expect![[r#"
        send n3: [web.3#1 remove]
    "#]],
    );
}

#[test]
fn a_node_that_is_removed_by_force_ends_its_tasks_at_once() {
    let (mut scene, _) = served(2);
    scene.ask(Request::RemoveNode { id: NodeId(2), force: Force::Yes }).unwrap();
    says(
        &mut scene,
        expect![[r#"
          remove node n2
        commit
        reply: done
        send n2: all[]
          task web.2#1 is orphaned, Task belonged to a node that has been deleted
          task web.2#1 wanted shutdown
          task web.2#2 (Restart) on n1 10.0.0.7, wanted running: assigned, scheduler assigned task to node
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.5], web.2#2 running]
    "#]],
    );
}
