//! Published ports over IPv6: who reaches what, and whose address is seen.

use std::io;
use std::net::Ipv6Addr;

use skep_network::{Address6, Bridge, Endpoint, Peers, PublishError};
use skep_types::port::Protocol;

use crate::support::nodes::{MESH, MESH_GATEWAY, Nodes, mesh_bridge};
use crate::support::{GATEWAY, Machine, World, bridge, endpoint, exchange, tally, until};

const HOST6: &str = "2001:db8::1";
const OUTSIDER6: &str = "2001:db8::2";
const GATEWAY6: &str = "fd00:1::1";

/// A bridge with IPv6 beside its addresses of IPv4.
fn six(bridge: Bridge, gateway: &str, prefix: u8) -> Bridge {
    Bridge { gateway6: Some(Address6 { address: gateway.parse().unwrap(), prefix }), ..bridge }
}

fn with6(endpoint: Endpoint, address: &str, gateway: &str, prefix: u8) -> Endpoint {
    let parse = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let address6 = Some(Address6 { address: parse(address), prefix });
    Endpoint { address6, gateway6: Some(parse(gateway)), ..endpoint }
}

/// Whether the kernel shows bridged frames to IPv6's rules, on a machine that has no rules of ours yet.
fn set_bridge_netfilter(machine: &Machine, value: &str) {
    machine.command(&format!("sysctl -w net.bridge.bridge-nf-call-ip6tables={value}"));
}

/// A host with IPv6, a neighbour outside, and `docker0` with IPv6.
fn world() -> World {
    world_with("0")
}

fn world_with(bridge_netfilter: &str) -> World {
    let mut world = World::new();
    set_bridge_netfilter(&world.host, bridge_netfilter);
    let with_ipv6 = six(bridge("docker0", GATEWAY), GATEWAY6, 64);
    world.network(|network| network.ensure_bridge(&with_ipv6)).unwrap();
    world.desired.bridges = vec![with_ipv6];
    world.host.command(&format!("ip addr add {HOST6}/64 dev uplink nodad"));
    world.outside.command(&format!("ip addr add {OUTSIDER6}/64 dev cable nodad"));
    let outside = world.outside.clone();
    let host = world.host.serve(&format!("[{HOST6}]:7"));
    until("the neighbours know each other", || outside.ask(&format!("[{HOST6}]:7")).is_ok());
    drop(host);
    world
}

fn container(world: &mut World, name: &str, last: u8) -> Machine {
    let endpoint = with6(
        endpoint("docker0", GATEWAY, &format!("172.30.0.{last}")),
        &format!("fd00:1::{last:x}"),
        GATEWAY6,
        64,
    );
    let path = world
        .network(|network| {
            let path = network.create_sandbox(name)?;
            network.attach(name, &endpoint).map(|()| path)
        })
        .unwrap();
    world.desired.sandboxes.insert(name.to_owned(), vec![endpoint]);
    Machine::at(name, &path)
}

#[test]
fn a_published_port_answers_over_ipv6_and_sees_the_clients_address() {
    let mut world = world();
    let web = container(&mut world, "web", 2);
    let neighbour = container(&mut world, "neighbour", 3);
    let _servers = (web.serve("[::]:80"), web.serve_udp("[::]:53"));
    world.publish("web", "8080", &["172.30.0.2:80", "[fd00:1::2]:80"]).unwrap();
    world.publish_udp("dns", "5353", &["172.30.0.2:53", "[fd00:1::2]:53"]).unwrap();
    for restarted in [false, true] {
        if restarted {
            let report = world.restart();
            assert!(report.failed.is_empty() && report.contested.is_empty(), "{report:?}");
            assert!(report.repaired.is_empty(), "{report:?}");
        }
        let cases = [
            (&world.outside, HOST6, OUTSIDER6),
            (&world.outside, "192.0.2.1", "::ffff:192.0.2.2"),
            (&world.host, HOST6, HOST6),
            (&world.host, GATEWAY6, GATEWAY6),
            (&world.host, "127.0.0.1", "::ffff:172.30.0.1"),
            (&neighbour, HOST6, GATEWAY6),
            (&web, HOST6, GATEWAY6),
            (&world.host, "::1", GATEWAY6),
        ];
        for (client, asked, seen) in cases {
            let address = if asked.contains(':') { format!("[{asked}]") } else { asked.to_owned() };
            let answer = client.ask(&format!("{address}:8080"));
            assert_eq!(answer.unwrap(), format!("web {seen}"), "{} to {asked}", client.name);
            let answer = exchange(&client.udp(&format!("{address}:5353")));
            assert_eq!(answer.unwrap(), format!("web {seen}"), "{} to {asked} by UDP", client.name);
        }
    }
    world.unpublish("web");
    world.outside.cannot_reach(&format!("[{HOST6}]:8080"));
    assert!(world.host.listen("[::]:8080").is_ok(), "the port is free again");
}

