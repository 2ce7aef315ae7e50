//! How many replicas a load leads to, and when.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::assignment::TaskUsage;
use skep_types::service::{ServiceMode, ServiceSpec};
use skep_types::{NodeId, ServiceId, Task, TaskState};

use super::scene::{Scene, spec, task_spec};
use crate::objects::is_wanted;
use crate::{Event, Request, why_service};

const TWO_SECONDS: Duration = Duration::from_secs(2);
/// Thousand-millionths of a core in a hundredth.
const HUNDREDTH: u64 = 10_000_000;

/// From 1 to 10 replicas that use half a core each: more after 6 s, fewer after 20 s.
fn scaled(labels: &[(&str, &str)]) -> ServiceSpec {
    let mut spec = spec("web", 2);
    let usual = [
        ("skep.autoscale.max", "10"),
        ("skep.autoscale.cpu", "50"),
        ("skep.autoscale.up_window", "6s"),
        ("skep.autoscale.down_window", "20s"),
    ];
    for (label, value) in usual.iter().chain(labels) {
        spec.labels.insert((*label).to_owned(), (*value).to_owned());
    }
    spec
}

fn running(scene: &Scene, service: ServiceId) -> Vec<(skep_types::TaskId, NodeId)> {
    let runs = |task: &&Task| task.status.state == TaskState::Running && is_wanted(task);
    scene.objects().tasks_of(service).filter(runs).map(|task| (task.id, task.node.unwrap())).collect()
}

fn replicas(scene: &Scene, service: ServiceId) -> u64 {
    match scene.objects().service(service).unwrap().spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        other => panic!("{other:?}"),
    }
}

/// Agents measure for a while, of each task the hundredths of a core and the connections in a second, while the tasks
/// share the load evenly and do as they are told.
fn load(scene: &mut Scene, service: ServiceId, seconds: u64, (cpus, connections): (u64, Option<u64>)) {
    for _ in 0..seconds / 2 {
        scene.work();
        let tasks = running(scene, service);
        let share = |sum: u64| sum / tasks.len() as u64;
        for (task, node) in &tasks {
            let usage = TaskUsage {
                task: *task,
                nano_cpus: share(cpus * HUNDREDTH),
                milli_connections: connections.map(|connections| share(connections * 1000)),
            };
            scene.tell(Event::Usage(*node, vec![usage]));
        }
        scene.pass(TWO_SECONDS);
    }
}

/// What was decided about numbers of replicas since the last look.
fn scales(scene: &mut Scene) -> String {
    let story = scene.story();
    let lines = story.lines().map(str::trim).filter(|line| line.starts_with("scale "));
    lines.collect::<Vec<_>>().join("\n")
}

fn tell(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scales(scene));
}

