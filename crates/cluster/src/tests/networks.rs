//! Networks of one's own: created, refused, removed; addresses, names and guests on them, and who is told.

use std::net::Ipv4Addr;

use expect_test::expect;
use skep_types::assignment::Duty;
use skep_types::network::{NetworkSpec, Stay};
use skep_types::service::{EndpointMode, NetworkAttachment, PublishMode, ServiceMode, UpdateOrder};
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId, TaskState};

use super::scene::{Scene, port, spec, task_spec};
use crate::{Answer, Objects, Refusal, Request, tables};

fn network(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
}

fn lan(scene: &mut Scene, spec: NetworkSpec) -> NetworkId {
    match scene.ask(Request::CreateNetwork(Box::new(spec))) {
        Ok(Answer::Network(id)) => id,
        other => panic!("the network was not created: {other:?}"),
    }
}

fn refused(result: Result<Answer, Refusal>) -> String {
    result.expect_err("it is refused").message
}

fn on(networks: &[NetworkId]) -> Vec<NetworkAttachment> {
    networks.iter().map(|network| NetworkAttachment { network: *network, aliases: Vec::new() }).collect()
}

fn service_on(scene: &mut Scene, name: &str, replicas: u64, networks: &[NetworkId]) -> ServiceId {
    let mut wanted = spec(name, replicas);
    task_spec(&mut wanted, |task| task.networks = on(networks));
    scene.create(wanted)
}

