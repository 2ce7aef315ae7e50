//! Going back: by hand, and where an update fails.

use std::time::Duration;

use expect_test::expect;
use skep_types::assignment::StatusReport;
use skep_types::service::{FailureAction, ServiceMode, ServiceSpec, UpdateOrder, UpdateState};
use skep_types::{NodeId, ServiceId, TaskId, TaskState, TaskStatus, Version};

use super::scene::{Scene, port, spec, task_spec};
use crate::{Answer, Event, Refusal, RefusalKind, Request};

fn reverting(name: &str, replicas: u64) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.update.failure_action = FailureAction::Rollback;
    spec
}

fn image(scene: &mut Scene, service: ServiceId, image: &str) {
    scene.update(service, |spec| task_spec(spec, |task| task.container.image = image.to_owned()));
}

fn images(scene: &Scene, service: ServiceId, slots: u64) -> Vec<String> {
    (1..=slots).map(|slot| scene.task(service, slot).spec.container.image.clone()).collect()
}

fn status(scene: &Scene, service: ServiceId) -> (UpdateState, String) {
    let status = scene.objects().service(service).unwrap().update_status.clone().unwrap();
    (status.state, status.message)
}

fn roll_back(scene: &mut Scene, service: ServiceId) -> Result<Answer, Refusal> {
    let version = scene.objects().service(service).unwrap().meta.version;
    scene.ask(Request::RollBackService { id: service, version })
}

/// Works and waits until nothing more happens.
fn settle(scene: &mut Scene) {
    for _ in 0..8 {
        scene.work();
        scene.pass(Duration::from_secs(6));
    }
}

fn fail(scene: &mut Scene, service: ServiceId, slot: u64) -> TaskId {
    let task = scene.task(service, slot).id;
    scene.report(&[task], TaskState::Failed, "task: non-zero exit (1)");
    task
}

#[test]
fn by_hand_the_specification_before_comes_back() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    image(&mut scene, web, "image:2");
    settle(&mut scene);
    scene.story();
    roll_back(&mut scene, web).unwrap();
    scene.work();
    scene.pass(Duration::from_secs(5));
    expect![[r#"
          service web x1 image:1
        commit
        reply: done
          update web: start over 1
          task web.1#2 wanted shutdown
          task web.1#3 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#3 ready, web.1#2 shutdown]
          task web.1#3 is ready, ready
        commit
          task web.1#2 is shutdown, shutdown
        commit
          task web.1#3 wanted running
        commit
        send n1: [web.1#3 running]
          task web.1#3 is running, running
        commit
          update web: web.1#3 ran
        commit
          update web: web.1#3 proven or gone
        commit
          update web: RollbackCompleted: rollback completed
        commit
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(status(&scene, web), (UpdateState::RollbackCompleted, "rollback completed".to_owned()));
    let service = scene.objects().service(web).unwrap();
    assert!(service.update_status.as_ref().unwrap().completed_at.is_some());
    // To go back twice is to be where one was.
    assert_eq!(service.previous_spec.as_ref().unwrap().task.container.image, "image:2");
    roll_back(&mut scene, web).unwrap();
    assert_eq!(status(&scene, web), (UpdateState::RollbackStarted, "manually requested rollback".to_owned()));
    settle(&mut scene);
    assert_eq!(images(&scene, web, 1), ["image:2"]);
}

#[test]
fn what_cannot_be_gone_back_to_is_refused() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    let refusal = roll_back(&mut scene, web).unwrap_err();
    let message = format!("service {web} does not have a previous spec");
    assert_eq!(refusal, Refusal { kind: RefusalKind::Precondition, message });
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 2 });
    let stale = Request::RollBackService { id: web, version: Version(1) };
    let refusal = scene.ask(stale).unwrap_err();
    assert_eq!(
        (refusal.kind, refusal.message.as_str()),
        (RefusalKind::OutOfSequence, "update out of sequence")
    );
    let missing = Request::RollBackService { id: ServiceId(77), version: Version(1) };
    assert_eq!(scene.ask(missing).unwrap_err().kind, RefusalKind::NotFound);
    // A port that another took in the meantime.
    let shop = scene.create(ServiceSpec { ports: vec![port(80, 8080)], ..spec("shop", 1) });
    scene.update(shop, |spec| spec.ports.clear());
    scene.create(ServiceSpec { ports: vec![port(80, 8080)], ..spec("other", 1) });
    let refusal = roll_back(&mut scene, shop).unwrap_err();
    expect![
        "port '8080' is already in use by service 'other' (73bi7kv1hmj5jrkjgv26bbotx) as an ingress port"
    ]
    .assert_eq(&refusal.message);
    assert!(scene.objects().service(shop).unwrap().spec.ports.is_empty());
}

