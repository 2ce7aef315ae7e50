//! Networks that span machines: what a node's bridge and VXLAN device lack.

use super::*;
use crate::model::Overlay;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn mesh() -> Bridge {
    let overlay = Overlay {
        vni: 4096,
        port: 4789,
        local: HOST,
        address: OWN,
        mtu: None,
        overhead: 0,
        transport: Transport::Vxlan,
    };
    Bridge { name: "sk-mesh".to_owned(), gateway: GATEWAY, prefix: 24, overlay: Some(overlay), ..bridge() }
}

fn peers(lasts: &[u8]) -> Peers {
    lasts.iter().map(|last| (Ipv4Addr::new(10, 0, 0, *last), Ipv4Addr::new(192, 0, 2, 2))).collect()
}

fn device() -> String {
    names().overlay("sk-mesh")
}

/// A node that knows 10.0.0.3 and 10.0.0.4, both on 192.0.2.2, as it should be.
fn settled() -> (Desired, Actual) {
    let desired = Desired {
        bridges: vec![mesh()],
        peers: BTreeMap::from([("sk-mesh".to_owned(), peers(&[3, 4]))]),
        ..Desired::default()
    };
    let uplink =
        FoundLink { up: true, mtu: 1500, addresses: BTreeSet::from([(HOST, 24)]), ..FoundLink::default() };
    let bridge = FoundLink {
        kind: "bridge".to_owned(),
        up: true,
        mtu: 1450,
        ours: true,
        local_clients: true,
        local_clients6: true,
        addresses: BTreeSet::from([(OWN, 24), (GATEWAY, 32)]),
        mac: Some(MacAddress::of(OWN)),
        neighbours: peers(&[3, 4]).into_keys().collect(),
        ..FoundLink::default()
    };
    let known = peers(&[3, 4]).into_iter().map(|(address, host)| (address, Some(host))).collect();
    let vxlan = FoundLink {
        kind: "vxlan".to_owned(),
        up: true,
        mtu: 1450,
        ours: true,
        master: Some("sk-mesh".to_owned()),
        vxlan: Some((Vxlan { vni: 4096, port: 4789, local: Some(HOST), mtu: 1450 }, known)),
        ..FoundLink::default()
    };
    let links =
        BTreeMap::from([("eth0".to_owned(), uplink), ("sk-mesh".to_owned(), bridge), (device(), vxlan)]);
    (desired, Actual { links, sandboxes: BTreeMap::new() })
}

fn found_device(actual: &mut Actual) -> &mut FoundLink {
    actual.links.get_mut(&device()).expect("the device is there")
}