#[test]
fn where_bridged_frames_are_shown_to_rules_loopback_is_refused_at_once_and_all_else_answers() {
    let mut world = world_with("1");
    let web = container(&mut world, "web", 2);
    let _server = web.serve("[::]:80");
    world.publish("web", "8080", &["172.30.0.2:80", "[fd00:1::2]:80"]).unwrap();
    for (client, seen) in [(&world.outside, OUTSIDER6), (&world.host, HOST6), (&web, GATEWAY6)] {
        assert_eq!(client.ask(&format!("[{HOST6}]:8080")).unwrap(), format!("web {seen}"), "{}", client.name);
    }
    let refused = world.host.ask("[::1]:8080").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "a client goes on to 127.0.0.1");
    assert!(world.host.ask("127.0.0.1:8080").is_ok());
}

#[test]
fn a_container_without_ipv6_is_published_over_ipv4_alone() {
    let mut world = world();
    let web = world.container("web", "172.30.0.2");
    let _server = web.serve("0.0.0.0:80");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    assert!(world.outside.ask("192.0.2.1:8080").is_ok());
    for (client, asked) in [(&world.outside, HOST6), (&world.host, "::1")] {
        let refused = client.ask(&format!("[{asked}]:8080")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "a client goes on to IPv4 at once");
    }
    let refused = world.publish("other", "[::]:8081", &["172.30.0.2:80"]).unwrap_err();
    assert!(matches!(refused, PublishError::NobodyOverIpv6(_)));
    assert_eq!(refused.to_string(), "cannot publish on ::: who is to answer has no IPv6 address");
}

#[test]
fn ports_of_ipv6_are_reserved_on_the_addresses_that_were_asked_for() {
    let mut world = world();
    let web = container(&mut world, "web", 2);
    let _server = web.serve("[::]:80");
    let both = ["172.30.0.2:80", "[fd00:1::2]:80"];
    world.publish("one", &format!("[{HOST6}]:8080"), &both).unwrap();
    world.outside.cannot_reach("192.0.2.1:8080");
    world.host.cannot_reach("[::1]:8080");
    assert_eq!(world.outside.ask(&format!("[{HOST6}]:8080")).unwrap(), format!("web {OUTSIDER6}"));
    let taken = world.publish("other", "8080", &both).unwrap_err();
    assert_eq!(taken.to_string(), "Bind for [::]:8080 failed: port is already allocated");
    world.publish("four", "0.0.0.0:8080", &both).unwrap();
    // A process that has a port over IPv6 alone is in the way of who wants both.
    let socket = world.host.run(|| {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
        rustix::net::bind(&socket, &"[::]:8081".parse::<std::net::SocketAddr>().unwrap()).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        socket
    });
    let refused = world.publish("two", "8081", &both).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "failed to bind host port for [::]:8081:[fd00:1::2]:80/tcp: address already in use"
    );
    drop(socket);
    assert!(world.host.listen("0.0.0.0:8081").is_ok(), "what was taken before is let go");
    // A free port is the same over both.
    let port = world.publish("free", "0", &both).unwrap();
    for address in ["192.0.2.1", "[2001:db8::1]"] {
        assert!(world.outside.ask(&format!("{address}:{port}")).is_ok(), "{address}");
    }
    for address in ["127.0.0.1", "[::1]"] {
        assert!(world.host.listen(&format!("{address}:{port}")).is_err(), "{address}");
    }
}

#[test]
fn backends_over_ipv6_take_turns_and_udp_clients_follow_them() {
    let mut world = world();
    let machines: Vec<Machine> =
        (2..5).map(|last| container(&mut world, &format!("c{last}"), last)).collect();
    let _servers: Vec<_> = machines.iter().map(|it| (it.serve("[::]:80"), it.serve_udp("[::]:53"))).collect();
    let all = ["[fd00:1::2]:80", "[fd00:1::3]:80", "[fd00:1::4]:80"];
    world.publish("web", "8080", &all).unwrap();
    let answers = tally(&world.outside, &format!("[{HOST6}]:8080"), 9);
    assert!(answers.len() == 3 && answers.values().all(|count| *count == 3), "{answers:?}");
    world.publish_udp("dns", "53", &["[fd00:1::2]:53"]).unwrap();
    let flow = world.outside.udp(&format!("[{HOST6}]:53"));
    assert_eq!(exchange(&flow).unwrap(), format!("c2 {OUTSIDER6}"));
    world.publish_udp("dns", "53", &["[fd00:1::3]:53"]).unwrap();
    assert_eq!(exchange(&flow).unwrap(), format!("c3 {OUTSIDER6}"));
}