#[test]
fn what_makes_no_task_out_of_date_is_gone_back_on_at_once() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 3 });
    scene.work();
    scene.story();
    roll_back(&mut scene, web).unwrap();
    expect![[r#"
          service web x1 image:1
        commit
        reply: done
          task web.3#1 wanted remove
          task web.2#1 wanted remove
          update web: RollbackCompleted: rollback completed
        commit
        send n1: [web.3#1 remove, web.2#1 remove]
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
}

#[test]
fn an_update_that_fails_goes_back_by_itself() {
    let mut scene = Scene::of(1);
    let web = scene.create(reverting("web", 2));
    scene.work();
    image(&mut scene, web, "broken:1");
    scene.work();
    scene.story();
    fail(&mut scene, web, 1);
    expect![[r#"
          task web.1#2 is failed, failed (task: non-zero exit (1))
        commit
          update web: web.1#2 failed
          update web: given up for web.1#2
          task web.1#2 wanted shutdown
          task web.1#3 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#2 shutdown, web.1#3 ready]
          service web x2 image:1
        commit
          update web: start over 2
          task web.1#3 wanted shutdown
          task web.1#4 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#4 ready, web.1#3 shutdown]
    "#]]
    .assert_eq(&scene.story());
    scene.work();
    expect![[r#"
          task web.1#4 is ready, ready
        commit
          task web.1#3 is shutdown, shutdown
        commit
          task web.1#4 wanted running
        commit
        send n1: [web.1#4 running]
          task web.1#4 is running, running
        commit
          update web: web.1#4 ran
        commit
          task web.2#2 wanted shutdown
          task web.2#3 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.2#3 ready, web.2#2 shutdown]
          task web.2#3 is ready, ready
        commit
          task web.2#2 is shutdown, shutdown
        commit
          task web.2#3 wanted running
        commit
        send n1: [web.2#3 running]
          task web.2#3 is running, running
        commit
          update web: web.2#3 ran
        commit
    "#]]
    .assert_eq(&scene.story());
    let service = scene.objects().service(web).unwrap();
    let begun = service.update_status.as_ref().unwrap().started_at;
    // As SwarmKit: what failed cannot be gone back to.
    assert_eq!(service.previous_spec, None);
    settle(&mut scene);
    let service = scene.objects().service(web).unwrap();
    assert_eq!(service.update_status.as_ref().unwrap().started_at, begun);
    assert_eq!(status(&scene, web), (UpdateState::RollbackCompleted, "rollback completed".to_owned()));
    assert_eq!(images(&scene, web, 2), ["image:1", "image:1"]);
}

#[test]
fn a_start_first_task_that_never_is_healthy_leaves_the_one_before_it_running() {
    let mut scene = Scene::of(1);
    let mut web = reverting("web", 2);
    web.update.order = UpdateOrder::StartFirst;
    web.update.parallelism = 2;
    let web = scene.create(web);
    scene.work();
    let before = [scene.task(web, 1).id, scene.task(web, 2).id];
    image(&mut scene, web, "broken:1");
    scene.story();
    let new = scene.task(web, 1).id;
    scene.report(&[new], TaskState::Starting, "");
    scene.report(&[new], TaskState::Failed, "unhealthy container");
    scene.work();
    expect![[r#"
          task web.1#2 is starting, starting
        commit
          task web.1#2 is failed, failed (unhealthy container)
        commit
          update web: web.1#2 failed
          update web: given up for web.1#2
          task web.1#2 wanted shutdown
          task web.1#3 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#2 shutdown, web.1#3 ready]
          service web x2 image:1
        commit
          task web.1#3 wanted shutdown
          update web: start over 1
          task web.2#2 wanted shutdown
        commit
        send n1: [web.2#2 shutdown, web.1#3 shutdown]
          update web: RollbackCompleted: rollback completed
        commit
          task web.2#2 is shutdown, shutdown
        commit
          task web.1#3 is shutdown, shutdown
        commit
    "#]]
    .assert_eq(&scene.story());
    settle(&mut scene);
    assert_eq!([scene.task(web, 1).id, scene.task(web, 2).id], before);
    for task in before {
        let task = scene.objects().task(task).unwrap();
        assert_eq!((task.status.state, task.desired), (TaskState::Running, TaskState::Running));
    }
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
}

#[test]
fn a_rollback_follows_its_own_configuration() {
    let mut scene = Scene::of(1);
    let mut web = reverting("web", 4);
    web.update.parallelism = 4;
    web.rollback.parallelism = 2;
    web.rollback.order = UpdateOrder::StartFirst;
    web.rollback.delay = Duration::from_secs(20);
    let web = scene.create(web);
    scene.work();
    image(&mut scene, web, "image:2");
    settle(&mut scene);
    roll_back(&mut scene, web).unwrap();
    let renewed = |scene: &Scene| {
        let wanted = |slot: u64| {
            let tasks = scene.objects().tasks_of_slot(web, slot);
            tasks.filter(|task| task.desired <= TaskState::Running).count()
        };
        (1..=4).map(wanted).collect::<Vec<_>>()
    };
    assert_eq!(renewed(&scene), [2, 2, 1, 1]);
    scene.work();
    scene.pass(Duration::from_secs(19));
    assert_eq!(images(&scene, web, 4), ["image:1", "image:1", "image:2", "image:2"]);
    scene.pass(Duration::from_secs(1));
    assert_eq!(renewed(&scene), [1, 1, 2, 2]);
    settle(&mut scene);
    settle(&mut scene);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
}

#[test]
fn a_rollback_that_fails_is_paused() {
    for (action, message) in [
        (FailureAction::Pause, "update paused due to failure or early termination of task "),
        (FailureAction::Rollback, "rollback paused due to failure or early termination of task "),
    ] {
        let mut scene = Scene::of(1);
        let mut web = reverting("web", 2);
        web.rollback.failure_action = action;
        let web = scene.create(web);
        scene.work();
        image(&mut scene, web, "broken:1");
        scene.work();
        fail(&mut scene, web, 1);
        scene.work();
        let task = fail(&mut scene, web, 1);
        assert_eq!(status(&scene, web), (UpdateState::RollbackPaused, format!("{message}{task}")));
        let second = scene.task(web, 2).id;
        settle(&mut scene);
        assert_eq!(scene.task(web, 2).id, second);
        // The user's next word is heard.
        image(&mut scene, web, "image:3");
        settle(&mut scene);
        assert_eq!(status(&scene, web).0, UpdateState::Completed);
        assert_eq!(images(&scene, web, 2), ["image:3", "image:3"]);
    }
}

#[test]
fn with_continue_a_rollback_goes_on() {
    let mut scene = Scene::of(1);
    let mut web = reverting("web", 2);
    web.rollback.failure_action = FailureAction::Continue;
    let web = scene.create(web);
    scene.work();
    image(&mut scene, web, "broken:1");
    scene.work();
    fail(&mut scene, web, 1);
    scene.work();
    fail(&mut scene, web, 1);
    settle(&mut scene);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
    assert_eq!(images(&scene, web, 2), ["image:1", "image:1"]);
}

#[test]
fn failures_within_the_ratio_are_borne_and_one_more_is_not() {
    let mut scene = Scene::of(1);
    let mut web = reverting("web", 4);
    web.update.max_failure_permille = 250;
    web.update.parallelism = 0;
    let web = scene.create(web);
    scene.work();
    image(&mut scene, web, "broken:1");
    scene.work();
    fail(&mut scene, web, 1);
    assert_eq!(status(&scene, web), (UpdateState::Updating, "update in progress".to_owned()));
    let task = fail(&mut scene, web, 2);
    let message = format!("update rolled back due to failure or early termination of task {task}");
    assert_eq!(status(&scene, web), (UpdateState::RollbackStarted, message));
}

#[test]
fn a_task_that_fails_after_its_time_of_monitoring_rolls_nothing_back() {
    let mut scene = Scene::of(1);
    let mut web = reverting("web", 2);
    web.update.delay = Duration::from_secs(60);
    let web = scene.create(web);
    scene.work();
    image(&mut scene, web, "image:2");
    scene.work();
    scene.pass(Duration::from_secs(6));
    fail(&mut scene, web, 1);
    assert_eq!(status(&scene, web).0, UpdateState::Updating);
}

#[test]
fn what_cannot_come_back_leaves_the_update_paused() {
    let mut scene = Scene::of(1);
    let mut shop = reverting("shop", 1);
    shop.ports = vec![port(80, 8080)];
    let shop = scene.create(shop);
    scene.work();
    scene.update(shop, |spec| {
        spec.ports.clear();
        task_spec(spec, |task| task.container.image = "broken:1".to_owned());
    });
    scene.work();
    scene.create(ServiceSpec { ports: vec![port(80, 8080)], ..spec("other", 1) });
    scene.work();
    scene.story();
    fail(&mut scene, shop, 1);
    expect![[r#"
          task shop.1#2 is failed, failed (task: non-zero exit (1))
        commit
          update shop: shop.1#2 failed
          update shop: given up for shop.1#2
          task shop.1#2 wanted shutdown
          task shop.1#3 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [shop.1#3 ready, shop.1#2 shutdown]
          update shop: Paused: update paused due to failure or early termination of task shop.1#2: cannot roll back: port '8080' is already in use by service 'other' (6uuu5g6ln569vzcokm41d64b4) as an ingress port
        commit
    "#]].assert_eq(&scene.story());
}

#[test]
fn a_new_leader_goes_back_where_the_last_one_gave_up() {
    let mut scene = Scene::of(1);
    let web = scene.create(reverting("web", 2));
    scene.work();
    image(&mut scene, web, "broken:1");
    scene.work();
    let task = scene.task(web, 1).id;
    // The entry that gives the update up is the last of the old leader.
    let failed = TaskStatus { state: TaskState::Failed, ..scene.task(web, 1).status.clone() };
    scene.tell_for(Event::Reports(NodeId(1), vec![StatusReport { task, status: failed }]), 2);
    assert_eq!(scene.objects().rollout(web).unwrap().given_up, Some(task));
    assert_eq!(status(&scene, web).0, UpdateState::Updating);
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    scene.ready(1);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackStarted);
    scene.work();
    // In the middle of the rollback, too.
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    scene.ready(1);
    settle(&mut scene);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
    assert_eq!(images(&scene, web, 2), ["image:1", "image:1"]);
}

#[test]
fn the_same_specification_as_the_one_that_failed_is_rolled_out_again() {
    let mut scene = Scene::of(1);
    let web = scene.create(reverting("web", 1));
    scene.work();
    image(&mut scene, web, "image:2");
    scene.work();
    fail(&mut scene, web, 1);
    settle(&mut scene);
    assert_eq!(images(&scene, web, 1), ["image:1"]);
    image(&mut scene, web, "image:2");
    settle(&mut scene);
    assert_eq!(images(&scene, web, 1), ["image:2"]);
    assert_eq!(status(&scene, web), (UpdateState::Completed, "update completed".to_owned()));
}

#[test]
fn a_change_that_leaves_tasks_alone_takes_over_what_is_under_way() {
    let mut scene = Scene::of(1);
    let web = scene.create(reverting("web", 3));
    scene.work();
    image(&mut scene, web, "broken:1");
    scene.story();
    scene.update(web, |spec| drop(spec.labels.insert("said".to_owned(), "so".to_owned())));
    // Slot 1 is down for the first update; no other goes down for the second.
    expect![[r#"
          service web x3 broken:1
        commit
        reply: done
          update web: start over 3
        commit
    "#]]
    .assert_eq(&scene.story());
    let rollout = scene.objects().rollout(web).unwrap();
    assert_eq!((rollout.slots, rollout.holding.len()), (3, 1));
    // Its failure is one of the update that goes on.
    fail(&mut scene, web, 1);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackStarted);
}

#[test]
fn a_rollback_in_the_middle_of_an_update_takes_over() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 3);
    web.update.order = UpdateOrder::StartFirst;
    let web = scene.create(web);
    scene.work();
    let first = scene.task(web, 1).id;
    image(&mut scene, web, "image:2");
    scene.story();
    roll_back(&mut scene, web).unwrap();
    expect![[r#"
          service web x3 image:1
        commit
        reply: done
          update web: start over 1
          task web.1#2 wanted shutdown
        commit
        send n1: [web.1#2 shutdown]
          update web: RollbackCompleted: rollback completed
        commit
    "#]]
    .assert_eq(&scene.story());
    settle(&mut scene);
    assert_eq!(scene.task(web, 1).id, first);
    assert_eq!(status(&scene, web).0, UpdateState::RollbackCompleted);
}
