//! Jobs that run by a schedule.

use std::time::Duration;

use expect_test::expect;
use skep_types::service::{RestartCondition, ServiceMode, ServiceSpec};
use skep_types::{ServiceId, TaskId, TaskState};

use super::scene::{Scene, spec, task_spec};
use crate::{Event, Request};

/// A job that runs every five minutes. The story's clock begins at 00:16:40.
fn every_five_minutes(labels: &[(&str, &str)]) -> ServiceSpec {
    let mut job = ServiceSpec {
        mode: ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 },
        ..spec("job", 0)
    };
    task_spec(&mut job, |task| task.restart.condition = RestartCondition::None);
    let labels = [("skep.cron", "*/5 * * * *")].iter().chain(labels);
    job.labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    job
}

fn live(scene: &Scene, job: ServiceId) -> Vec<TaskId> {
    let live = scene.objects().tasks_of(job).filter(|task| !task.status.state.is_terminal());
    live.map(|task| task.id).collect()
}

fn iteration(scene: &Scene, job: ServiceId) -> u64 {
    scene.objects().service(job).unwrap().job.unwrap().iteration
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn a_job_runs_when_its_time_comes_and_not_before() {
    let mut scene = Scene::of(1);
    let job = scene.create(every_five_minutes(&[]));
    scene.work();
    assert_eq!(live(&scene, job), []);
    scene.pass(Duration::from_secs(199));
    assert_eq!(live(&scene, job), []);
    scene.story();
    scene.pass(Duration::from_secs(1));
    scene.work();
    expect![[r#"
          service job job 1 of 1 image:1
        commit
          task job.0#1 (Scale) on n1, wanted complete: assigned, scheduler assigned task to node
        commit
        send n1: [job.0#1 complete]
          task job.0#1 is running, running
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.report(&live(&scene, job), TaskState::Complete, "");
    scene.pass(minutes(4));
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (0, 1));
    scene.pass(minutes(1));
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (1, 2));
}

#[test]
fn a_run_waits_for_the_former_and_several_are_one() {
    let mut scene = Scene::of(1);
    let job = scene.create(every_five_minutes(&[]));
    scene.pass(minutes(5));
    scene.work();
    let first = live(&scene, job);
    scene.pass(minutes(12));
    assert_eq!((live(&scene, job), iteration(&scene, job)), (first.clone(), 1));
    scene.report(&first, TaskState::Complete, "");
    scene.work();
    let second = live(&scene, job);
    assert_eq!((second.len(), iteration(&scene, job)), (1, 2));
    // The others were missed: the next is one of its own time.
    scene.report(&second, TaskState::Complete, "");
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (0, 2));
    scene.pass(minutes(5));
    assert_eq!(iteration(&scene, job), 3);
}

#[test]
fn a_run_replaces_the_former_where_it_is_to() {
    let mut scene = Scene::of(1);
    let job = scene.create(every_five_minutes(&[("skep.cron.concurrency", "replace")]));
    scene.pass(minutes(5));
    scene.work();
    let first = live(&scene, job);
    scene.pass(minutes(5));
    assert_eq!(iteration(&scene, job), 2);
    assert_eq!(scene.objects().task(first[0]).unwrap().desired, TaskState::Remove);
}

#[test]
fn a_new_leader_makes_up_for_one_missed_run_and_repeats_none() {
    let mut scene = Scene::of(1);
    let job = scene.create(every_five_minutes(&[]));
    scene.pass(minutes(5));
    scene.work();
    scene.report(&live(&scene, job), TaskState::Complete, "");
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    assert_eq!(iteration(&scene, job), 1);
    scene.tell(Event::Deposed);
    scene.pass(minutes(17));
    assert_eq!(iteration(&scene, job), 1);
    scene.tell(Event::Started);
    assert_eq!(iteration(&scene, job), 2);
    scene.tell(Event::Tick);
    assert_eq!(iteration(&scene, job), 2);
}

#[test]
fn an_update_runs_nothing_unless_it_is_forced() {
    let mut scene = Scene::of(1);
    let job = scene.create(every_five_minutes(&[]));
    scene.update(job, |spec| task_spec(spec, |task| task.container.image = "image:2".to_owned()));
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (0, 0));
    scene.update(job, |spec| task_spec(spec, |task| task.force_update += 1));
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (1, 1));
}

#[test]
fn what_runs_goes_on_as_it_began_when_the_job_is_updated() {
    let mut scene = Scene::of(1);
    let many =
        |max_concurrent, total_completions| ServiceMode::ReplicatedJob { max_concurrent, total_completions };
    let job = scene.create(ServiceSpec { mode: many(2, 3), ..every_five_minutes(&[]) });
    scene.pass(minutes(5));
    scene.work();
    let first = live(&scene, job);
    assert_eq!(first.len(), 2);
    scene.update(job, |spec| spec.mode = many(1, 4));
    assert_eq!(live(&scene, job), first);
    // Neither the rest of the run nor more of the new one is begun before its time.
    scene.report(&first, TaskState::Complete, "");
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (0, 1));
    scene.pass(minutes(5));
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (1, 2));
}

#[test]
fn labels_stop_no_run() {
    let mut scene = Scene::of(1);
    let mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 };
    let job = scene.create(ServiceSpec { mode, ..every_five_minutes(&[]) });
    scene.pass(minutes(5));
    scene.work();
    scene.update(job, |spec| drop(spec.labels.insert("team".to_owned(), "night".to_owned())));
    scene.report(&live(&scene, job), TaskState::Complete, "");
    assert_eq!((live(&scene, job).len(), iteration(&scene, job)), (1, 1));
}

#[test]
fn only_jobs_run_by_a_schedule() {
    let mut scene = Scene::of(1);
    let refused = |scene: &mut Scene, spec: ServiceSpec| {
        scene.ask(Request::CreateService(Box::new(spec))).unwrap_err().message
    };
    let web = ServiceSpec { mode: ServiceMode::Replicated { replicas: 1 }, ..every_five_minutes(&[]) };
    expect!["label skep.cron: only jobs run by a schedule (--mode replicated-job or global-job)"]
        .assert_eq(&refused(&mut scene, web));
    expect![[r#"
        label skep.cron: "*/5 * * * mond" in time zone "UTC": failed to parse crontab expression:
        */5 * * * mond UTC
                     ^ malformed expression"#]]
    .assert_eq(&refused(&mut scene, every_five_minutes(&[("skep.cron", "*/5 * * * mond")])));
}