#[test]
fn the_hosts_loopback_of_ipv6_cannot_be_reached_from_outside_nor_from_containers() {
    let mut world = world();
    let web = container(&mut world, "web", 2);
    let _servers = (web.serve("[::]:80"), world.host.serve("[::1]:9000"));
    world.publish("local", "[::1]:8081", &["[fd00:1::2]:80"]).unwrap();
    for (client, gateway, link) in [(&world.outside, HOST6, "cable"), (&web, GATEWAY6, "eth0")] {
        // A client that wants to do harm sends ::1 to the host instead of to itself.
        client.command("ip -6 rule add pref 2 lookup local");
        client.command(&format!("ip -6 route add ::1 via {gateway} dev {link} table 100"));
        client.command("ip -6 rule add pref 1 to ::1 lookup 100");
        client.command("ip -6 rule del pref 0");
        for port in [8081, 9000] {
            client.cannot_reach(&format!("[::1]:{port}"));
        }
    }
    assert!(world.host.ask("[::1]:8081").is_ok() && world.host.ask("[::1]:9000").is_ok());
}

#[test]
fn what_somebody_flushed_comes_back_with_the_next_change() {
    let mut world = world();
    let web = container(&mut world, "web", 2);
    let _server = web.serve("[::]:80");
    world.publish("web", "8080", &["[fd00:1::2]:80"]).unwrap();
    world.host.command("nft flush ruleset");
    world.outside.cannot_reach(&format!("[{HOST6}]:8080"));
    world.publish("more", "8081", &["[fd00:1::2]:80"]).unwrap();
    for port in [8080, 8081] {
        assert!(world.outside.ask(&format!("[{HOST6}]:{port}")).is_ok());
    }
}

#[test]
fn every_node_of_a_mesh_with_ipv6_answers_and_shows_the_client() {
    let mut nodes = Nodes::new(3);
    let gateway6 = "fd00::a09:1";
    let client6 = "2001:db8::64";
    nodes.client.command(&format!("ip addr add {client6}/64 dev uplink nodad"));
    for number in 1..=3 {
        let node = nodes.node(number);
        set_bridge_netfilter(&node.machine, "0");
        node.machine.command(&format!("ip addr add 2001:db8::{number}/64 dev uplink nodad"));
        // A network has its addresses of IPv6 from the beginning.
        node.set_peers(&Peers::new()).unwrap();
        node.ensure(six(mesh_bridge(number), gateway6, 96)).unwrap();
    }
    nodes.tell();
    let containers: Vec<Machine> = (1..=3)
        .map(|number: u8| {
            let mut endpoint = endpoint(MESH, MESH_GATEWAY, &format!("10.9.0.{}", 1 + number));
            endpoint.prefix = 24;
            let endpoint = with6(endpoint, &format!("fd00::a09:{:x}", 1 + number), gateway6, 96);
            let address = endpoint.address;
            let machine = nodes.node(number).attach(&format!("c{number}"), vec![endpoint]);
            nodes.place(address, number);
            machine
        })
        .collect();
    let _servers: Vec<_> =
        containers.iter().map(|it| (it.serve("[::]:80"), it.serve_udp("[::]:53"))).collect();
    for answering in 1..=3u8 {
        let backend = format!("[fd00::a09:{:x}]", 1 + answering);
        let backend4 = format!("10.9.0.{}", 1 + answering);
        nodes.publish(Protocol::Tcp, "8080", &[&format!("{backend4}:80"), &format!("{backend}:80")]);
        nodes.publish(Protocol::Udp, "53", &[&format!("{backend4}:53"), &format!("{backend}:53")]);
        for asked in 1..=3u8 {
            let seen = |address: &str| format!("c{answering} {address}");
            let host = format!("[2001:db8::{asked}]");
            until("the neighbours know each other", || nodes.client.ask(&format!("{host}:8080")).is_ok());
            assert_eq!(nodes.client.ask(&format!("{host}:8080")).unwrap(), seen(client6));
            let flow = nodes.client.udp(&format!("{host}:53"));
            assert_eq!(exchange(&flow).unwrap(), seen(client6));
            let machine = &nodes.nodes[usize::from(asked) - 1].machine;
            assert_eq!(machine.ask(&format!("{host}:8080")).unwrap(), seen(&format!("2001:db8::{asked}")));
            let own = format!("fd00::a09:{:x}", 200 + asked);
            assert_eq!(machine.ask("[::1]:8080").unwrap(), seen(&own), "node {asked}");
            let neighbour = &containers[usize::from(asked) - 1];
            assert_eq!(neighbour.ask(&format!("{host}:8080")).unwrap(), seen(&own), "node {asked}");
        }
    }
    // What a crash leaves is mended, and what is not wanted goes.
    let report = nodes.node(2).restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    nodes.node(1).network(|network| network.detach("c1", "eth0")).unwrap();
    assert_eq!(containers[0].command("nft list ruleset"), "");
}
