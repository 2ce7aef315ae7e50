//! The life of services and tasks.

use std::time::Duration;

use expect_test::expect;
use skep_types::assignment::StatusReport;
use skep_types::service::{RestartCondition, ServiceMode};
use skep_types::{TaskId, TaskState};

use super::scene::{Scene, port, spec, task_spec};
use crate::{Event, Request, RequestId};

#[test]
fn a_service_is_on_its_nodes_after_two_entries() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 3);
    web.ports = vec![port(80, 8080), port(81, 0)];
    scene.create(web);
    expect![[r#"
          service web x3 image:1 8080:80 30000:81 10.0.0.4
        commit
        reply: done
        send n1: [endpoint web 8080:80 30000:81 -> []]
        send n2: [endpoint web 8080:80 30000:81 -> []]
          task web.1#1 (Scale) on n1 10.0.0.5, wanted running: assigned, scheduler assigned task to node
          task web.2#1 (Scale) on n2 10.0.0.6, wanted running: assigned, scheduler assigned task to node
          task web.3#1 (Scale) on n1 10.0.0.7, wanted running: assigned, scheduler assigned task to node
        commit
        send n1: [web.3#1 running, web.1#1 running]
        send n2: [web.2#1 running]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn an_endpoint_gains_a_backend_when_it_runs_and_loses_it_before_it_is_told_to_stop() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 2);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.story();
    scene.work();
    expect![[r#"
          task web.2#1 is running, running
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.5]]
          task web.1#1 is running, running
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.4, 10.0.0.5]]
    "#]]
    .assert_eq(&scene.story());
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 1 });
    expect![[r#"
          service web x1 image:1 8080:80 10.0.0.3
        commit
        reply: done
          task web.2#1 wanted remove
        commit
        send n1: [endpoint web 8080:80 -> [10.0.0.4]]
    "#]]
    .assert_eq(&scene.story());
    scene.work();
    expect![[r#"
          task web.2#1 is shutdown, shutdown
        commit
        send n1: [web.2#1 remove]
          forget task web.2#1
        commit
        send n1: [-web.2#1]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_task_that_fails_is_replaced_after_its_delay() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    scene.story();
    let first = scene.task(web, 1).id;
    scene.report(&[first], TaskState::Failed, "task: non-zero exit (137)");
    scene.work();
    assert_eq!(scene.wake_at, Some(scene.now + Duration::from_secs(5)));
    expect![[r#"
          task web.1#1 is failed, failed (task: non-zero exit (137))
        commit
          task web.1#1 wanted shutdown
          task web.1#2 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#2 ready, web.1#1 shutdown]
          task web.1#2 is ready, ready
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.pass(Duration::from_secs(5));
    expect![[r#"
          task web.1#2 wanted running
        commit
        send n1: [web.1#2 running]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_task_that_cannot_be_prepared_does_not_shorten_the_delay() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    for _ in 0..3 {
        let task = scene.task(web, 1).id;
        scene.report(&[task], TaskState::Rejected, "No such image: image:1");
    }
    scene.story();
    scene.pass(Duration::from_secs(5));
    expect![[r#"
          task web.1#2 wanted shutdown
          task web.1#3 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [web.1#3 ready, web.1#2 shutdown]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_policy_bounds_its_restarts() {
    let mut scene = Scene::of(1);
    let mut job = spec("job", 1);
    task_spec(&mut job, |task| {
        task.restart.max_attempts = 2;
        task.restart.delay = Duration::ZERO;
    });
    let job = scene.create(job);
    for _ in 0..4 {
        let task = scene.task(job, 1).id;
        scene.report(&[task], TaskState::Failed, "task: non-zero exit (1)");
    }
    assert_eq!(scene.objects().tasks_of(job).count(), 3);
    assert_eq!(scene.task(job, 1).desired, TaskState::Shutdown);
}

#[test]
fn a_completed_task_rests_where_only_failures_are_restarted() {
    let mut scene = Scene::of(1);
    let mut job = spec("job", 1);
    task_spec(&mut job, |task| task.restart.condition = RestartCondition::OnFailure);
    let job = scene.create(job);
    scene.work();
    let task = scene.task(job, 1).id;
    scene.story();
    scene.report(&[task], TaskState::Complete, "");
    scene.pass(Duration::from_secs(60));
    expect![[r#"
          task job.1#1 is complete, complete
        commit
          task job.1#1 wanted shutdown
        commit
        send n1: [job.1#1 shutdown]
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(scene.objects().tasks_of(job).count(), 1);
}

#[test]
fn a_slot_keeps_as_many_tasks_as_the_history_limit_says() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    for _ in 0..9 {
        scene.work();
        let task = scene.task(web, 1).id;
        scene.report(&[task], TaskState::Failed, "");
        scene.pass(Duration::from_secs(5));
    }
    scene.work();
    assert_eq!(scene.objects().tasks_of(web).count(), 5);
    assert_eq!(scene.task(web, 1).status.state, TaskState::Running);
}

#[test]
fn a_removed_service_frees_its_name_and_port_at_once_and_its_tasks_when_they_ended() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 2);
    web.ports = vec![port(80, 8080)];
    let id = scene.create(web.clone());
    scene.work();
    scene.story();
    scene.ask(Request::RemoveService(id)).unwrap();
    expect![[r#"
          remove service web
        commit
        reply: done
        send n1: [-endpoint web]
          task web.1#1 wanted remove
          task web.2#1 wanted remove
        commit
    "#]]
    .assert_eq(&scene.story());
    let again = scene.create(web);
    assert_ne!(again, id);
    scene.story();
    scene.work();
    assert_eq!(scene.objects().tasks_of(id).count(), 0);
    assert_eq!(scene.objects().tasks_of(again).count(), 2);
}

#[test]
fn scaling_down_keeps_what_runs_and_what_is_spread() {
    let mut scene = Scene::of(2);
    let web = scene.create(spec("web", 5));
    let tasks: Vec<TaskId> = scene.objects().tasks_of(web).map(|task| task.id).collect();
    // Slots 1, 3 and 5 are on the first node, 2 and 4 on the second; only slot 3 does not run.
    scene.report(&[tasks[0], tasks[1], tasks[3], tasks[4]], TaskState::Running, "");
    scene.story();
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 2 });
    expect![[r#"
          service web x2 image:1
        commit
        reply: done
          task web.3#1 wanted remove
          task web.5#1 wanted remove
          task web.4#1 wanted remove
        commit
        send n1: [web.3#1 remove, web.5#1 remove]
        send n2: [web.4#1 remove]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn scaling_up_fills_the_lowest_free_slots() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    scene.story();
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 3 });
    expect![[r#"
          service web x3 image:1
        commit
        reply: done
          task web.2#1 (Scale) on n1, wanted running: assigned, scheduler assigned task to node
          task web.3#1 (Scale) on n1, wanted running: assigned, scheduler assigned task to node
        commit
        send n1: [web.3#1 running, web.2#1 running]
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_task_without_an_address_says_so_and_gets_the_next_free_one() {
    // A /29 has room for five beside the gateway: a service's own and four tasks'.
    let mut scene = Scene::with_subnet(1, 29);
    let mut web = spec("web", 5);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    expect![[r#"
          service web x5 image:1 8080:80 10.0.0.3
        commit
        reply: done
        send n1: [endpoint web 8080:80 -> []]
          task web.1#1 (Scale) on n1 10.0.0.4, wanted running: assigned, scheduler assigned task to node
          task web.2#1 (Scale) on n1 10.0.0.5, wanted running: assigned, scheduler assigned task to node
          task web.3#1 (Scale) on n1 10.0.0.6, wanted running: assigned, scheduler assigned task to node
          task web.4#1 (Scale) on no node, wanted running: new, created (no available address on network ingress (10.0.0.0/29: 5 in use))
          task web.5#1 (Scale) on no node, wanted running: new, created (no available address on network ingress (10.0.0.0/29: 5 in use))
        commit
        send n1: [web.3#1 running, web.2#1 running, web.1#1 running]
    "#]].assert_eq(&scene.story());
    let first = scene.task(web, 1).id;
    scene.report(&[first], TaskState::Failed, "");
    expect![[r#"
          task web.1#1 is failed, failed
        commit
          task web.1#1 wanted shutdown
          task web.4#1 gets 10.0.0.4
          task web.1#2 (Restart) on no node, wanted ready, after 5s: new, created (no available address on network ingress (10.0.0.0/29: 5 in use))
        commit
        send n1: [web.1#1 shutdown]
          task web.4#1 to n1: assigned, scheduler assigned task to node
        commit
        send n1: [web.4#1 running]
    "#]].assert_eq(&scene.story());
}

#[test]
fn a_request_of_the_same_batch_does_not_hide_a_failure() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 1));
    scene.work();
    let task = scene.task(web, 1);
    let (id, node) = (task.id, task.node.unwrap());
    let mut status = task.status.clone();
    status.state = TaskState::Failed;
    let report = Event::Reports(node, vec![StatusReport { task: id, status }]);
    // While the failure is on its way into the log, the user asks for a change of the same service.
    let output = scene.cluster.step(report, scene.now, &mut scene.ids);
    assert_eq!(output.propose.len(), 1);
    let service = scene.objects().service(web).unwrap();
    let (version, spec) = (service.meta.version, Box::new(spec("web", 2)));
    let request = Event::Request(RequestId(500), Request::UpdateService { id: web, version, spec });
    assert_eq!(scene.cluster.step(request, scene.now, &mut scene.ids).propose, []);
    let index = scene.objects().applied() + 1;
    for index in index..index + 3 {
        scene.cluster.step(Event::Committed { index }, scene.now, &mut scene.ids);
    }
    assert_eq!(scene.task(web, 1).status.state, TaskState::Assigned);
    assert_eq!(scene.task(web, 2).status.state, TaskState::Assigned);
}
