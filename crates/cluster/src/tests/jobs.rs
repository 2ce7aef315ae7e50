//! Jobs: services whose tasks run to completion.

use std::time::Duration;

use expect_test::expect;
use skep_types::node::Availability;
use skep_types::service::{RestartCondition, ServiceMode, ServiceSpec};
use skep_types::{NodeId, ServiceId, Task, TaskId, TaskState};

use super::scene::{Scene, node, spec, task_spec};
use crate::{Event, Request};

fn job(name: &str, max_concurrent: u64, total_completions: u64) -> ServiceSpec {
    let mut job = ServiceSpec {
        mode: ServiceMode::ReplicatedJob { max_concurrent, total_completions },
        ..spec(name, 0)
    };
    task_spec(&mut job, |task| task.restart.condition = RestartCondition::OnFailure);
    job
}

fn global_job(name: &str) -> ServiceSpec {
    ServiceSpec { mode: ServiceMode::GlobalJob, ..job(name, 0, 0) }
}

/// The tasks of the present iteration.
fn tasks(scene: &Scene, service: ServiceId) -> impl Iterator<Item = &Task> {
    let iteration = scene.objects().service(service).unwrap().job.unwrap().iteration;
    scene.objects().tasks_of(service).filter(move |task| task.iteration == Some(iteration))
}

fn running(scene: &Scene, service: ServiceId) -> Vec<TaskId> {
    tasks(scene, service)
        .filter(|task| task.status.state == TaskState::Running && task.desired == TaskState::Complete)
        .map(|task| task.id)
        .collect()
}

fn completed(scene: &Scene, service: ServiceId) -> usize {
    tasks(scene, service).filter(|task| task.status.state == TaskState::Complete).count()
}

