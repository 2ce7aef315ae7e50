//! Published ports of a cluster: whom a container sees, whichever node was asked, and that answers find their way back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use skep_network::{Bridge, Endpoint, MacAddress, Overlay};
use skep_types::port::Protocol;

use crate::support::nodes::{CLIENT, MESH, MESH_GATEWAY, Nodes, host_address, mesh_address, mesh_bridge};
use crate::support::{Machine, bridge, endpoint, exchange, until};

/// Three nodes with a container on each; each serves TCP 80 and UDP 53 on 10.9.0.2, 3 and 4.
fn three() -> (Nodes, Vec<Machine>) {
    let mut nodes = Nodes::new(3);
    let containers =
        (1..=3).map(|number| nodes.container(number, &format!("c{number}"), &backend(number))).collect();
    for node in &nodes.nodes {
        node.watch_for_leaks();
    }
    (nodes, containers)
}

fn backend(node: u8) -> String {
    format!("10.9.0.{}", 1 + node)
}

fn overlay_of(node: u8) -> Overlay {
    mesh_bridge(node).overlay.unwrap()
}

/// A TCP connection from a chosen port of the client.
fn connect_from(client: &Machine, port: u16, to: &str) -> TcpStream {
    let (from, to): (SocketAddr, SocketAddr) =
        (format!("{CLIENT}:{port}").parse().unwrap(), to.parse().unwrap());
    let socket: OwnedFd = client.run(|| {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_secs(10))).unwrap();
        rustix::net::bind(&socket, &from).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        socket
    });
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn the_client_is_seen_by_every_container_through_every_node() {
    let (mut nodes, containers) = three();
    let _servers: Vec<_> = containers
        .iter()
        .map(|container| (container.serve("0.0.0.0:80"), container.serve_udp("0.0.0.0:53")))
        .collect();
    for asked in 1..=3 {
        for answering in 1..=3 {
            let (tcp, udp) = (format!("{}:80", backend(answering)), format!("{}:53", backend(answering)));
            nodes.publish(Protocol::Tcp, "8080", &[&tcp]);
            nodes.publish(Protocol::Udp, "53", &[&udp]);
            let host = host_address(asked);
            let seen = |address: &str| format!("c{answering} {address}");
            assert_eq!(nodes.client.ask(&format!("{host}:8080")).unwrap(), seen(CLIENT));
            let flow = nodes.client.udp(&format!("{host}:53"));
            for _ in 0..3 {
                assert_eq!(exchange(&flow).unwrap(), seen(CLIENT));
            }
            // Another node's machine is a client as any other. On the node itself it is the address that was asked.
            let other = &nodes.nodes[usize::from(asked % 3)];
            let address = host_address(other.number).to_string();
            assert_eq!(other.machine.ask(&format!("{host}:8080")).unwrap(), seen(&address));
            let machine = &nodes.nodes[usize::from(asked) - 1].machine;
            assert_eq!(machine.ask(&format!("{host}:8080")).unwrap(), seen(&host.to_string()));
            let own = mesh_address(asked).to_string();
            for address in ["127.0.0.1", "127.1.2.3"] {
                assert_eq!(machine.ask(&format!("{address}:8080")).unwrap(), seen(&own));
                assert_eq!(exchange(&machine.udp(&format!("{address}:53"))).unwrap(), seen(&own));
            }
            // A neighbour on the mesh, be it the one that answers: as the node that it asked, which is its own.
            let neighbour = &containers[usize::from(asked) - 1];
            assert_eq!(neighbour.ask(&format!("{host}:8080")).unwrap(), seen(&own));
            assert_eq!(neighbour.ask(&format!("{MESH_GATEWAY}:8080")).unwrap(), seen(&own));
        }
    }
    for node in &nodes.nodes {
        assert_eq!(node.leaks(), 0, "{}", node.machine.name);
    }
}

#[test]
fn a_container_elsewhere_on_a_node_is_seen_by_its_own_address() {
    let (mut nodes, containers) = three();
    let _servers = (containers[1].serve("0.0.0.0:80"), containers[1].serve_udp("0.0.0.0:53"));
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
    let node = nodes.node(1);
    node.ensure(bridge("docker0", "172.30.0.1")).unwrap();
    let inside = node.attach("elsewhere", vec![endpoint("docker0", "172.30.0.1", "172.30.0.2")]);
    assert_eq!(inside.ask("192.0.2.1:8080").unwrap(), "c2 172.30.0.2");
    assert_eq!(exchange(&inside.udp("192.0.2.1:53")).unwrap(), "c2 172.30.0.2");
    // Through another node it leaves its own as everything does.
    assert_eq!(inside.ask("192.0.2.3:8080").unwrap(), "c2 192.0.2.1");
    assert_eq!(nodes.node(1).leaks(), 0);
}

#[test]
fn one_port_of_a_client_reaches_one_container_through_several_nodes_at_once() {
    let (mut nodes, containers) = three();
    let _servers = (containers[1].serve("0.0.0.0:80"), containers[1].serve_udp("0.0.0.0:53"));
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
    let mut kept: Vec<TcpStream> = (1..=3)
        .map(|node| connect_from(&nodes.client, 5555, &format!("{}:8080", host_address(node))))
        .collect();
    for stream in &mut kept {
        stream.write_all(b"hello").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("c2 {CLIENT}"));
    }
    let socket = nodes.client.run(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..2 {
        for node in [1, 2, 3, 1] {
            let asked = SocketAddr::from((host_address(node), 53));
            socket.send_to(b"?", asked).unwrap();
            let mut answer = [0; 64];
            let (len, answering) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(answering, asked, "the one that was asked answers");
            assert_eq!(String::from_utf8_lossy(&answer[..len]), format!("c2 {CLIENT}"));
        }
    }
}

