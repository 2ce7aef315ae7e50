//! Preferences, bounds for each node, generic resources, drivers, failing nodes and ties: which node is taken.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::generic::GenericResources;
use skep_types::mount::{Mount, MountSource};
use skep_types::node::Availability;
use skep_types::node::{Node, NodeDescription, Plugin, PluginKind};
use skep_types::placement::Preference;
use skep_types::service::{ServiceSpec, UpdateOrder};
use skep_types::{ServiceId, TaskState};

use super::scene::{Scene, node, spec, task_spec};
use crate::{Cluster, Event, Objects, Request, check};

fn prefer(spec: &mut ServiceSpec, labels: &[&str]) {
    let preferences = labels.iter().map(|label| Preference { spread: (*label).to_owned() }).collect();
    task_spec(spec, |task| task.placement.preferences = preferences);
}

fn label(scene: &mut Scene, number: u64, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    scene.change_node(number, |spec| spec.labels = labels).unwrap();
}

/// A node tells something else of itself.
fn describe(scene: &mut Scene, number: u64, change: impl FnOnce(&mut NodeDescription)) {
    let Node { id, mut description, address, .. } = node(number);
    change(&mut description);
    scene.tell(Event::NodeReady { node: id, description: Box::new(description), address, data_path: None });
}

/// The node of each wanted task, by slot; 0 is none.
fn nodes(scene: &Scene, service: ServiceId) -> Vec<u128> {
    let wanted = scene.objects().tasks_of(service).filter(|task| task.desired <= TaskState::Running);
    wanted.map(|task| task.node.map_or(0, |node| node.0)).collect()
}

fn fail(scene: &mut Scene, service: ServiceId, slot: u64) {
    let task = scene.task(service, slot).id;
    scene.report(&[task], TaskState::Failed, "task: non-zero exit (1)");
}

fn error(scene: &Scene, service: ServiceId) -> String {
    let mut waiting = scene.objects().tasks_of(service).filter(|task| task.node.is_none());
    waiting.next().map(|task| task.status.error.clone()).unwrap_or_default()
}

#[test]
fn branches_get_the_same_whatever_their_number_of_nodes() {
    let mut scene = Scene::of(5);
    for (number, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "b")] {
        label(&mut scene, number, &[("rack", rack)]);
    }
    let mut web = spec("web", 9);
    prefer(&mut web, &["node.labels.rack"]);
    let web = scene.create(web);
    let mut nodes = nodes(&scene, web);
    nodes.sort();
    // Node 5 has no such label and is a branch of its own.
    assert_eq!(nodes, [1, 1, 1, 2, 3, 4, 5, 5, 5]);
}

#[test]
fn a_second_preference_divides_each_branch_of_the_first() {
    let mut scene = Scene::of(4);
    for (number, hall, rack) in [(1, "x", "1"), (2, "x", "2"), (3, "x", "2"), (4, "y", "1")] {
        label(&mut scene, number, &[("hall", hall), ("rack", rack)]);
    }
    let mut web = spec("web", 8);
    prefer(&mut web, &["node.labels.hall", "engine.labels.none", "node.labels.rack"]);
    let web = scene.create(web);
    let mut found = nodes(&scene, web);
    found.sort();
    assert_eq!(found, [1, 1, 2, 3, 4, 4, 4, 4]);
    // What is no label, and what no node has, changes nothing.
    let mut other = spec("other", 4);
    prefer(&mut other, &["node.hostname", "node.labels.none"]);
    let other = scene.create(other);
    let mut found = nodes(&scene, other);
    found.sort();
    assert_eq!(found, [1, 2, 3, 4]);
}

#[test]
fn a_branch_without_room_leaves_its_share_to_the_others() {
    let mut scene = Scene::of(3);
    for (number, rack) in [(1, "a"), (2, "a"), (3, "b")] {
        label(&mut scene, number, &[("rack", rack)]);
    }
    let mut web = spec("web", 6);
    prefer(&mut web, &["node.labels.rack"]);
    task_spec(&mut web, |task| task.placement.max_replicas = 2);
    let web = scene.create(web);
    let mut found = nodes(&scene, web);
    found.sort();
    assert_eq!(found, [1, 1, 2, 2, 3, 3]);
}

#[test]
fn services_of_one_replica_do_not_all_go_to_the_first_branch() {
    let mut scene = Scene::of(2);
    label(&mut scene, 1, &[("rack", "a")]);
    label(&mut scene, 2, &[("rack", "b")]);
    let found: Vec<_> = ["one", "two", "three", "four"]
        .map(|name| {
            let mut one = spec(name, 1);
            prefer(&mut one, &["node.labels.rack"]);
            let one = scene.create(one);
            nodes(&scene, one)[0]
        })
        .into();
    assert_eq!(found, [1, 2, 1, 2]);
}