/// The names of the networks that a node is told of.
fn told(scene: &Scene, node: u128) -> Vec<String> {
    let duties = tables::all(scene.objects(), NodeId(node));
    let names = duties.into_iter().filter_map(|duty| match duty {
        Duty::Network(network) => Some(network.name),
        _ => None,
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn attach(node: u128, container: u8, network: NetworkId, address: Option<Ipv4Addr>) -> Request {
    let container = ContainerId([container; 32]);
    Request::Attach { node: NodeId(node), container, network, names: vec!["box".to_owned()], address }
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut scene = Scene::of(1);
    let a = lan(&mut scene, NetworkSpec { subnet: "10.9.0.0/24".parse().ok(), ..network("a") });
    let vni = scene.objects().network(a).expect("it is there").vni;
    assert_eq!(vni, 4097);
    let spec = |change: fn(&mut NetworkSpec)| {
        let mut spec = NetworkSpec { subnet: "10.8.0.0/24".parse().ok(), ..network("b") };
        change(&mut spec);
        Request::CreateNetwork(Box::new(spec))
    };
    for (request, expected) in [
        (spec(|it| it.name = "a".to_owned()), "network with name a already exists"),
        (spec(|it| it.name = "a b".to_owned()), "name must be valid as a DNS name component"),
        (
            spec(|it| it.subnet = "10.9.0.128/25".parse().ok()),
            "invalid pool request: Pool overlaps with other one on this address space: network a has 10.9.0.0/24",
        ),
        (spec(|it| it.vni = Some(4097)), "VXLAN identifier 4097 is already in use by network a"),
        (
            spec(|it| it.gateway = Some([10, 7, 0, 1].into())),
            "ipam configuration: subnet 10.8.0.0/24 does not contain gateway 10.7.0.1",
        ),
        (
            spec(|it| it.gateway = Some([10, 8, 0, 255].into())),
            "ipam configuration: invalid gateway 10.8.0.255",
        ),
        (
            spec(|it| it.range = "10.0.0.0/8".parse().ok()),
            "ipam configuration: subnet 10.8.0.0/24 does not contain range 10.0.0.0/8",
        ),
        (spec(|it| (it.ingress, it.attachable) = (true, true)), "ingress network cannot be attachable"),
        (
            spec(|it| it.subnet = "10.8.0.0/31".parse().ok()),
            "ipam configuration: subnet 10.8.0.0/31 has no address to give besides its gateway",
        ),
    ] {
        assert_eq!(refused(scene.ask(request)), expected);
    }
    let id = scene.objects().ingress().expect("it is there").id;
    let second = refused(scene.ask(spec(|it| it.ingress = true)));
    assert_eq!(second, format!("ingress network ({id}) is already present"));
}

#[test]
fn a_node_has_a_network_while_it_has_something_on_it() {
    let mut scene = Scene::of(2);
    let first = lan(&mut scene, network("first"));
    let second = lan(&mut scene, network("second"));
    assert_eq!(
        scene.objects().network(first).map(|it| it.subnet.to_string()),
        Some("10.0.1.0/24".to_owned())
    );
    assert_eq!(
        scene.objects().network(second).map(|it| it.subnet.to_string()),
        Some("10.0.2.0/24".to_owned())
    );
    assert_eq!(told(&scene, 1), ["ingress"]);
    let web = service_on(&mut scene, "web", 1, &[first]);
    scene.work();
    let node = scene.task(web, 1).node.expect("it has a node").0;
    assert_eq!(told(&scene, node), ["first", "ingress"]);
    assert_eq!(told(&scene, 3 - node), ["ingress"]);
    let record = scene.objects().record(web, first).expect("it has names");
    assert_eq!((record.virtual_ip, record.tasks.len()), (Some([10, 0, 1, 2].into()), 1));
    let in_use = refused(scene.ask(Request::RemoveNetwork(first)));
    assert_eq!(in_use, format!("network {first} is in use by service {web}"));
    // Tasks move to the other network.
    scene.update(web, |spec| task_spec(spec, |task| task.networks = on(&[second])));
    scene.work();
    scene.pass(std::time::Duration::from_secs(60));
    scene.work();
    let now_on = scene.task(web, 1).node.expect("it has a node").0;
    assert_eq!(told(&scene, now_on), ["ingress", "second"]);
    assert_eq!(scene.objects().service(web).map(|web| web.virtual_ips[0].network), Some(second));
    scene.ask(Request::RemoveNetwork(first)).expect("nothing uses it");
    scene.ask(Request::RemoveService(web)).expect("it is there");
    scene.ask(Request::RemoveNetwork(second)).expect("what is on its way out does not count");
    scene.work();
    assert_eq!(told(&scene, now_on), ["ingress"]);
    let restored = Objects::restore(scene.objects().snapshot()).expect("a snapshot is whole");
    assert_eq!(&restored, scene.objects());
    // Identifiers rest.
    let third = lan(&mut scene, network("third"));
    assert_eq!(scene.objects().network(third).map(|it| it.vni), Some(4099));
}

#[test]
fn addresses_come_from_the_range_and_their_lack_is_told_and_resolved() {
    let mut scene = Scene::of(1);
    let small = lan(
        &mut scene,
        NetworkSpec {
            subnet: "10.9.0.0/24".parse().ok(),
            range: "10.9.0.8/30".parse().ok(),
            gateway: Some([10, 9, 0, 9].into()),
            ..network("small")
        },
    );
    let mut web = spec("web", 3);
    web.endpoint_mode = EndpointMode::Dnsrr;
    task_spec(&mut web, |task| task.networks = on(&[small]));
    let web = scene.create(web);
    let db = service_on(&mut scene, "db", 0, &[]);
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    expect!["no available address on network small (10.9.0.8/30: 3 in use)"]
        .assert_eq(&scene.task(web, 4).status.error);
    let taken = refused(scene.ask(Request::UpdateService {
        id: db,
        version: scene.objects().service(db).expect("it is there").meta.version,
        spec: Box::new({
            let mut wanted = spec("db", 0);
            task_spec(&mut wanted, |task| task.networks = on(&[small]));
            wanted
        }),
    }));
    expect!["no available address on network small (10.9.0.8/30: 3 in use)"].assert_eq(&taken);
    scene.work();
    let first = scene.task(web, 1).id;
    let freed = scene.task(web, 1).attachments[0].address;
    scene.report(&[first], TaskState::Failed, "boom");
    let next = [1, 4].map(|slot| scene.task(web, slot).attachments.first().map(|given| given.address));
    assert!(next.contains(&Some(freed)), "{next:?}");
    assert_eq!(scene.objects().record(web, small).map(|record| record.virtual_ip), Some(None));
}

#[test]
fn guests_come_and_go() {
    let mut scene = Scene::of(2);
    let closed = lan(&mut scene, network("closed"));
    let open = lan(&mut scene, NetworkSpec { attachable: true, ..network("open") });
    assert_eq!(refused(scene.ask(attach(2, 1, closed, None))), "network closed not manually attachable");
    let asked = Some([10, 0, 2, 77].into());
    assert_eq!(scene.ask(attach(2, 1, open, asked)), Ok(Answer::Attached([10, 0, 2, 77].into())));
    assert_eq!(scene.ask(attach(2, 1, open, None)), Ok(Answer::Attached([10, 0, 2, 77].into())));
    assert_eq!(
        refused(scene.ask(attach(1, 2, open, asked))),
        "Address already in use: 10.0.2.77 on network open"
    );
    let outside = refused(scene.ask(attach(1, 2, open, Some([10, 1, 1, 1].into()))));
    assert_eq!(outside, "no configured subnet contains IP address 10.1.1.1");
    assert_eq!((told(&scene, 1), told(&scene, 2).len()), (vec!["ingress".to_owned()], 2));
    assert!(
        refused(scene.ask(Request::RemoveNetwork(open)))
            .contains("is in use by container 010101010101 on node")
    );
    // Another node cannot take it off.
    let detach =
        |node| Request::Detach { node: NodeId(node), container: ContainerId([1; 32]), network: open };
    scene.ask(detach(1)).expect("it is no error");
    assert_eq!(scene.objects().guests_on(open).count(), 1);
    scene.ask(Request::KeepGuests { node: NodeId(2), guests: Default::default() }).expect("it may");
    assert_eq!((scene.objects().guests_on(open).count(), told(&scene, 2).len()), (0, 1));
    scene.ask(attach(2, 3, open, None)).expect("it may come");
    scene.ask(Request::RemoveNode { id: NodeId(2), force: crate::Force::Yes }).expect("by force");
    assert_eq!(scene.objects().guests_on(open).count(), 0);
}

#[test]
fn a_guest_that_left_one_of_its_networks_keeps_the_others() {
    let mut scene = Scene::of(2);
    let [one, other] =
        ["one", "other"].map(|name| lan(&mut scene, NetworkSpec { attachable: true, ..network(name) }));
    for network in [one, other] {
        scene.ask(attach(2, 1, network, None)).expect("it may come");
    }
    let keep =
        |stay: Stay| Request::KeepGuests { node: NodeId(2), guests: [(ContainerId([1; 32]), stay)].into() };
    let count = |scene: &Scene| [one, other].map(|network| scene.objects().guests_on(network).count());
    scene.ask(keep(Stay::Arrives)).expect("it may");
    assert_eq!(count(&scene), [1, 1]);
    scene.ask(keep(Stay::On([other].into()))).expect("it may");
    assert_eq!(count(&scene), [0, 1]);
    assert_eq!(told(&scene, 2), ["ingress", "other"]);
}

#[test]
fn the_ingress_network_can_be_another_one() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 1);
    web.ports = vec![port(80, 8080)];
    let id = scene.create(web.clone());
    let old = scene.objects().ingress().expect("it is there").id;
    let needed = refused(scene.ask(Request::RemoveNetwork(old)));
    assert_eq!(needed, format!("ingress network cannot be removed because service {id} depends on it"));
    scene.ask(Request::RemoveService(id)).expect("it is there");
    scene.work();
    scene.ask(Request::RemoveNetwork(old)).expect("nothing publishes");
    assert_eq!(
        refused(scene.ask(Request::CreateService(Box::new(web.clone())))),
        "service needs ingress network, but no ingress network is present"
    );
    let subnet = "10.77.0.0/24".parse().ok();
    lan(&mut scene, NetworkSpec { ingress: true, subnet, ..network("mesh") });
    let own: Vec<_> = scene.objects().nodes().filter_map(|node| node.ingress_address).collect();
    assert_eq!(own, [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)]);
    let id = scene.create(web);
    assert_eq!(scene.objects().service(id).map(|it| it.virtual_ips[0].address), Some([10, 77, 0, 4].into()));
    let mut bad = spec("bad", 1);
    bad.ports = vec![port(80, 9090)];
    bad.endpoint_mode = EndpointMode::Dnsrr;
    assert_eq!(
        refused(scene.ask(Request::CreateService(Box::new(bad)))),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
    );
}

