//! Managers' clocks differ, and are set while they lead: no delay gets longer than anew from then on.

use std::time::Duration;

use skep_types::service::UpdateState;
use skep_types::{ServiceId, TaskState, Time};

use super::scene::{Scene, spec, task_spec};
use crate::Event;

const HOUR: Duration = Duration::from_secs(3600);

/// What becomes of the clock that delays were recorded by.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The next leader's is an hour behind.
    NextLeader,
    /// The same leader's is set back by an hour.
    SetBack,
}

const CHANGES: [Change; 2] = [Change::NextLeader, Change::SetBack];

fn an_hour_later(nodes: u64) -> Scene {
    let mut scene = Scene::of(nodes);
    scene.pass(HOUR);
    scene
}

fn an_hour_back(scene: &mut Scene, change: Change) {
    scene.now = scene.now - HOUR;
    match change {
        Change::NextLeader => {
            scene.tell(Event::Deposed);
            scene.tell(Event::Started);
            for node in 1..=scene.objects().nodes().count() as u64 {
                scene.ready(node);
            }
        }
        Change::SetBack => drop(scene.tell(Event::Tick)),
    }
}

/// Whether the slot's task runs or may.
fn runs(scene: &Scene, service: ServiceId) -> bool {
    scene.task(service, 1).desired == TaskState::Running
}

#[test]
fn a_restart_waits_for_its_delay_and_no_longer() {
    for change in CHANGES {
        let mut scene = an_hour_later(1);
        let web = scene.create(spec("web", 1));
        scene.work();
        let task = scene.task(web, 1).id;
        scene.report(&[task], TaskState::Failed, "exit 1");
        scene.work();
        an_hour_back(&mut scene, change);
        scene.pass(Duration::from_secs(4));
        // Looking again and again moves nothing.
        scene.tell(Event::Tick);
        assert!(!runs(&scene, web), "{change:?}");
        scene.pass(Duration::from_secs(1));
        assert!(runs(&scene, web), "{change:?}");
    }
}

#[test]
fn an_update_goes_on_and_ends() {
    for change in CHANGES {
        let mut scene = an_hour_later(1);
        let mut web = spec("web", 3);
        web.update.delay = Duration::from_secs(10);
        web.update.monitor = Duration::from_secs(20);
        let web = scene.create(web);
        scene.work();
        scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
        scene.work();
        an_hour_back(&mut scene, change);
        for _ in 0..3 {
            scene.pass(Duration::from_secs(10));
            scene.work();
        }
        scene.pass(Duration::from_secs(10));
        let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
        assert_eq!(status.state, UpdateState::Completed, "{change:?}");
        assert_eq!(scene.wake_at, None, "{change:?}");
    }
}

#[test]
fn a_place_that_was_free_once_wakes_nobody() {
    let mut scene = an_hour_later(1);
    let mut web = spec("web", 1);
    web.update.delay = Duration::from_secs(10);
    web.update.monitor = Duration::from_secs(1);
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    scene.work();
    scene.pass(Duration::from_secs(9));
    an_hour_back(&mut scene, Change::SetBack);
    assert!(scene.wake_at.is_some_and(|at| at > scene.now));
    scene.pass(Duration::from_secs(11));
    let status = scene.objects().service(web).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
}

#[test]
fn a_window_of_restarts_does_not_last_until_the_clock_has_caught_up() {
    for change in CHANGES {
        let mut scene = an_hour_later(1);
        let mut web = spec("web", 1);
        task_spec(&mut web, |task| {
            task.restart.delay = Duration::ZERO;
            task.restart.max_attempts = 2;
            task.restart.window = Duration::from_secs(30);
        });
        let web = scene.create(web);
        let fail = |scene: &mut Scene| {
            scene.work();
            let task = scene.task(web, 1).id;
            scene.report(&[task], TaskState::Failed, "exit 1");
        };
        fail(&mut scene);
        an_hour_back(&mut scene, change);
        fail(&mut scene);
        scene.pass(Duration::from_secs(31));
        fail(&mut scene);
        fail(&mut scene);
        scene.work();
        assert!(runs(&scene, web), "{change:?}");
        fail(&mut scene);
        assert!(!runs(&scene, web), "{change:?}");
    }
}

#[test]
fn a_node_that_stays_silent_is_given_up_also_when_the_clock_is_set_back() {
    let mut scene = an_hour_later(2);
    scene.tell(Event::Deposed);
    scene.tell(Event::Started);
    scene.ready(1);
    scene.now = scene.now - HOUR;
    scene.tell(Event::Tick);
    scene.pass(Duration::from_secs(60));
    let states: Vec<String> = scene.objects().nodes().map(|node| format!("{:?}", node.state)).collect();
    assert_eq!(states, ["Ready", "Down"]);
}

#[test]
fn a_time_before_all_others_is_a_time() {
    let mut scene = Scene::of(1);
    scene.create(spec("web", 2));
    scene.now = Time(0);
    scene.tell(Event::Tick);
    scene.work();
    assert_eq!(scene.objects().tasks().filter(|task| task.status.state == TaskState::Running).count(), 2);
}