#[test]
fn a_node_has_no_more_than_its_bound_and_takes_another_when_one_leaves() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 5);
    task_spec(&mut web, |task| task.placement.max_replicas = 2);
    let web = scene.create(web);
    assert_eq!(nodes(&scene, web), [1, 2, 1, 2, 0]);
    expect!["no suitable node (max replicas per node limit exceed)"].assert_eq(&error(&scene, web));
    scene.work();
    // The failed one is replaced first, as its slot asks; both cannot be.
    fail(&mut scene, web, 1);
    scene.pass(Duration::from_secs(6));
    assert_eq!(nodes(&scene, web).iter().filter(|node| **node == 1).count(), 2);
    assert_eq!(check(scene.objects()), []);
}

#[test]
fn an_update_under_a_bound_takes_the_places_that_it_frees() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 2);
    task_spec(&mut web, |task| task.placement.max_replicas = 1);
    let web = scene.create(web);
    scene.work();
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    for _ in 0..4 {
        scene.work();
        scene.pass(Duration::from_secs(10));
    }
    let mut found = nodes(&scene, web);
    found.sort();
    assert_eq!(found, [1, 2]);
    assert!(scene.objects().rollout(web).is_none());
}

#[test]
fn what_a_batch_tells_to_end_no_longer_counts_where_its_successors_are_spread() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut scene = Scene::of(3);
        let mut web = spec("web", 3);
        web.update.order = order;
        web.update.parallelism = 0;
        let web = scene.create(web);
        scene.work();
        scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
        for _ in 0..3 {
            scene.work();
            scene.pass(Duration::from_secs(10));
        }
        let mut found = nodes(&scene, web);
        found.sort();
        assert_eq!(found, [1, 2, 3], "{order:?}");
    }
}

#[test]
fn generic_resources_are_given_out_once_and_come_back() {
    let mut scene = Scene::of(2);
    let has = |terms: &[&str]| GenericResources::parse(terms.iter().copied()).unwrap();
    describe(&mut scene, 1, |it| it.generic = has(&["gpu=a", "gpu=b", "gpu=c"]));
    describe(&mut scene, 2, |it| it.generic = has(&["gpu=2", "apple=1"]));
    let mut web = spec("web", 3);
    task_spec(&mut web, |task| {
        task.generic = [("gpu".to_owned(), 2)].into();
        task.restart.delay = Duration::ZERO;
    });
    let web = scene.create(web);
    let given = |scene: &Scene| -> Vec<String> {
        let tasks = scene.objects().tasks_of(web).filter(|task| task.desired <= TaskState::Running);
        tasks.map(|task| task.generic.env().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(given(&scene), ["DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_GPU=2", ""]);
    expect!["no suitable node (insufficient resources on 2 nodes)"].assert_eq(&error(&scene, web));
    scene.work();
    fail(&mut scene, web, 1);
    scene.work();
    // Whichever of the two that wait comes first, one of them has what was free.
    assert_eq!(given(&scene).iter().filter(|given| *given == "DOCKER_RESOURCE_GPU=a,b").count(), 1);
    let restored = Objects::restore(scene.objects().snapshot()).unwrap();
    assert_eq!(&restored, scene.objects());
}

#[test]
fn a_node_that_lacks_a_driver_is_passed_over() {
    let mut scene = Scene::of(2);
    let plugin = |kind, name: &str| Plugin { kind, name: name.to_owned() };
    for number in 1..=2 {
        describe(&mut scene, number, |it| {
            it.plugins = [plugin(PluginKind::Network, "overlay")].into();
            if number == 2 {
                it.plugins.insert(plugin(PluginKind::Volume, "local"));
            }
        });
    }
    let mut web = spec("web", 1);
    let volume = MountSource::Volume { name: "data".to_owned(), no_copy: false, labels: Default::default() };
    let mount = Mount { target: "/data".into(), source: volume, read_only: false };
    task_spec(&mut web, |task| task.container.mounts = vec![mount]);
    let one = scene.create(web.clone());
    assert_eq!(nodes(&scene, one), [2]);
    web.name = "other".to_owned();
    scene.change_node(2, |spec| spec.availability = skep_types::node::Availability::Pause).unwrap();
    let other = scene.create(web);
    expect!["no suitable node (1 node not available for new tasks; missing plugin on 1 node)"]
        .assert_eq(&error(&scene, other));
}

#[test]
fn a_node_where_tasks_failed_five_times_in_five_minutes_comes_last_also_for_the_next_leader() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 1);
    task_spec(&mut web, |task| task.restart.delay = Duration::ZERO);
    // Whatever runs on node 2 makes node 1 the better choice each time.
    let mut weight = spec("weight", 1);
    task_spec(&mut weight, |task| task.placement.constraints = vec!["node.hostname==n2".parse().unwrap()]);
    scene.create(weight);
    let web = scene.create(web);
    scene.work();
    for count in 0..5 {
        assert_eq!(nodes(&scene, web), [1], "after {count} failures");
        fail(&mut scene, web, 1);
        scene.work();
        scene.pass(Duration::from_secs(1));
    }
    assert_eq!(nodes(&scene, web), [2]);
    scene.cluster = Cluster::new(Objects::restore(scene.objects().snapshot()).unwrap());
    scene.tell(Event::Started);
    for number in 1..=2 {
        scene.ready(number);
    }
    scene.work();
    fail(&mut scene, web, 1);
    scene.work();
    assert_eq!(nodes(&scene, web), [2]);
    // After five minutes all is forgiven.
    scene.pass(Duration::from_secs(301));
    fail(&mut scene, web, 1);
    scene.work();
    assert_eq!(nodes(&scene, web), [1]);
    // A new specification starts from nothing anyway.
    for _ in 0..5 {
        fail(&mut scene, web, 1);
        scene.work();
    }
    assert_eq!(nodes(&scene, web), [2]);
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    scene.work();
    assert_eq!(nodes(&scene, web), [1]);
}

