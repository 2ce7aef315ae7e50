//! Sandboxes on several networks, and networks of several kinds, against the real kernel.

use std::net::Ipv4Addr;

use skep_network::{Address6, Bridge, Endpoint, Peers};

use crate::scene::Scene;
use crate::support::nodes::{MESH, MESH_GATEWAY, Nodes, mesh_bridge};
use crate::support::{Machine, bridge, endpoint, exchange, tally, until};

#[test]
fn the_default_route_passes_on_and_comes_back() {
    let mut scene = Scene::new(&["sk-one 10.1.0.1", "sk-two 10.2.0.1"]);
    scene.add(Bridge { internal: true, ..bridge("sk-in", "10.3.0.1") });
    let web = scene.sandbox("web", &["sk-in 10.3.0.2", "sk-one 10.1.0.2", "sk-two 10.2.0.2"]);
    let default = |web: &Machine| web.command("ip route show default");
    // The first that is not internal.
    assert_eq!(default(&web), "default via 10.1.0.1 dev eth1 \n");
    scene.leave("web", "eth1");
    assert_eq!(default(&web), "default via 10.2.0.1 dev eth2 \n");
    scene.join("web", "eth1", "sk-one 10.1.0.2");
    assert_eq!(default(&web), "default via 10.1.0.1 dev eth1 \n");
    // Docker's gw-priority comes before the order.
    let preferred = Endpoint { priority: 1, ..scene.endpoint("eth2", "sk-two 10.2.0.2") };
    scene.attach("web", preferred);
    assert_eq!(default(&web), "default via 10.2.0.1 dev eth2 \n");
    let report = scene.restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    for interface in ["eth2", "eth1"] {
        scene.leave("web", interface);
    }
    assert_eq!(default(&web), "");
    assert_eq!(scene.world.host.ask("10.3.0.2:1").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // What a crash in the middle of this left is mended.
    scene.join("web", "eth1", "sk-one 10.1.0.2");
    web.command("ip route del default");
    let report = scene.restart();
    assert_eq!(report.repaired, ["configure eth1 of sandbox web"]);
    assert_eq!(default(&web), "default via 10.1.0.1 dev eth1 \n");
}

#[test]
fn a_sandbox_on_two_networks_is_seen_under_its_address_of_each() {
    let mut scene = Scene::new(&["sk-one 10.1.0.1", "sk-two 10.2.0.1"]);
    let both = scene.sandbox("both", &["sk-one 10.1.0.2", "sk-two 10.2.0.2"]);
    let one = scene.sandbox("one", &["sk-one 10.1.0.3"]);
    let two = scene.sandbox("two", &["sk-two 10.2.0.3"]);
    let _servers = (one.serve("0.0.0.0:80"), two.serve("0.0.0.0:80"), both.serve("0.0.0.0:80"));
    assert_eq!(both.ask("10.1.0.3:80").unwrap(), "one 10.1.0.2");
    assert_eq!(both.ask("10.2.0.3:80").unwrap(), "two 10.2.0.2");
    assert_eq!(one.ask("10.1.0.2:80").unwrap(), "both 10.1.0.3");
    // It is no bridge between them, and neither is the host, whoever has a route.
    one.cannot_reach("10.2.0.3:80");
    one.command("ip route add 10.2.0.0/16 via 10.1.0.2");
    one.cannot_reach("10.2.0.3:80");
    scene.leave("both", "eth0");
    one.cannot_reach("10.1.0.2:80");
    assert_eq!(both.ask("10.2.0.3:80").unwrap(), "two 10.2.0.2");
}

#[test]
fn an_internal_network_leads_nowhere() {
    let mut scene = Scene::new(&["sk-one 10.1.0.1"]);
    scene.add(Bridge { internal: true, ..bridge("sk-in", "10.3.0.1") });
    let inner = scene.sandbox("inner", &["sk-in 10.3.0.2"]);
    let _near = scene.sandbox("near", &["sk-in 10.3.0.3"]).serve("0.0.0.0:80");
    let other = scene.sandbox("other", &["sk-one 10.1.0.2"]);
    let _servers = (
        scene.world.outside.serve("0.0.0.0:80"),
        other.serve("0.0.0.0:80"),
        scene.world.host.serve("0.0.0.0:81"),
    );
    scene.world.publish("other", "8080", &["10.1.0.2:80"]).unwrap();
    assert_eq!(inner.command("ip route show default"), "");
    assert_eq!(inner.ask("10.3.0.3:80").unwrap(), "near 10.3.0.2");
    assert_eq!(inner.ask("10.3.0.1:81").unwrap(), "host 10.3.0.2");
    // Also one who gives itself a route: not the world, not the other networks of the host, not what they publish.
    inner.command("ip route add default via 10.3.0.1");
    for address in ["192.0.2.2:80", "10.1.0.2:80", "192.0.2.1:8080"] {
        inner.cannot_reach(address);
    }
    other.cannot_reach("10.3.0.3:80");
    scene.world.outside.command("ip route add 10.3.0.0/16 via 192.0.2.1");
    scene.world.outside.cannot_reach("10.3.0.3:80");
}

#[test]
fn a_network_has_its_size_of_packets_also_when_it_changes() {
    let mut scene = Scene::new(&["sk-one 10.1.0.1"]);
    let web = scene.sandbox("web", &["sk-one 10.1.0.2"]);
    scene.add(Bridge { mtu: 1200, ..bridge("sk-one", "10.1.0.1") });
    let has = |machine: &Machine, link: &str, mtu: u32| {
        let shown = machine.command(&format!("ip -o link show {link}"));
        assert!(shown.contains(&format!("mtu {mtu} ")), "{shown}");
    };
    has(&scene.world.host, "sk-one", 1200);
    has(&web, "eth0", 1200);
    web.command("ip link set eth0 mtu 9000");
    let report = scene.restart();
    assert_eq!(report.repaired.len(), 1, "{report:?}");
    has(&web, "eth0", 1200);
    assert!(scene.restart().repaired.is_empty(), "once is enough");
}

/// An endpoint that has the IPv6 address which follows from its IPv4 one.
fn with_ipv6(endpoint: Endpoint, subnet: &str) -> Endpoint {
    let address6 = |address: std::net::Ipv4Addr| {
        let [a, b, c, d] = address.octets().map(u16::from);
        format!("{subnet}:{:x}:{:x}", a << 8 | b, c << 8 | d).parse().unwrap()
    };
    Endpoint {
        address6: Some(Address6 { address: address6(endpoint.address), prefix: 96 }),
        gateway6: endpoint.gateway.map(address6),
        ..endpoint
    }
}

#[test]
fn a_network_with_ipv6_gives_addresses_and_routes_and_takes_them_back() {
    let mut scene = Scene::new(&["sk-plain 10.2.0.1"]);
    let gateway6 = Some(Address6 { address: "fd00::a01:1".parse().unwrap(), prefix: 96 });
    scene.add(Bridge { gateway6, ..bridge("sk-six", "10.1.0.1") });
    let [one, two] = ["one", "two"].map(|name| scene.sandbox(name, &["sk-plain 10.2.0.2"]));
    for (name, last) in [("one", 2), ("two", 3)] {
        let endpoint = scene.endpoint("eth1", &format!("sk-six 10.1.0.{last}"));
        scene.attach(name, with_ipv6(endpoint, "fd00:"));
    }
    let _servers = (two.serve("[::]:80"), scene.world.host.serve("[fd00::a01:1]:80"));
    // At once: nobody waits to see whether an address is taken.
    assert_eq!(one.ask("[fd00::a01:3]:80").unwrap(), "two fd00::a01:2");
    assert_eq!(one.ask("[fd00::a01:1]:80").unwrap(), "host fd00::a01:2");
    assert_eq!(one.ask("10.1.0.3:80").unwrap(), "two ::ffff:10.1.0.2");
    assert!(one.command("ip -6 route show default").starts_with("default via fd00::a01:1 dev eth1"));
    assert_eq!(one.command("ip -o -6 addr show eth0"), "", "a network without IPv6 gives none");
    let report = scene.restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    scene.world.host.command("ip addr del fd00::a01:1/96 dev sk-six");
    one.command("ip addr del fd00::a01:2/96 dev eth1");
    let report = scene.restart();
    let repaired = ["make fd00::a01:1/96 the IPv6 address of sk-six", "configure eth1 of sandbox one"];
    assert_eq!(report.repaired, repaired);
    assert_eq!(one.ask("[fd00::a01:3]:80").unwrap(), "two fd00::a01:2");
    scene.add(bridge("sk-six", "10.1.0.1"));
    assert!(!scene.world.host.command("ip -6 addr show sk-six").contains("fd00"));
}

#[test]
fn ipv6_leads_out_under_the_hosts_address_and_nowhere_else() {
    let mut scene = Scene::new(&[]);
    let six = |name: &str, gateway: &str, gateway6: &str| {
        let gateway6 = Some(Address6 { address: gateway6.parse().unwrap(), prefix: 96 });
        Bridge { gateway6, ..bridge(name, gateway) }
    };
    scene.add(six("sk-one", "10.1.0.1", "fd00::a01:1"));
    scene.add(six("sk-two", "10.2.0.1", "fd01::a02:1"));
    scene.add(Bridge { internal: true, ..six("sk-in", "10.3.0.1", "fd02::a03:1") });
    let [one, two, inner] =
        [("one", "sk-one 10.1.0.2"), ("two", "sk-two 10.2.0.2"), ("inner", "sk-in 10.3.0.2")].map(
            |(name, place)| {
                let machine = scene.sandbox(name, &[]);
                let subnet = ["fd00:", "fd01:", "fd02:"]
                    [["one", "two", "inner"].iter().position(|it| *it == name).unwrap()];
                let endpoint = scene.endpoint("eth0", place);
                scene.attach(name, with_ipv6(endpoint, subnet));
                machine
            },
        );
    let (host, outside) = (&scene.world.host, &scene.world.outside);
    host.command("ip addr add 2001:db8::1/64 dev uplink nodad");
    outside.command("ip addr add 2001:db8::2/64 dev cable nodad");
    outside.command("ip route add fd00::/14 via 2001:db8::1");
    let _servers = (outside.serve("[::]:80"), one.serve("[::]:80"), inner.serve("[::]:80"));
    until("the host has asked who has the address", || {
        one.ask("[2001:db8::2]:80").is_ok_and(|answer| answer == "outside 2001:db8::1")
    });
    two.cannot_reach("[fd00::a01:2]:80");
    two.cannot_reach("[fd02::a03:2]:80");
    outside.cannot_reach("[fd00::a01:2]:80");
    outside.cannot_reach("[fd02::a03:2]:80");
    inner.command("ip -6 route add default via fd02::a03:1");
    inner.cannot_reach("[2001:db8::2]:80");
    inner.cannot_reach("[fd00::a01:2]:80");
    // After a crash, and without any of them, nothing is left.
    scene.world.host.command("nft flush ruleset");
    let report = scene.restart();
    assert!(report.failed.is_empty(), "{report:?}");
    two.cannot_reach("[fd00::a01:2]:80");
    scene.world.outside.cannot_reach("[fd00::a01:2]:80");
    for name in ["sk-one", "sk-two", "sk-in"] {
        scene.world.network(|network| network.remove_bridge(name)).unwrap();
    }
    assert!(!scene.world.host.command("nft list tables").contains("ip6"));
}

#[test]
fn neighbours_on_other_hosts_answer_over_ipv6() {
    let mut nodes = Nodes::new(2);
    for number in 1..=2 {
        let gateway6 = Some(Address6 { address: "fd00::a09:1".parse().unwrap(), prefix: 96 });
        nodes.node(number).ensure(Bridge { gateway6, ..mesh_bridge(number) }).unwrap();
    }
    let [here, there] = [(1, "here", "10.9.0.2"), (2, "there", "10.9.0.3")].map(|(node, name, address)| {
        let machine = nodes.container(node, name, address);
        let mut endpoint = with_ipv6(endpoint(MESH, MESH_GATEWAY, address), "fd00:");
        endpoint.prefix = 24;
        nodes.node(node).network(|network| network.attach(name, &endpoint)).unwrap();
        machine
    });
    let _server = there.serve("[::]:80");
    let neighbours = |nodes: &mut Nodes| nodes.node(1).machine.command("ip -6 neigh show nud permanent");
    assert!(neighbours(&mut nodes).contains("fd00::a09:3 dev sk-mesh lladdr 02:42:0a:09:00:03"));
    assert_eq!(here.ask("[fd00::a09:3]:80").unwrap(), "there fd00::a09:2");
    assert_eq!(here.ask("10.9.0.3:80").unwrap(), "there ::ffff:10.9.0.2");
    let gone = [Ipv4Addr::new(10, 9, 0, 3)].into();
    nodes.node(1).network(|network| network.change_peers(MESH, &Peers::new(), &gone)).unwrap();
    assert!(!neighbours(&mut nodes).contains("fd00::a09:3"));
    here.command("ip -6 neigh flush dev eth0");
    here.cannot_reach("[fd00::a09:3]:80");
}

#[test]
fn services_have_an_ipv6_address_that_goes_with_theirs() {
    let mut scene = Scene::new(&[]);
    let gateway6 = Some(Address6 { address: "fd00::a01:1".parse().unwrap(), prefix: 96 });
    scene.add(Bridge { gateway6, ..bridge("sk-six", "10.1.0.1") });
    let machines: Vec<Machine> = (2..23)
        .map(|last| {
            let machine = scene.sandbox(&format!("s{last}"), &[]);
            let endpoint = scene.endpoint("eth0", &format!("sk-six 10.1.0.{last}"));
            scene.attach(&format!("s{last}"), with_ipv6(endpoint, "fd00:"));
            machine
        })
        .collect();
    let _servers: Vec<_> = machines.iter().map(|it| (it.serve("[::]:80"), it.serve_udp("[::]:53"))).collect();
    let backends: Vec<String> = (2..22).map(|last| format!("10.1.0.{last}")).collect();
    scene.set_services("sk-six", &[&format!("10.1.1.1: {}", backends.join(" ")), "10.1.1.2:"]);
    let client = &machines[20];
    // Each in turn, from more than one group, under the client's own address.
    let answers = tally(client, "[fd00::a01:101]:80", 40);
    assert_eq!(answers.len(), 20, "{answers:?}");
    assert!(answers.values().all(|count| *count == 2), "{answers:?}");
    assert!(client.ask("[fd00::a01:101]:80").unwrap().ends_with(" fd00::a01:16"));
    assert!(client.ask("10.1.1.1:80").unwrap().ends_with(" ::ffff:10.1.0.22"));
    // A caller that is the only backend, and one that has none.
    let flow = client.udp("[fd00::a01:101]:53");
    exchange(&flow).unwrap();
    scene.change_services("sk-six", &["10.1.1.1: 10.1.0.22"], &[]);
    assert_eq!(client.ask("[fd00::a01:101]:80").unwrap(), "s22 fd00::a01:16");
    assert_eq!(exchange(&flow).unwrap(), "s22 fd00::a01:16", "the flow to a backend that has gone moves on");
    let refused = client.ask("[fd00::a01:102]:80").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let report = scene.restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    assert_eq!(client.ask("[fd00::a01:101]:80").unwrap(), "s22 fd00::a01:16");
    scene.leave("s22", "eth0");
    assert_eq!(client.command("nft list tables"), "");
}