#[test]
fn a_job_runs_so_many_at_a_time_until_so_many_completed() {
    let mut scene = Scene::of(1);
    let job = scene.create(job("job", 2, 3));
    scene.work();
    expect![[r#"
          service job job 2 of 3 image:1
        commit
        reply: done
          task job.0#1 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
          task job.1#1 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
        commit
        send n1: [job.1#1 complete, job.0#1 complete]
          task job.1#1 is running, running
        commit
          task job.0#1 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
    let first = running(&scene, job);
    scene.report(&first, TaskState::Complete, "");
    scene.work();
    expect![[r#"
          task job.0#1 is complete, complete
        commit
          task job.2#1 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
        commit
        send n1: [job.2#1 complete]
          task job.1#1 is complete, complete
        commit
          task job.2#1 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
    let last = running(&scene, job);
    scene.report(&last, TaskState::Complete, "");
    scene.pass(Duration::from_secs(60));
    expect![[r#"
          task job.2#1 is complete, complete
        commit
    "#]]
    .assert_eq(&scene.story());
    assert_eq!((completed(&scene, job), scene.objects().tasks_of(job).count()), (3, 3));
    assert_eq!(scene.objects().service(job).unwrap().update_status, None);
}

#[test]
fn a_task_that_fails_is_tried_again_in_its_place() {
    let mut scene = Scene::of(1);
    let job = scene.create(job("job", 1, 2));
    scene.work();
    scene.story();
    let first = running(&scene, job);
    scene.report(&first, TaskState::Failed, "task: non-zero exit (1)");
    scene.work();
    scene.pass(Duration::from_secs(5));
    scene.work();
    expect![[r#"
          task job.0#1 is failed, failed (task: non-zero exit (1))
        commit
          task job.0#1 wanted shutdown
          task job.0#2 (Restart) on n1, wanted ready, after 5s: assigned, scheduler assigned task to node
        commit
        send n1: [job.0#2 ready, job.0#1 shutdown]
          task job.0#2 is ready, ready
        commit
          task job.0#2 wanted complete
        commit
        send n1: [job.0#2 complete]
          task job.0#2 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn with_condition_any_too_what_completed_is_done() {
    let mut scene = Scene::of(1);
    let mut any = job("job", 1, 1);
    task_spec(&mut any, |task| task.restart.condition = RestartCondition::Any);
    let job = scene.create(any);
    scene.work();
    let task = running(&scene, job);
    scene.report(&task, TaskState::Complete, "");
    scene.pass(Duration::from_secs(60));
    assert_eq!(scene.objects().tasks_of(job).count(), 1);
}

#[test]
fn without_restarts_a_failure_is_the_end_of_its_slot_and_of_no_other() {
    let mut scene = Scene::of(1);
    let mut once = job("job", 1, 3);
    task_spec(&mut once, |task| task.restart.condition = RestartCondition::None);
    let job = scene.create(once);
    for state in [TaskState::Failed, TaskState::Complete, TaskState::Complete] {
        scene.work();
        let task = running(&scene, job);
        assert_eq!(task.len(), 1);
        scene.report(&task, state, "");
    }
    scene.pass(Duration::from_secs(60));
    assert_eq!((completed(&scene, job), scene.objects().tasks_of(job).count()), (2, 3));
}

#[test]
fn an_update_runs_the_job_anew() {
    let mut scene = Scene::of(1);
    let job = scene.create(job("job", 2, 2));
    scene.work();
    let one = running(&scene, job)[0];
    scene.report(&[one], TaskState::Complete, "");
    scene.story();
    scene.update(job, |spec| task_spec(spec, |task| task.force_update += 1));
    scene.work();
    expect![[r#"
          service job job 2 of 2 image:1
        commit
        reply: done
          task job.1#1 wanted remove
          task job.0#2 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
          task job.1#2 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
        commit
        send n1: [job.1#2 complete, job.0#2 complete, job.1#1 remove]
          task job.1#2 is running, running
        commit
          task job.0#2 is running, running
        commit
          task job.1#1 is shutdown, shutdown
        commit
          forget task job.1#1
        commit
        send n1: [-job.1#1]
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(completed(&scene, job), 0);
    let status = scene.objects().service(job).unwrap().job.unwrap();
    assert_eq!(status.iteration, 1);
    // Fewer completions leave no history of the slots that are gone.
    scene.update(job, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    });
    scene.work();
    assert!(scene.objects().tasks_of(job).all(|task| task.slot == 0));
}

#[test]
fn history_of_iterations_is_bounded() {
    let mut scene = Scene::of(1);
    let job = scene.create(job("job", 1, 1));
    for _ in 0..9 {
        scene.work();
        let task = running(&scene, job);
        scene.report(&task, TaskState::Complete, "");
        scene.update(job, |spec| task_spec(spec, |task| task.force_update += 1));
    }
    scene.work();
    assert_eq!(scene.objects().tasks_of(job).count(), 5);
}

#[test]
fn a_job_goes_on_elsewhere_when_its_node_is_lost_but_completions_stay() {
    let mut scene = Scene::of(2);
    let job = scene.create(job("job", 2, 2));
    scene.work();
    let of_first: Vec<TaskId> = scene.objects().tasks_on(NodeId(2)).map(|task| task.id).collect();
    let other: Vec<TaskId> =
        running(&scene, job).into_iter().filter(|task| !of_first.contains(task)).collect();
    scene.report(&other, TaskState::Complete, "");
    scene.story();
    scene.tell(Event::NodeLost { node: NodeId(2), reason: "heartbeat failure".to_owned() });
    scene.work();
    expect![[r#"
          node n2 Down Active 10.0.0.3, heartbeat failure
        commit
          task job.1#1 wanted shutdown
          task job.1#2 (Restart) on n1, wanted complete: assigned, scheduler assigned task to node
        commit
        send n1: [job.1#2 complete]
          task job.1#2 is running, running
        commit
          task job.1#1 is shutdown, shutdown
        commit
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_global_job_runs_once_on_every_node_also_on_one_that_comes_later() {
    let mut scene = Scene::of(2);
    let job = scene.create(global_job("job"));
    scene.work();
    expect![[r#"
          service job global job image:1
        commit
        reply: done
          task job.1#1 (Scale) on n1, wanted complete: assigned, scheduler confirmed task can run on preassigned node
          task job.2#1 (Scale) on n2, wanted complete: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n1: [job.1#1 complete]
        send n2: [job.2#1 complete]
          task job.2#1 is running, running
        commit
          task job.1#1 is running, running
        commit
    "#]].assert_eq(&scene.story());
    let all = running(&scene, job);
    scene.report(&all, TaskState::Complete, "");
    for availability in [Availability::Drain, Availability::Active] {
        scene.change_node(2, |spec| spec.availability = availability).unwrap();
    }
    scene.ask(Request::AddNode(Box::new(node(3)))).unwrap();
    scene.ready(3);
    scene.work();
    assert_eq!((completed(&scene, job), running(&scene, job).len()), (2, 1));
    scene.story();
    scene.update(job, |spec| task_spec(spec, |task| task.force_update += 1));
    scene.work();
    expect![[r#"
          service job global job image:1
        commit
        reply: done
          task job.1#1 wanted remove
          task job.2#1 wanted remove
          task job.3#1 wanted remove
          task job.1#2 (Scale) on n1, wanted complete: assigned, scheduler confirmed task can run on preassigned node
          task job.2#2 (Scale) on n2, wanted complete: assigned, scheduler confirmed task can run on preassigned node
          task job.3#2 (Scale) on n3, wanted complete: assigned, scheduler confirmed task can run on preassigned node
        commit
        send n1: [job.1#2 complete, job.1#1 remove]
        send n2: [job.2#2 complete, job.2#1 remove]
        send n3: [job.3#2 complete, job.3#1 remove]
          forget task job.1#1
          forget task job.2#1
        commit
        send n1: [-job.1#1]
        send n2: [-job.2#1]
          task job.1#2 is running, running
        commit
          task job.3#2 is running, running
        commit
          task job.3#1 is shutdown, shutdown
        commit
          forget task job.3#1
        commit
        send n3: [-job.3#1]
          task job.2#2 is running, running
        commit
    "#]].assert_eq(&scene.story());
}

#[test]
fn none_at_a_time_is_a_job_that_waits_to_be_asked() {
    let mut scene = Scene::of(1);
    let job = scene.create(job("job", 0, 3));
    scene.work();
    assert_eq!(scene.objects().tasks_of(job).count(), 0);
    scene.update(job, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 3, total_completions: 3 };
    });
    scene.work();
    assert_eq!(running(&scene, job).len(), 3);
}

#[test]
fn a_task_that_still_ends_takes_the_place_of_another_unless_its_node_is_down() {
    for down in [false, true] {
        let mut scene = Scene::of(2);
        let mut once = job("job", 2, 4);
        task_spec(&mut once, |task| task.restart.condition = RestartCondition::None);
        let job = scene.create(once);
        scene.work();
        let drained = scene.task(job, 0).node.unwrap();
        scene.change_node(drained.0 as u64, |spec| spec.availability = Availability::Drain).unwrap();
        assert_eq!(scene.objects().tasks_of(job).count(), 2);
        if down {
            scene.tell(Event::NodeLost { node: drained, reason: "test".to_owned() });
        } else {
            let task = scene.task(job, 0).id;
            scene.report(&[task], TaskState::Shutdown, "");
        }
        assert_eq!(scene.objects().tasks_of(job).count(), 3, "the node is down: {down}");
    }
}