#[test]
fn tasks_with_host_ports_keep_apart() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 3);
    web.ports = vec![port(80, 8080)];
    web.ports[0].mode = PublishMode::Host;
    let web = scene.create(web);
    scene.work();
    expect!["no suitable node (host-mode port already in use on 2 nodes)"]
        .assert_eq(&scene.task(web, 3).status.error);
    assert_eq!(scene.objects().endpoint(web), None);
    assert_eq!(scene.task(web, 1).host_ports.len(), 1);
    let mut mesh = spec("mesh", 1);
    mesh.ports = vec![port(80, 8080)];
    let refusal = refused(scene.ask(Request::CreateService(Box::new(mesh))));
    assert_eq!(
        refusal,
        format!("port '8080' is already in use by service 'web' ({web}) as a host-published port")
    );
}

#[test]
fn a_successor_that_starts_first_runs_before_the_old_task_is_told_to_stop() {
    let mut scene = Scene::of(2);
    let mut web = spec("web", 1);
    web.update.order = UpdateOrder::StartFirst;
    let web = scene.create(web);
    scene.work();
    let old = scene.task(web, 1).id;
    scene.update(web, |spec| task_spec(spec, |task| task.force_update += 1));
    let new = scene.task(web, 1).id;
    assert_ne!(old, new);
    let desired = |scene: &Scene| [old, new].map(|id| scene.objects().task(id).map(|task| task.desired));
    assert_eq!(desired(&scene), [Some(TaskState::Running), Some(TaskState::Running)]);
    scene.report(&[new], TaskState::Running, "");
    assert_eq!(desired(&scene), [Some(TaskState::Shutdown), Some(TaskState::Running)]);
    scene.work();
    assert_eq!(scene.objects().tasks_of(web).filter(|task| task.desired == TaskState::Running).count(), 1);
}