#[test]
fn ties_go_to_the_node_with_the_most_free() {
    let mut scene = Scene::of(3);
    describe(&mut scene, 3, |it| it.memory_bytes = 16 << 30);
    describe(&mut scene, 2, |it| it.nano_cpus = 5_000_000_000);
    let web = scene.create(spec("web", 4));
    assert_eq!(nodes(&scene, web), [3, 2, 1, 3]);
}

fn check_reason(change: impl FnOnce(&mut ServiceSpec), expected: Expect) {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 1);
    change(&mut web);
    let web = scene.create(web);
    expected.assert_eq(&error(&scene, web));
}

#[test]
fn every_reason_has_swarmkit_s_words() {
    check_reason(
        |spec| task_spec(spec, |task| task.generic = [("gpu".to_owned(), 1)].into()),
        expect!["no suitable node (insufficient resources on 2 nodes)"],
    );
    check_reason(
        |spec| task_spec(spec, |task| task.reservations.memory_bytes = 1 << 40),
        expect!["no suitable node (insufficient resources on 2 nodes)"],
    );
}

#[test]
fn what_is_to_move_moves_also_where_its_successor_is_started_first() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 4);
    web.update.order = UpdateOrder::StartFirst;
    let web = scene.create(web);
    scene.work();
    scene.ask(Request::AddNode(Box::new(node(2)))).unwrap();
    scene.ready(2);
    scene.ask(Request::Rebalance(web)).unwrap();
    for _ in 0..10 {
        scene.work();
        scene.pass(Duration::from_secs(5));
    }
    let mut nodes = nodes(&scene, web);
    nodes.sort();
    assert_eq!(nodes, [1, 1, 2, 2]);
    assert!(scene.objects().rollout(web).is_none());
}

#[test]
fn both_tasks_of_a_slot_that_moves_count_as_one_where_balance_is_asked_for_again() {
    let mut scene = Scene::of(3);
    scene.change_node(3, |spec| spec.availability = Availability::Drain).unwrap();
    let mut web = spec("web", 6);
    web.update.order = UpdateOrder::StartFirst;
    web.update.parallelism = 2;
    let web = scene.create(web);
    scene.work();
    scene.change_node(3, |spec| spec.availability = Availability::Active).unwrap();
    scene.ask(Request::Rebalance(web)).unwrap();
    let made = |scene: &Scene| scene.objects().tasks_of(web).count();
    let moving = |scene: &Scene| scene.objects().tasks_of(web).filter(|task| task.moves).count();
    // Both successors are there, and what they replace runs still.
    assert_eq!((made(&scene), moving(&scene)), (8, 2));
    let applied = scene.objects().applied();
    scene.ask(Request::Rebalance(web)).unwrap();
    assert_eq!((scene.objects().applied(), moving(&scene)), (applied, 2));
}
