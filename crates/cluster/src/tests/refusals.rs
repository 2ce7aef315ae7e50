//! What is refused, and in which words.

use expect_test::{Expect, expect};
use skep_types::mount::{Mount, MountSource};
use skep_types::service::{ServiceMode, ServiceSpec};
use skep_types::{ServiceId, Task, Version};

use super::scene::{Scene, port, spec, task_spec};
use crate::{Answer, Event, RefusalKind, Request, RequestId};

fn check(change: impl FnOnce(&mut ServiceSpec), expected: Expect) {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 1);
    web.ports = vec![port(80, 8080)];
    scene.create(web);
    let mut other = spec("other", 1);
    change(&mut other);
    let refusal = scene.ask(Request::CreateService(Box::new(other))).unwrap_err();
    let web = scene.objects().service_named("web").unwrap().id;
    expected.assert_eq(&format!("{:?}: {refusal}", refusal.kind).replace(&web.to_string(), "ID"));
    assert_eq!(scene.objects().services().count(), 1);
}

/// Only where a template may ask for them: there may be thousands of tasks.
#[test]
fn tasks_carry_their_service_s_labels_for_templates() {
    for (hostname, carried) in [("{{.Service.Labels.tier}}", 1), ("plain", 0)] {
        let mut scene = Scene::of(1);
        let mut spec = spec("web", 1);
        spec.labels = [("tier".to_owned(), "front".to_owned())].into();
        task_spec(&mut spec, |task| task.container.hostname = hostname.to_owned());
        scene.create(spec);
        let carries = |task: &Task| task.service_labels.len() == carried;
        assert!(
            scene.objects().tasks().next().is_some() && scene.objects().tasks().all(carries),
            "{hostname}"
        );
    }
}

#[test]
fn names() {
    check(|spec| spec.name = String::new(), expect!["Invalid: meta: name must be provided"]);
    check(
        |spec| spec.name = "a.b".to_owned(),
        expect!["Invalid: name must be valid as a DNS name component"],
    );
    check(|spec| spec.name = "-a".to_owned(), expect!["Invalid: name must be valid as a DNS name component"]);
    check(|spec| spec.name = "a".repeat(64), expect!["Invalid: name must be 63 characters or fewer"]);
    check(
        |spec| spec.name = "web".to_owned(),
        expect!["Conflict: name conflicts with an existing object: service web already exists"],
    );
}

#[test]
fn ports() {
    check(
        |spec| spec.ports = vec![port(80, 8080)],
        expect!["Invalid: port '8080' is already in use by service 'web' (ID) as an ingress port"],
    );
    check(
        |spec| spec.ports = vec![port(80, 81), port(82, 81)],
        expect!["Invalid: EndpointSpec: duplicate published ports provided"],
    );
    check(
        |spec| spec.ports = vec![port(0, 81)],
        expect!["Invalid: EndpointSpec: target port must be provided"],
    );
}