#[test]
fn a_container_on_several_networks_answers_by_the_one_that_it_was_asked_on() {
    let (mut nodes, _containers) = three();
    let node = nodes.node(2);
    let overlay = Overlay { vni: 4097, address: "172.30.1.2".parse().unwrap(), ..overlay_of(2) };
    node.ensure(Bridge { overlay: Some(overlay), ..bridge("sk-app", "172.30.0.1") }).unwrap();
    let app = Endpoint { gateway: None, ..endpoint("sk-app", "172.30.0.1", "172.30.0.2") };
    let address = Ipv4Addr::new(10, 9, 0, 9);
    let mesh = Endpoint {
        interface: "eth1".to_owned(),
        prefix: 24,
        mac: MacAddress::of(address),
        ..endpoint(MESH, MESH_GATEWAY, "10.9.0.9")
    };
    let both = node.attach("both", vec![app, mesh]);
    nodes.place(address, 2);
    let _servers = (both.serve("0.0.0.0:80"), both.serve_udp("0.0.0.0:53"));
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.9:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.9:53"]);
    for node in 1..=2 {
        let host = host_address(node);
        assert_eq!(nodes.client.ask(&format!("{host}:8080")).unwrap(), format!("both {CLIENT}"));
        assert_eq!(exchange(&nodes.client.udp(&format!("{host}:53"))).unwrap(), format!("both {CLIENT}"));
    }
    let neighbour = nodes.node(2).attach("neighbour", vec![endpoint("sk-app", "172.30.0.1", "172.30.0.3")]);
    assert_eq!(neighbour.ask("172.30.0.2:80").unwrap(), "both 172.30.0.3");
    // Who is on a network with it and asks a node is answered through that node, too.
    assert_eq!(neighbour.ask("192.0.2.2:8080").unwrap(), "both 10.9.0.202");
    assert_eq!(exchange(&neighbour.udp("192.0.2.2:53")).unwrap(), "both 10.9.0.202");
}

#[test]
fn a_refusal_reaches_the_client_at_once() {
    let (mut nodes, _containers) = three();
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
    for node in 1..=2 {
        let refused = nodes.client.ask(&format!("{}:8080", host_address(node))).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "node {node}");
        let refused = exchange(&nodes.client.udp(&format!("{}:53", host_address(node)))).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "node {node}");
    }
}

#[test]
fn what_a_crash_or_a_flush_took_from_a_container_is_mended_and_kept_connections_go_on() {
    let (mut nodes, containers) = three();
    let _server = containers[1].serve("0.0.0.0:80");
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    let mut kept = nodes.client.connect("192.0.2.1:8080");
    let report = nodes.node(2).restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    containers[1].command("nft flush ruleset");
    nodes.client.cannot_reach("192.0.2.1:8080");
    let report = nodes.node(2).restart();
    let mended = ["have eth0 of sandbox c2 answer through the nodes that are asked"];
    assert_eq!(report.repaired, mended, "{report:?}");
    assert_eq!(nodes.client.ask("192.0.2.1:8080").unwrap(), format!("c2 {CLIENT}"));
    nodes.node(1).restart();
    kept.write_all(b"still there").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("c2 {CLIENT}"));
    // A container that moves is found where it is.
    nodes.node(2).network(|network| network.remove_sandbox("c2")).unwrap();
    let moved = nodes.container(3, "moved", "10.9.0.3");
    let _server = moved.serve("0.0.0.0:80");
    until("the container answers where it is", || {
        nodes.client.ask("192.0.2.1:8080").is_ok_and(|answer| answer == format!("moved {CLIENT}"))
    });
}

#[test]
fn a_node_that_forgot_a_connection_lets_nothing_out_under_a_containers_address() {
    let (mut nodes, containers) = three();
    let server = containers[1].listen_soon("0.0.0.0:80");
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    let client = nodes.client.connect("192.0.2.1:8080");
    let (mut accepted, _) = server.accept().unwrap();
    let there = &nodes.nodes[1];
    there.count_tunnelled();
    let node = &nodes.nodes[0];
    // What belongs to no connection is none's beginning. Connections are forgotten after a second without a packet.
    node.machine.command("sysctl -w net.netfilter.nf_conntrack_tcp_loose=0");
    node.machine.command("sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=1");
    accepted.write_all(b"hello").unwrap();
    let count = || {
        let known = node.machine.command("cat /proc/net/nf_conntrack");
        known.lines().filter(|line| line.contains("dport=8080")).count()
    };
    until("the node forgets the connection", || count() == 0);
    let before = there.tunnelled();
    accepted.write_all(b"anybody there?").unwrap();
    until("the packet is on its way", || there.tunnelled() > before);
    // By the time that this is answered it has passed.
    let asked = nodes.client.connect("192.0.2.1:8080");
    assert_eq!(server.accept().unwrap().1.ip().to_string(), CLIENT);
    drop((asked, client));
    assert_eq!((node.leaks(), there.leaks()), (0, 0));
}

#[test]
fn detaching_leaves_no_rule_in_the_container() {
    let (mut nodes, containers) = three();
    assert!(containers[0].command("nft list ruleset").contains("mesh-eth0"));
    nodes.node(1).network(|network| network.detach("c1", "eth0")).unwrap();
    assert_eq!(containers[0].command("nft list ruleset"), "");
}
