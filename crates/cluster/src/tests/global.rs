//! Services with one task for each node. A node's slot is its number here: n2 has `web.2`.

use std::time::Duration;

use expect_test::expect;
use skep_types::node::Availability;
use skep_types::service::{RestartCondition, ServiceMode, ServiceSpec, UpdateState};
use skep_types::{NodeId, ServiceId, TaskState};

use super::scene::{Scene, node, port, spec, task_spec};
use crate::{Event, Force, Request};

fn global(name: &str) -> ServiceSpec {
    ServiceSpec { mode: ServiceMode::Global, ..spec(name, 0) }
}

/// The nodes on which the service has a wanted task.
fn nodes(scene: &Scene, service: ServiceId) -> Vec<u128> {
    let wanted = scene.objects().tasks_of(service).filter(|task| task.desired == TaskState::Running);
    wanted.map(|task| task.pinned.unwrap().0).collect()
}

fn avail(scene: &mut Scene, number: u64, availability: Availability) {
    scene.change_node(number, |spec| spec.availability = availability).unwrap();
}

#[test]
fn every_node_gets_one_task_and_a_node_that_comes_gets_its_own() {
    let mut scene = Scene::of(2);
    let mut web = global("web");
    web.ports = vec![port(80, 8080)];
    scene.create(web);
    scene.work();
    expect![[r#"
          service web global image:1 8080:80 10.0.0.4
        commit
        reply: done
        send n1: [endpoint web 8080:80 -> []]
        send n2: [endpoint web 8080:80 -> []]
          task web.1#1 (Scale) on n1 10.0.0.5, wanted running: assigned, scheduler confirmed task can run on preassigned node
          task web.2#1 (Scale) on n2 10.0.0.6, wanted running: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n1: [web.1#1 running]
        send n2: [web.2#1 running]
          task web.2#1 is running, running
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.6]]
        send n2: [endpoint web 8080:80 -> [10.0.0.6]]
          task web.1#1 is running, running
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.5, 10.0.0.6]]
        send n2: [endpoint web 8080:80 -> [10.0.0.5, 10.0.0.6]]
    "#]].assert_eq(&scene.story());
    scene.ask(Request::AddNode(Box::new(node(3)))).unwrap();
    scene.ready(3);
    expect![[r#"
          node n3 Ready Active 10.0.0.7
        commit
        reply: done
          task web.3#1 (Scale) on n3 10.0.0.8, wanted running: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n3: all[ingress, endpoint web 8080:80 -> [10.0.0.5, 10.0.0.6], web.3#1 running]
    "#]].assert_eq(&scene.story());
}

#[test]
fn a_drained_node_gives_up_its_task_and_gets_a_new_one_when_it_is_back() {
    let mut scene = Scene::of(2);
    scene.create(global("web"));
    scene.work();
    scene.story();
    avail(&mut scene, 2, Availability::Drain);
    scene.work();
    expect![[r#"
          node n2 Ready Drain 10.0.0.3
        commit
        reply: done
          task web.2#1 wanted shutdown
        commit
        send n2: [web.2#1 shutdown]
          task web.2#1 is shutdown, shutdown
        commit
    "#]]
    .assert_eq(&scene.story());
    avail(&mut scene, 2, Availability::Active);
    expect![[r#"
          node n2 Ready Active 10.0.0.3
        commit
        reply: done
          task web.2#2 (Scale) on n2, wanted running: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n2: [web.2#2 running]
    "#]].assert_eq(&scene.story());
}

#[test]
fn a_lost_node_has_no_task_elsewhere_and_a_new_one_when_it_is_back() {
    let mut scene = Scene::of(2);
    let web = scene.create(global("web"));
    scene.work();
    scene.story();
    scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    expect![[r#"
          node n2 Down Active 10.0.0.3, heartbeat failure
        commit
          task web.2#1 wanted shutdown
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.ready(2);
    scene.work();
    assert_eq!(nodes(&scene, web), [1, 2]);
    scene.story();
    scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    scene.ask(Request::RemoveNode { id: NodeId(2), force: Force::No }).unwrap();
    expect![[r#"
          node n2 Down Active 10.0.0.3, heartbeat failure
        commit
          task web.2#2 wanted shutdown
        commit
          remove node n2
        commit
        reply: done
        send n2: all[]
          task web.2#2 is orphaned, Task belonged to a node that has been deleted
          task web.2#1 wanted remove
          task web.2#2 wanted remove
        commit
          forget task web.2#1
          forget task web.2#2
        commit
    "#]]
    .assert_eq(&scene.story());
    assert!(scene.objects().tasks_of(web).all(|task| task.pinned == Some(NodeId(1))));
}

#[test]
fn labels_decide_where_it_is_and_a_paused_node_keeps_what_it_has() {
    let mut scene = Scene::of(3);
    let mut web = global("web");
    task_spec(&mut web, |task| {
        task.placement.constraints = vec!["node.labels.disk == ssd".parse().unwrap()];
    });
    let web = scene.create(web);
    assert_eq!(nodes(&scene, web), [0u128; 0]);
    for number in [1, 2] {
        let label = ("disk".to_owned(), "ssd".to_owned());
        scene.change_node(number, |spec| spec.labels.extend([label])).unwrap();
    }
    scene.work();
    assert_eq!(nodes(&scene, web), [1, 2]);
    scene.story();
    scene.change_node(1, |spec| spec.labels.clear()).unwrap();
    scene.work();
    expect![[r#"
          node n1 Ready Active 10.0.0.2
        commit
        reply: done
          task web.1#1 is running, task rejected by constraint enforcer (assigned node no longer meets constraints)
          task web.1#1 wanted shutdown
        commit
        send n1: [web.1#1 shutdown]
          task web.1#1 is shutdown, shutdown (assigned node no longer meets constraints)
        commit
    "#]].assert_eq(&scene.story());
    avail(&mut scene, 2, Availability::Pause);
    avail(&mut scene, 3, Availability::Pause);
    scene.change_node(3, |spec| spec.labels.extend([("disk".to_owned(), "ssd".to_owned())])).unwrap();
    assert_eq!(nodes(&scene, web), [2]);
    // What ends on a paused node is not started again there, until it takes tasks.
    let paused = scene.task(web, 2).id;
    scene.report(&[paused], TaskState::Failed, "task: non-zero exit (1)");
    assert_eq!(nodes(&scene, web), [0u128; 0]);
    avail(&mut scene, 2, Availability::Active);
    assert_eq!(nodes(&scene, web), [2]);
}

#[test]
fn a_service_that_no_longer_allows_a_node_leaves_it_without_an_update() {
    let mut scene = Scene::of(2);
    let web = scene.create(global("web"));
    scene.work();
    scene.story();
    scene.update(web, |spec| {
        task_spec(spec, |task| task.placement.constraints = vec!["node.role == manager".parse().unwrap()]);
    });
    scene.work();
    expect![[r#"
          service web global image:1
        commit
        reply: done
          task web.2#1 wanted shutdown
        commit
        send n2: [web.2#1 shutdown]
          task web.2#1 is shutdown, shutdown
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn an_update_goes_from_node_to_node() {
    let mut scene = Scene::of(3);
    let web = scene.create(global("web"));
    scene.work();
    avail(&mut scene, 3, Availability::Pause);
    scene.story();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    scene.work();
    expect![[r#"
          service web global image:2
        commit
        reply: done
          update web: start over 2
          task web.1#1 wanted shutdown
          task web.1#2 (Update) on n1, wanted ready: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n1: [web.1#2 ready, web.1#1 shutdown]
          task web.1#2 is ready, ready
        commit
          task web.1#1 is shutdown, shutdown
        commit
          task web.1#2 wanted running
        commit
        send n1: [web.1#2 running]
          task web.1#2 is running, running
        commit
          update web: web.1#2 ran
        commit
          task web.2#1 wanted shutdown
          task web.2#2 (Update) on n2, wanted ready: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n2: [web.2#2 ready, web.2#1 shutdown]
          task web.2#2 is ready, ready
        commit
          task web.2#1 is shutdown, shutdown
        commit
          task web.2#2 wanted running
        commit
        send n2: [web.2#2 running]
          task web.2#2 is running, running
        commit
          update web: web.2#2 ran
        commit
    "#]].assert_eq(&scene.story());
    scene.pass(Duration::from_secs(5));
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
    scene.story();
    // The paused node was left out; once it takes tasks, its own follows at once, and this is no update.
    avail(&mut scene, 3, Availability::Active);
    scene.work();
    expect![[r#"
          node n3 Ready Active 10.0.0.4
        commit
        reply: done
          task web.3#1 wanted shutdown
          task web.3#2 (Scale) on n3, wanted ready: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n3: [web.3#2 ready, web.3#1 shutdown]
          task web.3#2 is ready, ready
        commit
          task web.3#1 is shutdown, shutdown
        commit
          task web.3#2 wanted running
        commit
        send n3: [web.3#2 running]
          task web.3#2 is running, running
        commit
    "#]].assert_eq(&scene.story());
}

#[test]
fn what_does_not_fit_on_its_node_waits_for_it() {
    let mut scene = Scene::of(2);
    let big = scene.create({
        let mut big = spec("big", 1);
        task_spec(&mut big, |task| task.reservations.nano_cpus = 3_000_000_000);
        big
    });
    scene.work();
    scene.story();
    let mut web = global("web");
    task_spec(&mut web, |task| task.reservations.nano_cpus = 2_000_000_000);
    scene.create(web);
    scene.work();
    expect![[r#"
          service web global image:1
        commit
        reply: done
          task web.1#1 (Scale) on no node, wanted running: pending, pending task scheduling (insufficient resources on 1 node)
          task web.2#1 (Scale) on n2, wanted running: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n2: [web.2#1 running]
          task web.2#1 is running, running
        commit
    "#]].assert_eq(&scene.story());
    scene.ask(Request::RemoveService(big)).unwrap();
    scene.work();
    expect![[r#"
          remove service big
        commit
        reply: done
          task big.1#1 wanted remove
        commit
        send n1: [big.1#1 remove]
          task big.1#1 is shutdown, shutdown
        commit
          forget task big.1#1
          task web.1#1 to n1: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n1: [web.1#1 running, -big.1#1]
          task web.1#1 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_task_that_the_policy_leaves_stays_ended_also_when_its_node_comes_back() {
    let mut scene = Scene::of(1);
    let mut web = global("web");
    task_spec(&mut web, |task| task.restart.condition = RestartCondition::None);
    let web = scene.create(web);
    scene.work();
    let task = scene.task(web, 1).id;
    scene.report(&[task], TaskState::Complete, "");
    avail(&mut scene, 1, Availability::Drain);
    avail(&mut scene, 1, Availability::Active);
    assert_eq!(scene.objects().tasks_of(web).count(), 1);
    // Another specification is another matter.
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    scene.work();
    assert_eq!(nodes(&scene, web), [1]);
}

#[test]
fn a_service_of_one_task_a_node_is_not_scaled_and_keeps_its_mode() {
    let mut scene = Scene::of(1);
    let web = scene.create(global("web"));
    let service = scene.objects().service(web).unwrap();
    let (version, mut spec) = (service.meta.version, service.spec.clone());
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    let refusal = scene.ask(Request::UpdateService { id: web, version, spec: Box::new(spec) }).unwrap_err();
    assert_eq!(refusal.message, "service mode change is not allowed");
}

#[test]
fn a_task_that_waits_for_a_node_counts_as_what_its_node_makes_of_it() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 0);
    web.mode = ServiceMode::Global;
    // More than the nodes have: its tasks are given none.
    task_spec(&mut web, |task| task.reservations.nano_cpus = 1_000_000_000_000);
    let web = scene.create(web);
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    scene.change_node(2, |spec| spec.availability = Availability::Pause).unwrap();
    // Every commit is checked by the scene.
    scene.tell(Event::NodeLost { node: NodeId(1), reason: "heartbeat failure".to_owned() });
}
