//! Services that wait for others.

use expect_test::expect;
use skep_types::node::Availability;
use skep_types::service::{RestartCondition, ServiceMode, ServiceSpec, UpdateOrder};
use skep_types::{ServiceId, TaskState};

use super::scene::{Scene, spec, task_spec};
use crate::{Event, Request, RequestId};

fn waiting(name: &str, depends_on: &str) -> ServiceSpec {
    let mut spec = spec(name, 2);
    spec.labels.insert("skep.depends_on".to_owned(), depends_on.to_owned());
    spec
}

fn of_stack(mut spec: ServiceSpec) -> ServiceSpec {
    spec.labels.insert("com.docker.stack.namespace".to_owned(), "shop".to_owned());
    spec
}

/// Why the service's first task waits; empty when it does not.
fn why(scene: &Scene, service: ServiceId) -> String {
    let task = scene.task(service, 1);
    assert_eq!(task.status.error.is_empty(), task.node.is_some());
    task.status.error.clone()
}

#[test]
fn a_service_waits_until_what_it_names_runs() {
    let mut scene = Scene::of(1);
    let web = scene.create(waiting("web", "db, cache"));
    expect!["waiting for service db, which does not exist, service cache, which does not exist"]
        .assert_eq(&why(&scene, web));
    let cache = scene.create(spec("cache", 0));
    let db = scene.create(spec("db", 2));
    expect!["waiting for service db (0/2 running)"].assert_eq(&why(&scene, web));
    scene.report(&[scene.task(db, 1).id], TaskState::Running, "");
    expect!["waiting for service db (1/2 running)"].assert_eq(&why(&scene, web));
    scene.report(&[scene.task(db, 2).id], TaskState::Running, "");
    assert_eq!(why(&scene, web), "");
    scene.work();

    // It runs: nobody is waited for any more.
    scene.ask(Request::RemoveService(cache)).unwrap();
    scene.ask(Request::RemoveService(db)).unwrap();
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    scene.work();
    assert!(scene.objects().tasks_of(web).all(|task| task.node.is_some()));
}

#[test]
fn a_job_is_waited_for_until_it_completed() {
    let mut scene = Scene::of(1);
    let mut migrate = spec("migrate", 0);
    migrate.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    task_spec(&mut migrate, |task| task.restart.condition = RestartCondition::None);
    let migrate = scene.create(migrate);
    let web = scene.create(waiting("web", "migrate"));
    scene.work();
    expect!["waiting for service migrate (0/1 completed)"].assert_eq(&why(&scene, web));
    let task = scene.objects().tasks_of(migrate).next().unwrap().id;
    scene.report(&[task], TaskState::Complete, "");
    assert_eq!(why(&scene, web), "");
}

#[test]
fn a_name_means_the_same_stack_first() {
    let mut scene = Scene::of(1);
    scene.create(spec("db", 1));
    scene.work();
    let web = scene.create(of_stack(waiting("shop_web", "db")));
    assert_eq!(why(&scene, web), "");
    scene.create(of_stack(spec("shop_db", 1)));
    let cart = scene.create(of_stack(waiting("shop_cart", "db")));
    expect!["waiting for service shop_db (0/1 running)"].assert_eq(&why(&scene, cart));
}

#[test]
fn those_who_would_wait_for_each_other_are_refused() {
    let mut scene = Scene::of(1);
    let mut ask = |spec: ServiceSpec| {
        let answer = scene.ask(Request::CreateService(Box::new(spec)));
        answer.map(drop).map_err(|refusal| refusal.message)
    };
    assert_eq!(ask(waiting("a", "b")), Ok(()));
    assert_eq!(ask(waiting("b", "c")), Ok(()));
    expect!["label skep.depends_on: c waits for a, a waits for b, b waits for c"]
        .assert_eq(&ask(waiting("c", "d,a")).unwrap_err());
    expect!["label skep.depends_on: e waits for e"].assert_eq(&ask(waiting("e", "e")).unwrap_err());
    expect![[r#"label skep.depends_on: "" is not a service's name"#]]
        .assert_eq(&ask(waiting("f", "a,,b")).unwrap_err());
}

#[test]
fn an_update_that_starts_first_does_not_make_up_for_what_does_not_run() {
    let mut scene = Scene::of(2);
    let mut db = spec("db", 2);
    db.update.order = UpdateOrder::StartFirst;
    let db = scene.create(db);
    scene.report(&[scene.task(db, 1).id], TaskState::Running, "");
    let web = scene.create(waiting("web", "db"));
    // The one that runs is replaced by another: two tasks run, of one slot.
    scene.update(db, |spec| {
        spec.update.parallelism = 0;
        task_spec(spec, |task| task.container.image = "image:2".to_owned());
    });
    scene.report(&[scene.task(db, 1).id], TaskState::Running, "");
    let running = scene.objects().tasks_of(db).filter(|task| task.status.state == TaskState::Running);
    assert_eq!(running.count(), 2);
    expect!["waiting for service db (1/2 running)"].assert_eq(&why(&scene, web));
}

#[test]
fn of_a_big_service_not_every_task_is_told() {
    let mut scene = Scene::of(1);
    let db = scene.create(spec("db", 100));
    let web = scene.create(waiting("web", "db"));
    for slot in 1..=99 {
        scene.report(&[scene.task(db, slot).id], TaskState::Running, "");
    }
    expect!["waiting for service db (98/100 running)"].assert_eq(&why(&scene, web));
    scene.report(&[scene.task(db, 100).id], TaskState::Running, "");
    assert_eq!(why(&scene, web), "");
}

#[test]
fn what_was_told_to_end_and_completed_yet_has_completed() {
    let mut scene = Scene::of(1);
    let mut migrate = spec("migrate", 0);
    migrate.mode = ServiceMode::GlobalJob;
    task_spec(&mut migrate, |task| task.restart.condition = RestartCondition::None);
    let migrate = scene.create(migrate);
    let web = scene.create(waiting("web", "migrate"));
    let task = scene.objects().tasks_of(migrate).next().unwrap().id;
    scene.report(&[task], TaskState::Running, "");
    scene.change_node(1, |spec| spec.availability = Availability::Drain).unwrap();
    scene.report(&[task], TaskState::Complete, "");
    scene.change_node(1, |spec| spec.availability = Availability::Active).unwrap();
    assert_eq!(why(&scene, web), "");
}

#[test]
fn two_that_wait_for_each_other_are_refused_also_when_they_are_asked_for_at_a_time() {
    let mut scene = Scene::of(1);
    let asked = |number, spec| Event::Request(RequestId(number), Request::CreateService(Box::new(spec)));
    // The first is in flight while the others arrive.
    for (number, spec) in [(1, spec("first", 0)), (2, waiting("a", "b")), (3, waiting("b", "a"))] {
        scene.cluster.step(asked(number, spec), scene.now, &mut scene.ids);
    }
    let mut results = Vec::new();
    for index in scene.objects().applied() + 1.. {
        let output = scene.cluster.step(Event::Committed { index }, scene.now, &mut scene.ids);
        results.extend(output.replies.into_iter().map(|reply| match reply.result {
            Ok(_) => format!("{}: done", reply.to.0),
            Err(refusal) => format!("{}: {refusal}", reply.to.0),
        }));
        if output.propose.is_empty() {
            break;
        }
    }
    expect![[r#"
        1: done
        2: done
        3: label skep.depends_on: b waits for a, a waits for b"#]]
    .assert_eq(&results.join("\n"));
}
