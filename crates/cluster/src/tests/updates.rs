//! Rolling updates.

use std::time::Duration;

use expect_test::expect;
use skep_types::TaskState;
use skep_types::service::{FailureAction, ServiceMode, UpdateState};

use super::scene::{Scene, spec, task_spec};

#[test]
fn an_update_stops_first_one_at_a_time_and_watches_each() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 2));
    scene.work();
    scene.story();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    scene.work();
    expect![[r#"
          service web x2 image:2
        commit
        reply: done
          update web: start over 2
          task web.1#1 wanted shutdown
          task web.1#2 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
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
          task web.2#2 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.2#2 ready, web.2#1 shutdown]
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
    scene.pass(Duration::from_secs(5));
    expect![[r#"
          update web: web.1#2 proven or gone
          update web: web.2#2 proven or gone
        commit
          update web: Completed: update completed
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn the_delay_keeps_batches_apart() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 4);
    web.update.parallelism = 2;
    web.update.delay = Duration::from_secs(10);
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    let renewed = |scene: &Scene| {
        let service = scene.objects().service(web).unwrap();
        (1..=4).filter(|slot| scene.task(web, *slot).spec_version == service.spec_version).count()
    };
    scene.work();
    assert_eq!(renewed(&scene), 2);
    scene.pass(Duration::from_secs(9));
    scene.work();
    assert_eq!(renewed(&scene), 2);
    scene.pass(Duration::from_secs(1));
    scene.work();
    assert_eq!(renewed(&scene), 4);
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Updating);
    scene.pass(Duration::from_secs(10));
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!((status.state, status.message.as_str()), (UpdateState::Completed, "update completed"));
}

#[test]
fn a_failure_pauses_the_update_and_names_the_task() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 3));
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "missing:1".to_owned()));
    scene.story();
    let task = scene.task(web, 1).id;
    scene.report(&[task], TaskState::Rejected, "No such image: missing:1");
    expect![[r#"
          task web.1#2 is rejected, rejected (No such image: missing:1)
        commit
          update web: web.1#2 failed
          update web: Paused: update paused due to failure or early termination of task web.1#2
          task web.1#2 wanted shutdown
          task web.1#3 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#2 shutdown, web.1#3 ready]
    "#]]
    .assert_eq(&scene.story());
    scene.work();
    scene.pass(Duration::from_secs(60));
    let old = (2..=3).filter(|slot| scene.task(web, *slot).spec.container.image == "image:1").count();
    assert_eq!(old, 2);
}

#[test]
fn a_tolerated_failure_does_not_pause() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 4);
    web.update.max_failure_permille = 250;
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    let task = scene.task(web, 1).id;
    scene.report(&[task], TaskState::Failed, "");
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Updating);
    let task = scene.task(web, 2).id;
    scene.report(&[task], TaskState::Failed, "");
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Paused);
}

#[test]
fn with_continue_failures_do_not_matter() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 2);
    web.update.failure_action = FailureAction::Continue;
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    for slot in 1..=2 {
        let task = scene.task(web, slot).id;
        scene.report(&[task], TaskState::Failed, "");
    }
    scene.pass(Duration::from_secs(5));
    scene.work();
    scene.pass(Duration::from_secs(5));
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
}

#[test]
fn an_update_in_the_middle_of_an_update_takes_over() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 3));
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    scene.story();
    // Slot 1 is being renewed. It does not run, so the next update begins with it.
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:3".to_owned()));
    expect![[r#"
          service web x3 image:3
        commit
        reply: done
          update web: start over 3
          task web.1#2 wanted shutdown
          task web.1#3 (Update) on n1, wanted ready: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#2 shutdown, web.1#3 ready]
    "#]]
    .assert_eq(&scene.story());
    for _ in 0..5 {
        scene.work();
        scene.pass(Duration::from_secs(5));
    }
    assert!((1..=3).all(|slot| scene.task(web, slot).spec.container.image == "image:3"));
    assert!(scene.objects().rollout(web).is_none());
}

#[test]
fn going_back_to_what_tasks_are_renews_nothing() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 2);
    web.update.parallelism = 1;
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    let second = scene.task(web, 2).id;
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:1".to_owned()));
    for _ in 0..3 {
        scene.work();
        scene.pass(Duration::from_secs(5));
    }
    assert_eq!(scene.task(web, 2).id, second);
}

#[test]
fn a_change_of_replicas_alone_is_no_update() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    scene.work();
    assert_eq!(scene.objects().service(web).unwrap().update_status, None);
}
