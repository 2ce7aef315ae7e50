//! Requests that are only played: what is told of them is what would come of them, and nothing comes of it.

use expect_test::{Expect, expect};
use skep_types::network::NetworkSpec;
use skep_types::service::{NetworkAttachment, PublishMode, ServiceMode, ServiceSpec, TaskSpec};

use super::scene::{Scene, port, spec, task_spec};
use crate::{Effect, rehearse};

fn check_update(scene: &Scene, change: impl FnOnce(&mut ServiceSpec), expected: Expect) {
    let service = scene.objects().service_named("web").unwrap();
    let mut spec = service.spec.clone();
    change(&mut spec);
    let played = rehearse(scene.objects(), scene.now, |rehearsal| rehearsal.update_service(service.id, spec));
    expected.assert_eq(&match played {
        Ok(Effect { tasks, replaced, runs_again }) => format!("{replaced} of {tasks}, again: {runs_again}"),
        Err(refusal) => refusal.message,
    });
}

#[test]
fn an_update_s_effect_on_tasks_is_told() {
    let mut scene = Scene::of(2);
    scene.create(spec("web", 3));
    scene.create(ServiceSpec { ports: vec![port(80, 8080)], ..spec("other", 1) });
    scene.work();
    check_update(&scene, |_| {}, expect!["0 of 3, again: false"]);
    let image = |spec: &mut ServiceSpec| task_spec(spec, |task| task.container.image = "image:2".to_owned());
    check_update(&scene, image, expect!["3 of 3, again: false"]);
    let replicas = |spec: &mut ServiceSpec| spec.mode = ServiceMode::Replicated { replicas: 5 };
    check_update(&scene, replicas, expect!["0 of 3, again: false"]);
    let fewer = |spec: &mut ServiceSpec| {
        image(spec);
        spec.mode = ServiceMode::Replicated { replicas: 1 };
    };
    check_update(&scene, fewer, expect!["1 of 3, again: false"]);
    let label = |spec: &mut ServiceSpec| drop(spec.labels.insert("a".to_owned(), "b".to_owned()));
    check_update(&scene, label, expect!["0 of 3, again: false"]);
    // Only the tasks elsewhere.
    let constraint = |spec: &mut ServiceSpec| {
        task_spec(spec, |task| task.placement.constraints = vec!["node.hostname==n1".parse().unwrap()]);
    };
    let here = scene.objects().tasks().filter(|task| task.node.is_some_and(|node| node.0 == 1)).count();
    check_update(&scene, constraint, expect!["1 of 3, again: false"]);
    assert!(here > 0);
    // Tasks that nobody had to reach from outside have no address there.
    let publish = |spec: &mut ServiceSpec| spec.ports = vec![port(80, 9090)];
    check_update(&scene, publish, expect!["3 of 3, again: false"]);
    let host = |spec: &mut ServiceSpec| {
        spec.ports = vec![skep_types::service::PortSpec { mode: PublishMode::Host, ..port(80, 9090) }];
    };
    check_update(&scene, host, expect!["3 of 3, again: false"]);
    let taken = |spec: &mut ServiceSpec| spec.ports = vec![port(80, 8080)];
    check_update(
        &scene,
        taken,
        expect![
            "port '8080' is already in use by service 'other' (3s3bi4awn8iwysusy59mtrweg) as an ingress port"
        ],
    );
    let global = |spec: &mut ServiceSpec| spec.mode = ServiceMode::Global;
    check_update(&scene, global, expect!["service mode change is not allowed"]);
}

#[test]
fn a_whole_deployment_is_played_and_nothing_comes_of_it() {
    let mut scene = Scene::of(1);
    let old = scene.create(ServiceSpec { ports: vec![port(80, 8080)], ..spec("old", 2) });
    let other = scene.create(spec("other", 1));
    scene.work();
    let before = scene.objects().clone();
    rehearse(scene.objects(), scene.now, |rehearsal| {
        assert_eq!(rehearsal.remove_service(old), Ok(Effect { tasks: 2, ..Effect::default() }));
        let made = NetworkSpec { name: "front".to_owned(), ..NetworkSpec::default() };
        let network = rehearsal.create_network(made.clone()).unwrap().unwrap();
        assert_eq!(
            rehearsal.create_network(made).unwrap_err().message,
            "network with name front already exists"
        );
        let mut new = spec("new", 1);
        let on =
            |task: &mut TaskSpec| task.networks = vec![NetworkAttachment { network, aliases: Vec::new() }];
        task_spec(&mut new, on);
        assert_eq!(rehearsal.create_service(new.clone()), Ok(()));
        let twice = rehearsal.create_service(new).unwrap_err().message;
        let mut other = scene.objects().service(other).unwrap().spec.clone();
        task_spec(&mut other, on);
        let other = rehearsal.update_service(scene.objects().service_named("other").unwrap().id, other);
        assert_eq!(other, Ok(Effect { tasks: 1, replaced: 1, runs_again: false }));
        assert_eq!(twice, "name conflicts with an existing object: service new already exists");
    });
    assert!(before == *scene.objects());
}
