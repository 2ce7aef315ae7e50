//! Decisions as tables: what is there, what should be, what to do.

use expect_test::{Expect, expect};

use super::*;

mod overlay;

fn bridge() -> Bridge {
    Bridge {
        name: "docker0".to_owned(),
        gateway: Ipv4Addr::new(172, 17, 0, 1),
        prefix: 16,
        mtu: 1500,
        masquerade: true,
        internal: false,
        ingress: false,
        gateway6: None,
        overlay: None,
    }
}

fn endpoint() -> Endpoint {
    let address = Ipv4Addr::new(172, 17, 0, 2);
    Endpoint {
        bridge: "docker0".to_owned(),
        interface: "eth0".to_owned(),
        address,
        prefix: 16,
        gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
        mac: MacAddress::of(address),
        priority: 0,
        address6: None,
        gateway6: None,
    }
}

/// One bridge, one sandbox `web` with `eth0` on it.
fn desired() -> Desired {
    Desired {
        bridges: vec![bridge()],
        sandboxes: BTreeMap::from([("web".to_owned(), vec![endpoint()])]),
        publications: BTreeMap::new(),
        peers: BTreeMap::new(),
        services: BTreeMap::new(),
    }
}

fn names() -> Names {
    Names::new("skep")
}

fn host_end() -> String {
    names().host_end("web", "eth0")
}

/// The world that [`desired`] describes.
fn healthy() -> Actual {
    let docker0 = FoundLink {
        kind: "bridge".to_owned(),
        up: true,
        mtu: 1500,
        ours: true,
        local_clients: true,
        local_clients6: true,
        addresses: BTreeSet::from([(Ipv4Addr::new(172, 17, 0, 1), 16)]),
        ..FoundLink::default()
    };
    let host_side = FoundLink {
        kind: "veth".to_owned(),
        up: true,
        mtu: 1500,
        master: Some("docker0".to_owned()),
        ..FoundLink::default()
    };
    let inside = FoundInterface {
        answers_senders: false,
        up: true,
        mtu: 1500,
        addresses: BTreeSet::from([(Ipv4Addr::new(172, 17, 0, 2), 16)]),
        gateways: BTreeSet::from([Ipv4Addr::new(172, 17, 0, 1)]),
        ..FoundInterface::default()
    };
    let interfaces = BTreeMap::from([
        ("lo".to_owned(), FoundInterface { up: true, ..FoundInterface::default() }),
        ("eth0".to_owned(), inside),
    ]);
    Actual {
        links: BTreeMap::from([("docker0".to_owned(), docker0), (host_end(), host_side)]),
        sandboxes: BTreeMap::from([("web".to_owned(), FoundSandbox::Namespace(interfaces))]),
    }
}

fn inside(actual: &mut Actual) -> &mut BTreeMap<String, FoundInterface> {
    match actual.sandboxes.get_mut("web") {
        Some(FoundSandbox::Namespace(interfaces)) => interfaces,
        _ => panic!("the sandbox is healthy"),
    }
}