/// Asserts the plan after `change` was made to a settled node.
#[track_caller]
fn check(change: impl FnOnce(&mut Desired, &mut Actual), expected: Expect) {
    let (mut desired, mut actual) = settled();
    change(&mut desired, &mut actual);
    let lines: Vec<String> = plan(&names(), &desired, &actual)
        .iter()
        .map(|operation| operation.to_string().replace(&device(), "DEVICE"))
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_settled_node_is_left_alone() {
    check(|_, _| {}, expect![[""]]);
}

#[test]
fn a_new_network_gets_a_bridge_with_the_node_s_own_address_and_a_device() {
    check(
        |_, actual| actual.links.retain(|name, _| name == "eth0"),
        expect![[r#"
        create bridge sk-mesh
        add address 10.0.0.2/24 to sk-mesh
        add address 10.0.0.1/32 to sk-mesh
        bring up bridge sk-mesh with MTU 1450
        create VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
}

#[test]
fn without_peers_there_is_no_device() {
    check(
        |desired, _| desired.peers.clear(),
        expect![[r#"
        delete interface DEVICE
        make sk-mesh forget 2 neighbours"#]],
    );
    check(
        |desired, actual| {
            desired.peers.clear();
            actual.links.retain(|name, _| name == "eth0");
        },
        expect![[r#"
            create bridge sk-mesh
            add address 10.0.0.2/24 to sk-mesh
            add address 10.0.0.1/32 to sk-mesh
            bring up bridge sk-mesh with MTU 1450"#]],
    );
}

#[test]
fn a_bridge_from_before_the_node_had_a_place_gets_its_address_first() {
    check(
        |_, actual| {
            let bridge = actual.links.get_mut("sk-mesh").expect("it is there");
            bridge.addresses = BTreeSet::from([(GATEWAY, 24)]);
            bridge.mac = Some(MacAddress::of(GATEWAY));
            bridge.mtu = 1500;
        },
        expect![[r#"
            give sk-mesh the hardware address 02:42:0a:00:00:02
            remove address 10.0.0.1/24 from sk-mesh
            add address 10.0.0.2/24 to sk-mesh
            add address 10.0.0.1/32 to sk-mesh
            bring up bridge sk-mesh with MTU 1450"#]],
    );
}

#[test]
fn peers_are_compared_one_by_one() {
    check(
        |desired, _| drop(desired.peers.insert("sk-mesh".to_owned(), peers(&[4, 5, 6]))),
        expect![[r#"
        make DEVICE forget 1 peers
        tell DEVICE of 2 peers"#]],
    );
    let half = |actual: &mut Actual| {
        let (_, known) = found_device(actual).vxlan.as_mut().expect("it is ours");
        known.insert(Ipv4Addr::new(10, 0, 0, 3), None);
        known.insert(Ipv4Addr::new(10, 0, 0, 4), Some(Ipv4Addr::new(192, 0, 2, 9)));
    };
    check(|_, actual| half(actual), expect!["tell DEVICE of 2 peers"]);
}

#[test]
fn a_device_that_works_otherwise_is_made_anew() {
    let other = |change: fn(&mut Vxlan)| {
        move |_: &mut Desired, actual: &mut Actual| {
            change(&mut found_device(actual).vxlan.as_mut().expect("it is ours").0);
        }
    };
    check(
        other(|vxlan| vxlan.vni = 4097),
        expect![[r#"
        delete interface DEVICE
        create VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
    check(
        other(|vxlan| vxlan.port = 4790),
        expect![[r#"
        delete interface DEVICE
        create VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
    check(
        other(|vxlan| vxlan.local = None),
        expect![[r#"
        delete interface DEVICE
        create VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
    // One that learns, floods or is somebody else's.
    check(
        |_, actual| found_device(actual).vxlan = None,
        expect![[r#"
        delete interface DEVICE
        create VXLAN 4096 from 192.0.2.1 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
}

#[test]
fn a_device_that_lost_its_bridge_is_connected_and_told_again() {
    check(
        |_, actual| found_device(actual).master = None,
        expect![[r#"
        connect DEVICE to sk-mesh with MTU 1450
        tell DEVICE of 2 peers"#]],
    );
    check(
        |_, actual| found_device(actual).up = false,
        expect![[r#"
        connect DEVICE to sk-mesh with MTU 1450
        tell DEVICE of 2 peers"#]],
    );
    check(
        |_, actual| {
            actual.links.remove("sk-mesh");
            found_device(actual).master = None;
        },
        expect![[r#"
            create bridge sk-mesh
            add address 10.0.0.2/24 to sk-mesh
            add address 10.0.0.1/32 to sk-mesh
            bring up bridge sk-mesh with MTU 1450
            connect DEVICE to sk-mesh with MTU 1450
            tell DEVICE of 2 peers"#]],
    );
}

#[test]
fn the_size_of_packets_follows_the_carrier() {
    check(
        |_, actual| actual.links.get_mut("eth0").expect("it is there").mtu = 9000,
        expect![[r#"
        bring up bridge sk-mesh with MTU 8950
        connect DEVICE to sk-mesh with MTU 8950
        tell DEVICE of 2 peers"#]],
    );
    // Behind a router that translates, the node does not have the address that others send to.
    check(
        |_, actual| drop(actual.links.remove("eth0")),
        expect![[r#"
        delete interface DEVICE
        create VXLAN 4096 at port 4789 with MTU 1450 as DEVICE for sk-mesh
        tell DEVICE of 2 peers"#]],
    );
}

#[test]
fn what_an_unwanted_network_left_goes() {
    check(
        |desired, _| (desired.bridges, desired.peers) = (Vec::new(), BTreeMap::new()),
        expect![[r#"
        delete interface sk-mesh
        delete interface DEVICE"#]],
    );
    // A crash came after the device had gone.
    check(
        |desired, actual| {
            desired.peers.clear();
            actual.links.remove(&device());
        },
        expect!["make sk-mesh forget 2 neighbours"],
    );
    // Somebody else's of that kind stays.
    check(
        |desired, actual| {
            (desired.bridges, desired.peers) = (Vec::new(), BTreeMap::new());
            found_device(actual).ours = false;
        },
        expect!["delete interface sk-mesh"],
    );
}

#[test]
fn packets_are_as_large_as_the_carrier_leaves_and_as_was_asked_for() {
    for (asked, overhead, carrier, mtu) in [
        (None, 0, Some(1500), 1450),
        (None, 0, Some(9000), 8950),
        (None, 38, Some(1500), 1412),
        (Some(1400), 0, Some(1500), 1400),
        (Some(9000), 0, Some(1500), 1450),
        (Some(9000), 0, None, 1450),
    ] {
        let overlay = mesh().overlay.map(|overlay| Overlay { mtu: asked, overhead, ..overlay });
        assert_eq!(
            bridge_mtu(&Bridge { overlay, ..mesh() }, carrier),
            mtu,
            "{asked:?} {overhead} {carrier:?}"
        );
    }
}