#[test]
fn a_load_brings_more_after_the_up_window_and_rest_fewer_after_the_down_window() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    load(&mut scene, web, 6, (100, None));
    tell(&mut scene, expect![[r#""#]]);
    // 2.6 cores are shared by 6; they need as long to warm up as the window is, and then the window.
    load(&mut scene, web, 6, (260, None));
    tell(&mut scene, expect![[r#""#]]);
    load(&mut scene, web, 6, (260, None));
    tell(
        &mut scene,
        expect![
            "scale web from 2 to 6: 2 tasks use 2.60 CPUs, and each is to use 0.50; at least 6 were needed for 6s"
        ],
    );
    load(&mut scene, web, 60, (260, None));
    tell(&mut scene, expect![[r#""#]]);
    load(&mut scene, web, 18, (30, None));
    tell(&mut scene, expect![[r#""#]]);
    load(&mut scene, web, 6, (30, None));
    tell(
        &mut scene,
        expect![
            "scale web from 6 to 1: 6 tasks use 0.30 CPUs, and each is to use 0.50; at most 1 were needed for 20s"
        ],
    );
    assert_eq!(running(&scene, web).len(), 1);
}

#[test]
fn a_peak_shorter_than_the_window_changes_nothing_and_a_lull_starts_the_down_window_anew() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[("skep.autoscale.min", "2")]));
    load(&mut scene, web, 30, (100, None));
    for _ in 0..5 {
        load(&mut scene, web, 4, (400, None));
        load(&mut scene, web, 2, (80, None));
    }
    tell(&mut scene, expect![[r#""#]]);
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    for _ in 0..5 {
        load(&mut scene, web, 16, (80, None));
        load(&mut scene, web, 2, (200, None));
    }
    tell(&mut scene, expect![[r#""#]]);
}

#[test]
fn a_tenth_too_much_is_borne() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    load(&mut scene, web, 60, (109, None));
    tell(&mut scene, expect![[r#""#]]);
    load(&mut scene, web, 10, (112, None));
    tell(
        &mut scene,
        expect![[
            r#"scale web from 2 to 3: 2 tasks use 1.12 CPUs, and each is to use 0.50; at least 3 were needed for 6s"#
        ]],
    );
    // Three would need no more than that for two: none of the two sizes leads to the other.
    load(&mut scene, web, 60, (102, None));
    tell(&mut scene, expect![[r#""#]]);
}

#[test]
fn connections_count_and_the_greater_need_decides() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[("skep.autoscale.rps", "100")]));
    load(&mut scene, web, 14, (40, Some(750)));
    tell(
        &mut scene,
        expect![[
            r#"scale web from 2 to 8: 2 tasks accept 750.00 connections a second, and each is to accept 100; at least 8 were needed for 6s"#
        ]],
    );
    load(&mut scene, web, 40, (240, Some(10)));
    tell(
        &mut scene,
        expect![
            "scale web from 8 to 5: 8 tasks use 2.40 CPUs, and each is to use 0.50; at most 5 were needed for 20s"
        ],
    );
    // Where connections cannot be told, they may need all that there is.
    load(&mut scene, web, 60, (10, None));
    tell(&mut scene, expect![[r#""#]]);
}

#[test]
fn the_number_stays_within_its_bounds_whatever_the_load() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[("skep.autoscale.min", "3"), ("skep.autoscale.max", "4")]));
    tell(&mut scene, expect![[r#"scale web from 2 to 3: skep.autoscale.min is 3"#]]);
    load(&mut scene, web, 14, (900, None));
    tell(
        &mut scene,
        expect![[
            r#"scale web from 3 to 4: 3 tasks use 9.00 CPUs, and each is to use 0.50; at least 4 were needed for 6s"#
        ]],
    );
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 40 });
    tell(&mut scene, expect![[r#"scale web from 40 to 4: skep.autoscale.max is 4"#]]);
    // One that is scaled to none is switched off.
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 0 });
    scene.work();
    scene.pass(Duration::from_secs(600));
    tell(&mut scene, expect![[r#""#]]);
    assert_eq!(replicas(&scene, web), 0);
}

#[test]
fn a_new_leader_lets_the_windows_pass_before_it_scales() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    load(&mut scene, web, 14, (260, None));
    assert_eq!(replicas(&scene, web), 6);
    load(&mut scene, web, 16, (30, None));
    scales(&mut scene);
    for _ in 0..4 {
        scene.tell(Event::Deposed);
        scene.tell(Event::Started);
        for node in 1..=3 {
            scene.ready(node);
        }
        // It measures nothing at first, and little then; a window later it would know.
        load(&mut scene, web, 4, (0, None));
        load(&mut scene, web, 14, (260, None));
        tell(&mut scene, expect![[r#""#]]);
    }
    assert_eq!(replicas(&scene, web), 6);
    load(&mut scene, web, 30, (30, None));
    assert_eq!(replicas(&scene, web), 1);
}

#[test]
fn what_is_not_measured_counts_as_idle_on_the_way_up_and_as_busy_on_the_way_down() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    scene.work();
    let tasks = running(&scene, web);
    let measure = |scene: &mut Scene, hundredths: u64, seconds: u64| {
        for _ in 0..seconds / 2 {
            for (task, node) in &tasks[..2] {
                let nano_cpus = hundredths * HUNDREDTH;
                let usage = TaskUsage { task: *task, nano_cpus, milli_connections: None };
                scene.tell(Event::Usage(*node, vec![usage]));
            }
            scene.pass(TWO_SECONDS);
        }
        replicas(scene, web)
    };
    // Two that are idle, and two that may carry half a core each.
    assert_eq!(measure(&mut scene, 0, 30), 2);
    // Of others, and of those that end, nobody wants to know.
    let stranger = TaskUsage { task: tasks[0].0, nano_cpus: 90_000_000_000, milli_connections: None };
    for _ in 0..20 {
        scene.tell(Event::Usage(NodeId(99), vec![stranger]));
        scene.pass(TWO_SECONDS);
    }
    assert_eq!(replicas(&scene, web), 2);
}

#[test]
fn what_tasks_that_end_carry_still_counts_as_what_others_will_have_to() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    scene.work();
    let tasks = running(&scene, web);
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 3 });
    // One of four ends slowly. What the other three carry, two could.
    for _ in 0..20 {
        for (task, node) in &tasks {
            let usage = TaskUsage { task: *task, nano_cpus: 30 * HUNDREDTH, milli_connections: None };
            scene.tell(Event::Usage(*node, vec![usage]));
        }
        scene.pass(TWO_SECONDS);
    }
    assert_eq!((replicas(&scene, web), running(&scene, web).len()), (3, 3));
}

#[test]
fn a_number_that_is_changed_and_changed_back_begins_the_windows_anew() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[("skep.autoscale.max", "2")]));
    load(&mut scene, web, 22, (10, None));
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 7 });
    assert_eq!(replicas(&scene, web), 2);
    load(&mut scene, web, 18, (10, None));
    assert_eq!(replicas(&scene, web), 2);
    load(&mut scene, web, 6, (10, None));
    assert_eq!(replicas(&scene, web), 1);
}

#[test]
fn scaling_leaves_an_update_and_the_way_back_alone() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    scene.work();
    scene.update(web, |spec| {
        spec.update.delay = Duration::from_secs(100);
        task_spec(spec, |task| task.container.image = "image:2".to_owned());
    });
    load(&mut scene, web, 20, (260, None));
    let service = scene.objects().service(web).unwrap();
    assert_eq!(service.update_status.as_ref().unwrap().message, "update in progress");
    assert!(scene.objects().rollout(web).is_some_and(|rollout| rollout.has_begun()));
    assert_eq!(replicas(&scene, web), 6);
    let previous = service.previous_spec.as_ref().unwrap();
    assert_eq!((previous.mode, previous.task.container.image.as_str()), (service.spec.mode, "image:1"));
    // Nothing is taken away in the middle of it.
    load(&mut scene, web, 60, (10, None));
    assert_eq!(replicas(&scene, web), 6);
    load(&mut scene, web, 200, (10, None));
    assert_eq!(replicas(&scene, web), 1);
}

#[test]
fn nothing_is_proposed_while_nothing_changes() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[]));
    load(&mut scene, web, 10, (90, None));
    let applied = scene.objects().applied();
    load(&mut scene, web, 600, (90, None));
    assert_eq!(scene.objects().applied(), applied);
    // And nothing is looked at once nothing is measured.
    scene.pass(Duration::from_secs(10));
    assert_eq!(scene.wake_at, None);
}

#[test]
fn who_asks_why_is_told() {
    let mut scene = Scene::of(3);
    let web = scene.create(scaled(&[("skep.autoscale.rps", "100")]));
    scene.work();
    let told = |scene: &Scene| why_service(scene.objects(), web, scene.now)[1].clone();
    expect![[r#"its load decides how many tasks it has, from 1 to 10, 0.50 CPUs each, 100 connections a second each; it asked for no other number yet"#]].assert_eq(&told(&scene));
    load(&mut scene, web, 14, (260, Some(10)));
    expect![[r#"its load decides how many tasks it has, from 1 to 10, 0.50 CPUs each, 100 connections a second each; last from 2 to 6, 2 s ago: 2 tasks use 2.60 CPUs, and each is to use 0.50; at least 6 were needed for 6s"#]].assert_eq(&told(&scene));
}

#[test]
fn only_services_with_replicas_are_scaled() {
    let mut scene = Scene::of(1);
    let mut refused =
        |spec: ServiceSpec| scene.ask(Request::CreateService(Box::new(spec))).unwrap_err().message;
    expect![[r#"label skep.autoscale.max: only a service with replicas is scaled (--mode replicated)"#]]
        .assert_eq(&refused(ServiceSpec { mode: ServiceMode::Global, ..scaled(&[]) }));
    expect![[r#"label skep.autoscale.max: 100001 replicas are more than the 100000 of one service"#]]
        .assert_eq(&refused(scaled(&[("skep.autoscale.max", "100001")])));
    expect![[r#"label skep.autoscale.min: 11 is more than skep.autoscale.max, 10"#]]
        .assert_eq(&refused(scaled(&[("skep.autoscale.min", "11")])));
}