/// Asserts the plan after `change` was made to what is desired and to a healthy world.
#[track_caller]
fn check(change: impl FnOnce(&mut Desired, &mut Actual), expected: Expect) {
    let (mut desired, mut actual) = (desired(), healthy());
    change(&mut desired, &mut actual);
    let lines: Vec<String> = plan(&names(), &desired, &actual)
        .iter()
        .map(|operation| operation.to_string().replace(&host_end(), "HOST-END"))
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_healthy_world_is_left_alone() {
    check(|_, _| {}, expect![""]);
}

#[test]
fn an_empty_world_is_built_from_the_bridge_up() {
    check(
        |_, actual| *actual = Actual::default(),
        expect![[r#"
            create bridge docker0
            add address 172.17.0.1/16 to docker0
            bring up bridge docker0 with MTU 1500
            create sandbox web
            attach eth0 of sandbox web to docker0"#]],
    );
}

#[test]
fn what_nobody_wants_goes_before_anything_is_built() {
    check(
        |desired, _| *desired = Desired { bridges: vec![bridge()], ..Desired::default() },
        expect![[r#"
            delete interface HOST-END
            remove sandbox web"#]],
    );
    check(
        |desired, _| *desired = Desired::default(),
        expect![[r#"
            delete interface docker0
            delete interface HOST-END
            remove sandbox web"#]],
    );
}

#[test]
fn links_of_others_stay() {
    check(
        |_, actual| {
            let link = |kind: &str| FoundLink { kind: kind.to_owned(), ..FoundLink::default() };
            actual.links.insert("br0".to_owned(), link("bridge"));
            actual.links.insert("veth0".to_owned(), link("veth"));
            actual.links.insert(Names::new("other").host_end("web", "eth0"), link("veth"));
            actual.links.insert(names().host_end("another", "eth0"), link("vlan"));
        },
        expect![""],
    );
}

#[test]
fn a_bridge_that_was_changed_is_put_right() {
    check(
        |_, actual| {
            let docker0 = actual.links.get_mut("docker0").expect("a healthy world has it");
            docker0.addresses = BTreeSet::from([(Ipv4Addr::new(10, 0, 0, 1), 8)]);
            docker0.mtu = 1400;
        },
        expect![[r#"
            remove address 10.0.0.1/8 from docker0
            add address 172.17.0.1/16 to docker0
            bring up bridge docker0 with MTU 1500"#]],
    );
    check(
        |_, actual| actual.links.get_mut("docker0").expect("a healthy world has it").local_clients = false,
        expect!["bring up bridge docker0 with MTU 1500"],
    );
}

#[test]
fn an_administrators_bridge_keeps_its_further_addresses() {
    check(
        |_, actual| {
            let docker0 = actual.links.get_mut("docker0").expect("a healthy world has it");
            docker0.ours = false;
            docker0.addresses.insert((Ipv4Addr::new(10, 0, 0, 1), 8));
        },
        expect![""],
    );
}

#[test]
fn an_interface_without_its_address_or_route_is_completed() {
    check(
        |_, actual| {
            inside(actual).insert("eth0".to_owned(), FoundInterface::default());
        },
        expect!["configure eth0 of sandbox web"],
    );
    check(
        |_, actual| {
            inside(actual).get_mut("eth0").expect("a healthy world has it").gateways.clear();
        },
        expect!["configure eth0 of sandbox web"],
    );
    check(
        |desired, actual| {
            desired.sandboxes.values_mut().flatten().for_each(|it| it.gateway = None);
            inside(actual).get_mut("eth0").expect("a healthy world has it").gateways.clear();
        },
        expect![""],
    );
}

#[test]
fn what_a_container_added_to_its_own_interface_stays() {
    check(
        |_, actual| {
            let eth0 = inside(actual).get_mut("eth0").expect("a healthy world has it");
            eth0.addresses.insert((Ipv4Addr::new(10, 0, 0, 1), 8));
            eth0.gateways.insert(Ipv4Addr::new(10, 0, 0, 2));
        },
        expect![""],
    );
}

#[test]
fn a_host_end_that_lost_its_bridge_is_connected_without_touching_the_inside() {
    check(
        |_, actual| actual.links.get_mut(&host_end()).expect("a healthy world has it").master = None,
        expect!["connect HOST-END to docker0"],
    );
    check(
        |_, actual| {
            actual.links.remove("docker0");
            actual.links.get_mut(&host_end()).expect("a healthy world has it").master = None;
        },
        expect![[r#"
            create bridge docker0
            add address 172.17.0.1/16 to docker0
            bring up bridge docker0 with MTU 1500
            connect HOST-END to docker0"#]],
    );
}

#[test]
fn half_a_pair_is_replaced() {
    check(
        |_, actual| drop(actual.links.remove(&host_end())),
        expect!["attach eth0 of sandbox web to docker0"],
    );
    check(
        |_, actual| drop(inside(actual).remove("eth0")),
        expect![[r#"
            delete interface HOST-END
            attach eth0 of sandbox web to docker0"#]],
    );
}

#[test]
fn a_file_without_a_namespace_becomes_a_sandbox() {
    check(
        |_, actual| {
            actual.links.remove(&host_end());
            actual.sandboxes.insert("web".to_owned(), FoundSandbox::Empty);
        },
        expect![[r#"
            create sandbox web
            attach eth0 of sandbox web to docker0"#]],
    );
}

#[test]
fn a_sandbox_that_cannot_be_looked_into_is_left_alone() {
    check(
        |_, actual| {
            actual.links.remove(&host_end());
            actual.sandboxes.insert("web".to_owned(), FoundSandbox::Unseen("it is busy".to_owned()));
        },
        expect![""],
    );
}

fn front(port: u16) -> Front {
    Front { protocol: Protocol::Tcp, port, address: Ipv4Addr::UNSPECIFIED.into() }
}

#[track_caller]
fn check_services(before: &[(u16, &[u8])], after: &[(u16, &[u8])], expected: Expect) {
    let services = |list: &[(u16, &[u8])]| -> Services {
        let backends =
            |it: &[u8]| it.iter().map(|last| (IpAddr::from([10, 0, 0, *last]), 80)).collect::<Vec<_>>();
        list.iter().map(|(port, them)| (front(*port), backends(them))).collect()
    };
    let lines: Vec<String> = plan_services(&services(before), &services(after))
        .iter()
        .map(|change| match change {
            RuleChange::SetService(front, backends) => {
                format!("set {} to {} backends", front.port, backends.len())
            }
            RuleChange::RemoveService(front) => format!("remove {}", front.port),
            other => panic!("{other:?} changes no service"),
        })
        .collect();
    expected.assert_eq(&lines.join(", "));
}

#[test]
fn services_change_only_where_they_differ() {
    check_services(&[], &[], expect![""]);
    check_services(&[], &[(80, &[1]), (81, &[])], expect!["set 80 to 1 backends"]);
    check_services(&[(80, &[1])], &[(80, &[1])], expect![""]);
    check_services(&[(80, &[1, 2])], &[(80, &[1])], expect!["set 80 to 1 backends"]);
    check_services(&[(80, &[1]), (82, &[])], &[(81, &[1])], expect!["remove 80, set 81 to 1 backends"]);
    check_services(&[(80, &[1])], &[(80, &[])], expect!["remove 80"]);
    check_services(&[(80, &[])], &[(80, &[1])], expect!["set 80 to 1 backends"]);
}

#[test]
fn fronts_overlap_where_both_would_answer() {
    let at = |last: u8| Front { address: [10, 0, 0, last].into(), ..front(80) };
    assert!(front(80).overlaps(&at(1)) && at(1).overlaps(&front(80)) && at(1).overlaps(&at(1)));
    assert!(!at(1).overlaps(&at(2)) && !front(80).overlaps(&front(81)));
    assert!(!front(80).overlaps(&Front { protocol: Protocol::Udp, ..front(80) }));
    let six = |address: &str| Front { address: address.parse().expect("an address"), ..front(80) };
    assert!(six("::").overlaps(&six("2001:db8::1")) && !six("::1").overlaps(&six("2001:db8::1")));
    assert!(!six("::").overlaps(&front(80)) && !six("::").overlaps(&at(1)), "each family is its own");
}

#[test]
fn interfaces_have_the_size_of_packets_of_their_bridge_or_less() {
    check(
        |_, actual| {
            inside(actual).get_mut("eth0").expect("it is healthy").mtu = 9000;
        },
        expect!["give eth0 of sandbox web MTU 1500"],
    );
    check(
        |_, actual| {
            inside(actual).get_mut("eth0").expect("it is healthy").mtu = 700;
        },
        expect![""],
    );
    check(
        |desired, _| desired.bridges[0].mtu = 1400,
        expect![[r#"
            bring up bridge docker0 with MTU 1400
            give eth0 of sandbox web MTU 1400"#]],
    );
}
