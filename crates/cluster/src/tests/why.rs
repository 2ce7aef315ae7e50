//! Explanations, word for word, how far services are, and balance on request.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::node::Availability;
use skep_types::{NodeId, ServiceId, TaskState};

use super::scene::{Scene, spec, task_spec};
use crate::{Convergence, Request, convergence, why_node, why_service, why_task};

fn progress(scene: &Scene, service: ServiceId) -> Convergence {
    convergence(scene.objects(), scene.objects().service(service).unwrap())
}

fn tell(lines: &[String], expected: Expect) {
    expected.assert_eq(&lines.join("\n"));
}

fn counts(scene: &Scene, service: ServiceId) -> Vec<usize> {
    let on = |node: u128| {
        let tasks = scene.objects().tasks_of(service).filter(|task| task.desired <= TaskState::Running);
        tasks.filter(|task| task.node == Some(NodeId(node))).count()
    };
    (1..=3).map(on).collect()
}

#[test]
fn a_task_without_a_node_is_told_what_each_node_lacks() {
    let mut scene = Scene::of(4);
    scene.change_node(1, |spec| spec.availability = Availability::Drain).unwrap();
    let mut full = spec("full", 1);
    task_spec(&mut full, |task| {
        task.reservations.nano_cpus = 3_500_000_000;
        task.placement.constraints = vec!["node.hostname==n2".parse().unwrap()];
    });
    scene.create(full);
    let mut web = spec("web", 2);
    task_spec(&mut web, |task| {
        task.reservations.nano_cpus = 1_000_000_000;
        task.placement.constraints = vec!["node.hostname!=n4".parse().unwrap()];
        task.placement.max_replicas = 1;
    });
    let web = scene.create(web);
    scene.work();
    let waiting = scene.objects().tasks_of(web).find(|task| task.node.is_none()).unwrap();
    let lines = why_task(scene.objects(), waiting.id, scene.now);
    tell(
        &lines[1..],
        expect![[r#"
            it is wanted running; last: pending task scheduling: no suitable node (1 node not available for new tasks; insufficient resources on 1 node; scheduling constraints not satisfied on 1 node; max replicas per node limit exceed)
              node n1: its availability is drain
              node n2: asks for 1000 thousandths of a CPU, and 500 of 4000 are free
              node n3: has 1 tasks of the service, and a node may have 1
              node n4: is not node.hostname!=n4"#]],
    );
    tell(
        &why_service(scene.objects(), web, scene.now),
        expect![[r#"
            web is not yet as its specification asks: 1 of 2 tasks run: no suitable node (1 node not available for new tasks; insufficient resources on 1 node; scheduling constraints not satisfied on 1 node; max replicas per node limit exceed)
              1 have no node: pending task scheduling: no suitable node (1 node not available for new tasks; insufficient resources on 1 node; scheduling constraints not satisfied on 1 node; max replicas per node limit exceed)
              1 on node n3
            one more task could not go everywhere: 1 node not available for new tasks; insufficient resources on 1 node; scheduling constraints not satisfied on 1 node; max replicas per node limit exceed"#]],
    );
    tell(
        &why_node(scene.objects(), NodeId(3), scene.now),
        expect![[r#"
            n3 answers; it takes tasks
            1 tasks; reserved: 1000 of 4000 thousandths of a CPU, 0 of 8192 MiB of memory
              1 of web"#]],
    );
}

#[test]
fn a_service_converges_and_a_paused_update_fails() {
    let mut scene = Scene::of(1);
    let web = scene.create(spec("web", 2));
    assert_eq!(progress(&scene, web), Convergence::Waiting("0 of 2 tasks run".to_owned()));
    scene.work();
    assert_eq!(progress(&scene, web), Convergence::Converged);
    scene.update(web, |spec| task_spec(spec, |task| task.container.image = "missing:1".to_owned()));
    assert_eq!(progress(&scene, web), Convergence::Waiting("update in progress".to_owned()));
    let task = scene.task(web, 1).id;
    scene.report(&[task], TaskState::Rejected, "No such image: missing:1");
    let message = format!("update paused due to failure or early termination of task {task}");
    assert_eq!(progress(&scene, web), Convergence::Failed(message));
}

#[test]
fn a_node_that_comes_back_gets_its_share_on_request_one_after_the_other() {
    let mut scene = Scene::of(3);
    scene.change_node(3, |spec| spec.availability = Availability::Drain).unwrap();
    let web = scene.create(spec("web", 6));
    scene.work();
    assert_eq!(counts(&scene, web), [3, 3, 0]);
    scene.change_node(3, |spec| spec.availability = Availability::Active).unwrap();
    assert_eq!(counts(&scene, web), [3, 3, 0], "nothing moves by itself");
    scene.ask(Request::Rebalance(web)).unwrap();
    let started = |scene: &Scene| scene.objects().rollout(web).map(|rollout| rollout.slots);
    assert_eq!(started(&scene), Some(2));
    for _ in 0..6 {
        // One at a time, as the service's updates go.
        let renewed = scene.objects().rollout(web).map_or(0, |rollout| rollout.holding.len());
        assert!(renewed <= 1);
        scene.work();
        scene.pass(Duration::from_secs(6));
    }
    assert_eq!(counts(&scene, web), [2, 2, 2]);
    assert_eq!(progress(&scene, web), Convergence::Converged);
    let applied = scene.objects().applied();
    scene.ask(Request::Rebalance(web)).unwrap();
    assert_eq!(scene.objects().applied(), applied, "there is nothing left to move");
}