#[test]
fn the_rest_of_a_specification() {
    check(
        |spec| task_spec(spec, |task| task.container.image.clear()),
        expect!["Invalid: ContainerSpec: image reference must be provided"],
    );
    check(
        |spec| task_spec(spec, |task| task.limits.nano_cpus = 1000),
        expect!["Invalid: invalid cpu value 0.000001: Must be at least 0.001"],
    );
    check(
        |spec| task_spec(spec, |task| task.reservations.memory_bytes = 1024),
        expect!["Invalid: invalid memory value 1024: Must be at least 4MiB"],
    );
    check(
        |spec| spec.mode = ServiceMode::Replicated { replicas: u64::MAX },
        expect!["Invalid: Mode: 18446744073709551615 replicas are more than the 100000 of one service"],
    );
    check(
        |spec| task_spec(spec, |task| task.container.env = vec!["x".repeat(1 << 20)]),
        expect!["Invalid: the specification holds 1048679 bytes of text, more than the 1048576 it may"],
    );
    check(
        |spec| task_spec(spec, |task| task.container.hostname = "{{.Service.Labels.tier}}".to_owned()),
        expect![[r#"Invalid: expanding hostname failed: template: map has no entry for key "tier""#]],
    );
    check(
        |spec| spec.update.max_failure_permille = 1001,
        expect!["Invalid: TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"],
    );
    let mount = || Mount {
        target: "/data".into(),
        source: MountSource::Tmpfs { size_bytes: 0, mode: 0 },
        read_only: false,
    };
    check(
        |spec| task_spec(spec, |task| task.container.mounts = vec![mount(), mount()]),
        expect!["Invalid: ContainerSpec: duplicate mount point: /data"],
    );
}

#[test]
fn a_stale_version_is_out_of_sequence() {
    let mut scene = Scene::of(1);
    let id = scene.create(spec("web", 1));
    let version = scene.objects().service(id).unwrap().meta.version;
    let update = |replicas| Request::UpdateService { id, version, spec: Box::new(spec("web", replicas)) };
    assert_eq!(scene.ask(update(2)), Ok(Answer::Done));
    let refusal = scene.ask(update(3)).unwrap_err();
    assert_eq!(
        (refusal.kind, refusal.message.as_str()),
        (RefusalKind::OutOfSequence, "update out of sequence")
    );
    let missing = ServiceId(9);
    let request = Request::UpdateService { id: missing, version: Version(1), spec: Box::new(spec("web", 1)) };
    let refusal = scene.ask(request).unwrap_err();
    assert_eq!(
        (refusal.kind, refusal.message),
        (RefusalKind::NotFound, format!("service {missing} not found"))
    );
}

#[test]
fn requests_of_one_batch_see_each_other() {
    let mut scene = Scene::of(1);
    let asked = |number, request| Event::Request(RequestId(number), request);
    let create = |name: &str| {
        let mut spec = spec(name, 0);
        spec.ports = vec![port(80, 9000)];
        Request::CreateService(Box::new(spec))
    };
    // The first proposal is in flight while the others arrive; they are decided together.
    let first = Request::CreateService(Box::new(spec("first", 0)));
    let output = scene.cluster.step(asked(100, first), scene.now, &mut scene.ids);
    assert_eq!((output.propose.len(), output.replies.len()), (1, 0));
    for (number, name) in [(101, "twin"), (102, "twin"), (103, "sibling")] {
        let output = scene.cluster.step(asked(number, create(name)), scene.now, &mut scene.ids);
        assert_eq!((output.propose.len(), output.replies.len()), (0, 0));
    }
    let index = scene.objects().applied() + 1;
    let replies = scene.cluster.step(Event::Committed { index }, scene.now, &mut scene.ids);
    assert_eq!((replies.propose.len(), replies.replies.len()), (1, 1));
    let output = scene.cluster.step(Event::Committed { index: index + 1 }, scene.now, &mut scene.ids);
    let results: Vec<String> = output
        .replies
        .iter()
        .map(|reply| match &reply.result {
            Ok(_) => format!("{}: done", reply.to.0),
            Err(refusal) => format!("{}: {refusal}", reply.to.0),
        })
        .collect();
    expect![[r#"
        101: done
        102: name conflicts with an existing object: service twin already exists
        103: port '9000' is already in use by a service that is being created"#]]
    .assert_eq(&results.join("\n"));
}

#[test]
fn a_log_that_refuses_undoes_nothing_and_is_asked_again() {
    let mut scene = Scene::of(1);
    let request = Request::CreateService(Box::new(spec("web", 1)));
    let output = scene.cluster.step(Event::Request(RequestId(50), request), scene.now, &mut scene.ids);
    assert_eq!(output.propose.len(), 1);
    let refused = Event::Refused { reason: "no space left on device".to_owned() };
    let output = scene.cluster.step(refused, scene.now, &mut scene.ids);
    assert_eq!(output.propose, []);
    let refusal = output.replies[0].result.as_ref().unwrap_err();
    assert_eq!((refusal.kind, refusal.message.as_str()), (RefusalKind::Log, "no space left on device"));
    assert_eq!(output.wake_at, Some(scene.now + std::time::Duration::from_secs(1)));
    assert_eq!(scene.objects().services().count(), 0);
}

#[test]
fn many_requests_are_all_answered() {
    let mut scene = Scene::of(1);
    let first = Request::CreateService(Box::new(spec("first", 0)));
    scene.cluster.step(Event::Request(RequestId(1000), first), scene.now, &mut scene.ids);
    for number in 0..200 {
        // Every second one is refused.
        let request = Request::CreateService(Box::new(spec(&format!("s{}", number / 2), 0)));
        scene.cluster.step(Event::Request(RequestId(1001 + number), request), scene.now, &mut scene.ids);
    }
    let mut answered = 0;
    let mut entries = 0;
    loop {
        let index = scene.objects().applied() + 1;
        let output = scene.cluster.step(Event::Committed { index }, scene.now, &mut scene.ids);
        answered += output.replies.len();
        entries += 1;
        if output.propose.is_empty() {
            break;
        }
    }
    assert_eq!((answered, scene.objects().services().count()), (201, 101));
    assert!(entries <= 6, "{entries}");
}
