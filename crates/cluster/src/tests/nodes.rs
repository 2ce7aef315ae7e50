//! Nodes that come, go and are full; leaders that change.

use std::time::Duration;

use expect_test::expect;
use skep_types::network::NetworkSpec;
use skep_types::node::{Availability, NodeRole};
use skep_types::service::NetworkAttachment;
use skep_types::{NodeId, TaskState};

use super::scene::{Scene, node, port, spec, task_spec};
use crate::{Answer, Cluster, Event, Force, Objects, RefusalKind, Request, why_node, why_task};

/// How long a node is down before its tasks are orphaned.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_drained_node_gives_its_tasks_to_another_which_waits_for_them_to_stop() {
    let mut scene = Scene::of(2);
    let web = scene.create(spec("web", 1));
    scene.work();
    scene.story();
    let number = scene.task(web, 1).node.unwrap().0 as u64;
    scene.change_node(number, |spec| spec.availability = Availability::Drain).unwrap();
    expect![[r#"
          node n1 Ready Drain 10.0.0.2
        commit
        reply: done
          task web.1#1 wanted shutdown
          task web.1#2 (Restart) on n2, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#1 shutdown]
        send n2: [web.1#2 ready]
    "#]]
    .assert_eq(&scene.story());
    scene.work();
    expect![[r#"
          task web.1#2 is ready, ready
        commit
          task web.1#1 is shutdown, shutdown
        commit
          task web.1#2 wanted running
        commit
        send n2: [web.1#2 running]
          task web.1#2 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_lost_node_s_tasks_run_elsewhere_at_once_and_stop_when_it_comes_back() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 1);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.work();
    scene.story();
    let lost = scene.task(web, 1).node.unwrap();
    scene.tell(Event::NodeLost { node: lost, reason: "heartbeat failure".to_owned() });
    expect![[r#"
          node n1 Down Active 10.0.0.2, heartbeat failure
        commit
          task web.1#1 wanted shutdown
          task web.1#2 (Restart) on n2 10.0.0.6, wanted running: assigned, scheduler assigned task to node
        commit
        send n2: [endpoint web 8080:80 -> [], web.1#2 running]
    "#]]
    .assert_eq(&scene.story());
    scene.ready(lost.0 as u64);
    expect![[r#"
        send n1: all[ingress, endpoint web 8080:80 -> [], web.1#1 shutdown]
          node n1 Ready Active 10.0.0.2
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_pending_task_says_why_and_starts_when_it_can() {
    let mut scene = Scene::of(3);
    scene.change_node(1, |spec| spec.availability = Availability::Drain).unwrap();
    scene.change_node(2, |spec| spec.availability = Availability::Pause).unwrap();
    scene.story();
    let mut web = spec("web", 3);
    task_spec(&mut web, |task| task.reservations.nano_cpus = 2_000_000_000);
    scene.create(web);
    expect![[r#"
          service web x3 image:1
        commit
        reply: done
          task web.1#1 (Scale) on n3, wanted running: assigned, scheduler assigned task to node
          task web.2#1 (Scale) on n3, wanted running: assigned, scheduler assigned task to node
          task web.3#1 (Scale) on no node, wanted running: pending, pending task scheduling (no suitable node (2 nodes not available for new tasks; insufficient resources on 1 node))
        commit
        send n3: [web.2#1 running, web.1#1 running]
    "#]].assert_eq(&scene.story());
    scene.change_node(1, |spec| spec.availability = Availability::Active).unwrap();
    expect![[r#"
          node n1 Ready Active 10.0.0.2
        commit
        reply: done
          task web.3#1 to n1: assigned, scheduler assigned task to node
        commit
        send n1: [web.3#1 running]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_cluster_of_one_drained_node_says_so() {
    let mut scene = Scene::of(1);
    scene.change_node(1, |spec| spec.availability = Availability::Drain).unwrap();
    let web = scene.create(spec("web", 1));
    let status = &scene.task(web, 1).status;
    assert_eq!(status.error, "no suitable node (1 node not available for new tasks)");
    assert_eq!((status.state, status.message.as_str()), (TaskState::Pending, "pending task scheduling"));
}

#[test]
fn tasks_spread_by_service_then_by_load() {
    let mut scene = Scene::of(3);
    let one = scene.create(spec("one", 1));
    let two = scene.create(spec("two", 2));
    let on = |scene: &Scene, service, slot| scene.task(service, slot).node.unwrap();
    let taken = on(&scene, one, 1);
    assert!((1..=2).all(|slot| on(&scene, two, slot) != taken));
    let six = scene.create(spec("six", 6));
    for number in 1..=3 {
        let here = scene.objects().tasks_on(NodeId(number)).filter(|task| task.service == six);
        assert_eq!(here.count(), 2);
    }
}

#[test]
fn the_last_manager_stays_one() {
    let mut scene = Scene::of(2);
    let refusal = scene.change_node(1, |spec| spec.role = NodeRole::Worker).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Precondition);
    assert_eq!(refusal.message, "attempting to demote the last manager of the swarm");
    scene.change_node(2, |spec| spec.role = NodeRole::Manager).unwrap();
    scene.change_node(1, |spec| spec.role = NodeRole::Worker).unwrap();
}

#[test]
fn a_removed_node_s_tasks_are_orphaned_and_replaced() {
    let mut scene = Scene::of(2);
    let web = scene.create(spec("web", 2));
    scene.work();
    let two = NodeId(2);
    let refusal = scene.ask(Request::RemoveNode { id: two, force: Force::No }).unwrap_err();
    assert_eq!(refusal.message, format!("node {two} is not down and can't be removed"));
    scene.story();
    scene.ask(Request::RemoveNode { id: two, force: Force::Yes }).unwrap();
    expect![[r#"
          remove node n2
        commit
        reply: done
        send n2: all[]
          task web.2#1 is orphaned, Task belonged to a node that has been deleted
          task web.2#1 wanted shutdown
          task web.2#2 (Restart) on n1, wanted running: assigned, scheduler assigned task to node
        commit
        send n1: [web.2#2 running]
    "#]]
    .assert_eq(&scene.story());
    assert!((1..=2).all(|slot| scene.task(web, slot).node == Some(NodeId(1))));
}

#[test]
fn tasks_of_a_node_that_is_down_for_a_day_are_orphaned_and_free_what_they_hold() {
    let mut scene = Scene::of(2);
    let back = NetworkSpec { name: "back".to_owned(), ..NetworkSpec::default() };
    let Ok(Answer::Network(back)) = scene.ask(Request::CreateNetwork(Box::new(back))) else {
        panic!("the network was not created");
    };
    let mut web = spec("web", 2);
    task_spec(&mut web, |task| {
        task.networks = vec![NetworkAttachment { network: back, aliases: Vec::new() }];
        task.reservations.nano_cpus = 1_000_000_000;
    });
    let web = scene.create(web);
    scene.work();
    let (lost, orphan) = (NodeId(2), scene.objects().tasks_on(NodeId(2)).next().unwrap().clone());
    scene.tell(Event::NodeLost { node: lost, reason: "heartbeat failure".to_owned() });
    // It may still run there: nobody else gets its address.
    scene.pass(DAY - Duration::from_secs(60));
    assert_eq!(scene.objects().task(orphan.id).unwrap().status.state, TaskState::Running);
    let held =
        |scene: &Scene| scene.objects().addresses_of(back).any(|it| it == orphan.attachments[0].address);
    assert!(held(&scene));
    expect![[r#"
        n2 does not answer: heartbeat failure; its tasks are replaced elsewhere
        0 tasks; reserved: 1000 of 4000 thousandths of a CPU, 0 of 8192 MiB of memory
        it is down for 1439 min; in 1 min its tasks are orphaned, and what they hold is free
          1 of web"#]]
    .assert_eq(&why_node(scene.objects(), lost, scene.now).join("\n"));
    scene.story();
    scene.pass(Duration::from_secs(61));
    expect![[r#"
          task web.2#1 is orphaned, Task belonged to a node that was down for 24 hours
        commit
    "#]]
    .assert_eq(&scene.story());
    assert!(!held(&scene));
    let lines = why_task(scene.objects(), orphan.id, scene.now).join("\n");
    assert!(lines.contains("last: Task belonged to a node that was down for 24 hours"), "{lines}");
    // It comes back, and its agent tells what it ran all the time.
    scene.ready(2);
    scene.report(&[orphan.id], TaskState::Running, "");
    scene.report(&[orphan.id], TaskState::Shutdown, "");
    expect![[r#"
        send n2: all[ingress, web.2#1 shutdown]
          node n2 Ready Active 10.0.0.3
        commit
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(scene.objects().tasks_of(web).filter(|task| task.desired == TaskState::Running).count(), 2);
}

#[test]
fn a_new_leader_goes_on_counting_the_hours_that_a_node_is_down() {
    let mut scene = Scene::of(2);
    let web = scene.create(spec("web", 2));
    scene.work();
    let orphan = scene.objects().tasks_on(NodeId(2)).next().unwrap().id;
    scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    scene.pass(DAY / 2);
    let lead = |scene: &mut Scene| {
        let restored = Objects::restore(scene.objects().snapshot()).unwrap();
        scene.cluster = Cluster::new(restored);
        scene.tell(Event::Started);
        scene.ready(1);
    };
    let state = |scene: &Scene| scene.objects().task(orphan).unwrap().status.state;
    lead(&mut scene);
    // What the user changes of the node makes no difference.
    scene.change_node(2, |spec| spec.name = "two".to_owned()).unwrap();
    scene.pass(DAY / 2 - Duration::from_secs(1));
    assert_eq!(state(&scene), TaskState::Running);
    // A clock that is far behind delays it by a day from then on, and no longer.
    scene.now = scene.now - DAY;
    lead(&mut scene);
    scene.pass(DAY - Duration::from_secs(1));
    assert_eq!(state(&scene), TaskState::Running);
    // Also where it is set back under the leader.
    scene.tell(Event::Tick);
    scene.now = scene.now - DAY / 2;
    scene.tell(Event::Tick);
    scene.pass(Duration::from_secs(2));
    assert_eq!(state(&scene), TaskState::Orphaned);
    assert_eq!(scene.objects().tasks_of(web).filter(|task| task.desired == TaskState::Running).count(), 2);
}

#[test]
fn a_node_that_comes_back_within_a_day_has_its_whole_day_again() {
    let mut scene = Scene::of(2);
    scene.create(spec("web", 2));
    scene.work();
    let orphan = scene.objects().tasks_on(NodeId(2)).next().unwrap().id;
    let lose = |scene: &mut Scene| {
        scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    };
    lose(&mut scene);
    scene.pass(DAY - Duration::from_secs(1));
    scene.ready(2);
    assert_eq!(scene.objects().node(NodeId(2)).unwrap().down_since, None);
    lose(&mut scene);
    scene.pass(DAY - Duration::from_secs(1));
    assert_eq!(scene.objects().task(orphan).unwrap().status.state, TaskState::Running);
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.objects().task(orphan).unwrap().status.state, TaskState::Orphaned);
}

#[test]
fn a_new_leader_forgets_no_timer_and_waits_for_its_nodes() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    let task = scene.task(web, 1).id;
    scene.report(&[task], TaskState::Failed, "");
    scene.now = scene.now + Duration::from_secs(2);
    let restored = Objects::restore(scene.objects().snapshot()).unwrap();
    assert_eq!(&restored, scene.objects());
    scene.cluster = Cluster::new(restored);
    scene.story();
    scene.tell(Event::Started);
    assert_eq!(scene.wake_at, Some(scene.now + Duration::from_secs(3)));
    expect![[r#"
          node n1 Unknown Active 10.0.0.2, Node moved to "unknown" state due to leadership change in cluster
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.ready(1);
    expect![[r#"
        send n1: all[ingress, web.1#2 ready, web.1#1 shutdown]
          node n1 Ready Active 10.0.0.2
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.pass(Duration::from_secs(3));
    assert_eq!(scene.task(web, 1).desired, TaskState::Running);
}

#[test]
fn a_node_that_stays_silent_under_a_new_leader_is_down() {
    let mut scene = Scene::of(2);
    scene.cluster = Cluster::new(scene.objects().clone());
    scene.tell(Event::Started);
    scene.ready(1);
    scene.story();
    scene.pass(Duration::from_secs(10));
    expect![[r#"
          node n2 Down Active 10.0.0.3, heartbeat failure for node in "unknown" state
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_node_that_is_not_of_the_cluster_is_told_to_hold_nothing() {
    let mut scene = Scene::of(1);
    scene.create(spec("web", 1));
    scene.story();
    let stranger = node(9);
    let description = Box::new(stranger.description);
    scene.tell(Event::NodeReady {
        node: stranger.id,
        description,
        address: stranger.address,
        data_path: None,
    });
    expect![[r#"
        send n9: all[]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_deposed_leader_answers_what_is_open_and_decides_nothing() {
    let mut scene = Scene::of(1);
    let request = Request::CreateService(Box::new(spec("web", 1)));
    let asked = Event::Request(crate::RequestId(77), request.clone());
    let output = scene.cluster.step(asked, scene.now, &mut scene.ids);
    assert_eq!(output.propose.len(), 1);
    let output = scene.cluster.step(Event::Deposed, scene.now, &mut scene.ids);
    assert_eq!(output.replies[0].result.as_ref().unwrap_err().kind, RefusalKind::Unavailable);
    let later = Event::Request(crate::RequestId(78), request);
    let output = scene.cluster.step(later, scene.now, &mut scene.ids);
    assert_eq!(output.replies[0].result.as_ref().unwrap_err().kind, RefusalKind::Unavailable);
    assert_eq!(output.propose, []);
}
