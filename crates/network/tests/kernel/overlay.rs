//! Networks that span hosts, and ports that every host serves for backends on any of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::nodes::{CLIENT, MESH, MESH_GATEWAY, Nodes, host_address, mesh_address, mesh_bridge};
use crate::support::{Machine, exchange, tally, until};
use skep_network::{Bridge, LinkError, Overlay, Peers, Transport};
use skep_types::port::Protocol;

/// Two hosts; `here` is on the first, `there` on the second, both serve TCP 80 and UDP 53.
fn pair() -> (Nodes, [Machine; 2]) {
    let mut nodes = Nodes::new(2);
    let here = nodes.container(1, "here", "10.9.0.2");
    let there = nodes.container(2, "there", "10.9.0.3");
    (nodes, [here, there])
}

#[test]
fn a_port_on_one_host_is_answered_by_a_container_on_another() {
    let (mut nodes, [_, there]) = pair();
    let _servers = (there.serve("0.0.0.0:80"), there.serve_udp("0.0.0.0:53"));
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
    let seen = format!("there {CLIENT}");
    for settings in [("0", "0"), ("1", "1"), ("0", "1")] {
        for node in &nodes.nodes {
            // Strict reverse path filters and frames that IP's rules see are both common.
            node.machine.command(&format!("sysctl -w net.ipv4.conf.all.rp_filter={}", settings.0));
            node.machine.command(&format!("sysctl -w net.bridge.bridge-nf-call-iptables={}", settings.1));
        }
        for node in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(nodes.client.ask(&format!("{node}:8080")).unwrap(), seen);
            let flow = nodes.client.udp(&format!("{node}:53"));
            for _ in 0..3 {
                assert_eq!(exchange(&flow).unwrap(), seen);
            }
        }
        // The host itself, by each of its addresses: those that are nobody's outside appear as the host's on the mesh.
        for (address, seen) in [
            ("192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "10.9.0.201"),
            ("10.9.0.201", "10.9.0.201"),
            (MESH_GATEWAY, "10.9.0.201"),
        ] {
            let host = &nodes.nodes[0].machine;
            assert_eq!(host.ask(&format!("{address}:8080")).unwrap(), format!("there {seen}"), "{address}");
            let flow = exchange(&host.udp(&format!("{address}:53")));
            assert_eq!(flow.unwrap(), format!("there {seen}"), "{address}");
        }
    }
}

#[test]
fn containers_reach_each_other_across_hosts_and_the_world_through_their_own() {
    let (mut nodes, [here, there]) = pair();
    let _servers = (here.serve("0.0.0.0:80"), there.serve("0.0.0.0:80"));
    let _outside = nodes.client.serve("0.0.0.0:80");
    assert_eq!(here.ask("10.9.0.3:80").unwrap(), "there 10.9.0.2");
    assert_eq!(there.ask("10.9.0.2:80").unwrap(), "here 10.9.0.3");
    assert_eq!(nodes.node(1).machine.ask("10.9.0.3:80").unwrap(), "there 10.9.0.201");
    // Each host is the gateway of its own containers alone.
    assert_eq!(here.ask(&format!("{CLIENT}:80")).unwrap(), "client 192.0.2.1");
    assert_eq!(there.ask(&format!("{CLIENT}:80")).unwrap(), "client 192.0.2.2");
    // A container that asks its host's port is answered by one on another host.
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    assert_eq!(here.ask("192.0.2.1:8080").unwrap(), "there 10.9.0.201");
    assert_eq!(there.ask("192.0.2.2:8080").unwrap(), "there 10.9.0.202");
}

#[test]
fn two_hundred_connections_are_spread_evenly_over_three_hosts_by_each_of_them() {
    let mut nodes = Nodes::new(3);
    let places = [(1, "a", 2), (1, "b", 3), (2, "c", 4), (3, "d", 5)];
    let machines: Vec<Machine> = places
        .iter()
        .map(|(node, name, last)| nodes.container(*node, name, &format!("10.9.0.{last}")))
        .collect();
    let _servers: Vec<_> = machines.iter().map(|machine| machine.serve("0.0.0.0:80")).collect();
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.2:80", "10.9.0.3:80", "10.9.0.4:80", "10.9.0.5:80"]);
    let even: BTreeMap<String, usize> = places.iter().map(|(_, name, _)| ((*name).to_owned(), 50)).collect();
    for node in 1..=3 {
        assert_eq!(tally(&nodes.client, &format!("192.0.2.{node}:8080"), 200), even, "host {node}");
    }
}

/// Sends `len` bytes each way at once and compares what arrives.
fn transfer(client: &Machine, address: &str, listener: TcpListener, len: usize) {
    let pattern: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
    let swap = |mut stream: std::net::TcpStream, pattern: &[u8]| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(pattern).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(received == pattern, "{} of {} bytes", received.len(), pattern.len());
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| swap(listener.accept().unwrap().0, &pattern));
        swap(client.connect(address), &pattern);
    });
}

#[test]
fn large_transfers_and_large_datagrams_pass_whole() {
    for mtu in [1500, 1300, 9000] {
        let mut nodes = Nodes::new(2);
        nodes.set_mtu(mtu);
        for number in 1..=2 {
            nodes.node(number).ensure(mesh_bridge(number)).unwrap();
        }
        nodes.tell();
        let there = nodes.container(2, "there", "10.9.0.3");
        let here = nodes.container(1, "here", "10.9.0.2");
        nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
        nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
        let inside = there.command("ip link show eth0");
        assert!(inside.contains(&format!("mtu {} ", mtu - 50)), "{inside}");
        transfer(&nodes.client, "192.0.2.1:8080", there.listen_soon("0.0.0.0:80"), 8 << 20);
        transfer(&here, "10.9.0.3:80", there.listen_soon("0.0.0.0:80"), 8 << 20);
        // Datagrams beyond any MTU travel in fragments.
        let server = there.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let client = nodes.client.udp("192.0.2.1:53");
        let (sent, mut received) = (vec![7; 20_000], vec![0; 30_000]);
        client.send(&sent).unwrap();
        let (len, from) = server.recv_from(&mut received).unwrap();
        assert_eq!((len, from.ip().to_string().as_str()), (sent.len(), CLIENT));
        server.send_to(&received[..len], from).unwrap();
        assert_eq!(client.recv(&mut received).unwrap(), sent.len());
    }
}

/// TCP segments that a machine has sent.
fn segments_sent(machine: &Machine) -> u64 {
    let counters = machine.command("cat /proc/thread-self/net/snmp");
    let tcp = counters.lines().rfind(|line| line.starts_with("Tcp:")).unwrap();
    tcp.split(' ').nth(11).unwrap().parse().unwrap()
}

#[test]
fn nothing_is_flooded_to_other_hosts() {
    let (mut nodes, [here, there]) = pair();
    let _server = there.serve("0.0.0.0:80");
    nodes.node(1).count_tunnelled();
    let node = &nodes.nodes[0].machine;
    // Questions for addresses that nobody has, the gateway's and a neighbour's; broadcasts and multicasts.
    here.cannot_reach("10.9.0.77:80");
    node.cannot_reach("10.9.0.78:80");
    let _ = here.ask(&format!("{MESH_GATEWAY}:80"));
    let shouting = here.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    shouting.set_broadcast(true).unwrap();
    for address in ["10.9.0.255:9", "255.255.255.255:9", "224.0.0.251:9"] {
        shouting.send_to(b"anybody?", address).unwrap();
    }
    // A frame for a hardware address that no host has.
    here.command("ip neigh replace 10.9.0.79 lladdr 02:42:0a:09:00:4f dev eth0 nud permanent");
    here.cannot_reach("10.9.0.79:80");
    assert_eq!(nodes.nodes[0].tunnelled(), 0);
    // A question for a container on another host is answered here: the first packets to leave are TCP's.
    here.command("ip neigh flush dev eth0");
    let before = segments_sent(&here);
    assert_eq!(here.ask("10.9.0.3:80").unwrap(), "there 10.9.0.2");
    let neighbours = here.command("ip neigh show");
    assert!(neighbours.contains("10.9.0.3 dev eth0 lladdr 02:42:0a:09:00:03"), "{neighbours}");
    assert_eq!(nodes.nodes[0].tunnelled(), segments_sent(&here) - before, "TCP's packets and no others");
    // Neither side had to ask the other.
    let arp = there.command("ip -s neigh show");
    assert!(arp.contains("10.9.0.2 dev eth0 lladdr 02:42:0a:09:00:02"), "{arp}");
}

#[test]
fn damage_to_an_overlay_is_found_and_mended() {
    let (mut nodes, [_, there]) = pair();
    let _server = there.serve("0.0.0.0:80");
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    let seen = format!("there {}", CLIENT);
    let report = nodes.node(1).restart();
    assert!(
        report.repaired.is_empty() && report.removed.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
    let vxlan = nodes.node(1).vxlan().unwrap();
    for damage in [
        format!("ip link del {vxlan}"),
        format!("ip link set {vxlan} nomaster"),
        format!("ip link set {vxlan} down"),
        format!("ip link set {vxlan} mtu 600"),
        format!("bridge fdb del 02:42:0a:09:00:03 dev {vxlan} self"),
        format!("bridge fdb del 02:42:0a:09:00:03 dev {vxlan} master"),
        format!("bridge fdb replace 02:42:0a:09:00:03 dev {vxlan} dst 192.0.2.99 self permanent"),
        format!("ip neigh del 10.9.0.3 dev {vxlan}"),
        format!("ip neigh replace 10.9.0.3 lladdr 02:42:0a:09:00:99 dev {MESH} nud permanent"),
        format!("ip link set {MESH} address 02:00:00:00:00:01"),
        format!("ip addr del 10.9.0.201/24 dev {MESH}"),
        format!("ip addr del {MESH_GATEWAY}/32 dev {MESH}"),
        format!("ip link del {MESH}"),
        "nft flush ruleset".to_owned(),
    ] {
        nodes.node(1).machine.command(&damage);
        let report = nodes.node(1).restart();
        assert!(report.failed.is_empty(), "{damage}: {report:?}");
        assert_eq!(report.repaired.is_empty(), damage == "nft flush ruleset", "{damage}: {report:?}");
        assert_eq!(nodes.client.ask("192.0.2.1:8080").unwrap(), seen, "{damage}");
        let report = nodes.node(1).restart();
        assert!(
            report.repaired.is_empty() && report.removed.is_empty(),
            "{damage}: once is enough: {report:?}"
        );
    }
    // Somebody else's device of that name, as far as it works, is not taken for ours.
    nodes.node(1).machine.command(&format!("ip link del {vxlan}"));
    nodes.node(1).machine.command(&format!("ip link add {vxlan} type vxlan id 9 dstport 4790"));
    let report = nodes.node(1).restart();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(nodes.client.ask("192.0.2.1:8080").unwrap(), seen);
}

#[test]
fn peers_that_a_dead_daemon_left_are_forgotten() {
    let (mut nodes, [_, there]) = pair();
    let _server = there.serve("0.0.0.0:80");
    let mut peers = nodes.peers_of(1);
    peers.remove(&Ipv4Addr::new(10, 9, 0, 3));
    let node = nodes.node(1);
    node.desired.peers.insert(MESH.to_owned(), peers);
    let report = node.restart();
    assert_eq!(report.repaired.len(), 1, "{report:?}");
    let vxlan = node.vxlan().unwrap();
    assert!(!node.machine.command(&format!("bridge fdb show dev {vxlan}")).contains("0a:09:00:03"));
    assert!(!node.machine.command("ip neigh").contains("10.9.0.3 "));
    assert!(!node.machine.command("nft list ruleset").contains("10.9.0.3"));
    node.machine.cannot_reach("10.9.0.3:80");
}

#[test]
fn removal_leaves_nothing() {
    let (mut nodes, _) = pair();
    let node = nodes.node(1);
    node.network(|network| network.remove_sandbox("here")).unwrap();
    let before = node.machine.command("nft list ruleset");
    assert!(before.contains(&format!("hairpin-{MESH}")), "{before}");
    node.network(|network| network.remove_bridge(MESH)).unwrap();
    let links = node.machine.command("ip -o link");
    assert!(!links.contains(MESH) && !links.contains("vxlan"), "{links}");
    assert_eq!(node.vxlan(), None);
    assert!(!node.machine.command("nft list ruleset").contains(MESH));
    assert!(!node.machine.command("ss -lnu").contains("4789"));
    assert!(!node.machine.command("ip neigh").contains("10.9."));
    // Also what a daemon finds that is told of no network any more.
    let node = nodes.node(2);
    (node.desired.bridges, node.desired.sandboxes, node.desired.peers) = Default::default();
    let report = node.restart();
    assert!(report.failed.is_empty() && report.repaired.is_empty(), "{report:?}");
    assert_eq!(node.vxlan(), None);
    assert_eq!(node.machine.command("ip -o link").lines().count(), 2, "loopback and the uplink");
}

#[test]
fn a_cluster_of_one_host_opens_no_port_and_shares_its_machine() {
    let mut nodes = Nodes::new(1);
    let node = nodes.node(1);
    assert_eq!(node.vxlan(), None);
    assert!(!node.machine.command("ss -lnu").contains("4789"));
    // Another one with the same numbers is fine as long as one of them has no peers.
    let overlay = Overlay { address: Ipv4Addr::new(10, 8, 0, 201), ..mesh_bridge(1).overlay.unwrap() };
    let other = Bridge {
        name: "sk-other".to_owned(),
        gateway: Ipv4Addr::new(10, 8, 0, 1),
        overlay: Some(overlay),
        ..mesh_bridge(1)
    };
    node.ensure(other).unwrap();
    let peers = Peers::from([(Ipv4Addr::new(10, 9, 0, 3), host_address(2))]);
    node.set_peers(&peers).unwrap();
    let refused = node.network(|network| network.set_peers("sk-other", &peers));
    let Err(LinkError::Kernel(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().starts_with("cannot create VXLAN 4096 from 192.0.2.1 at port 4789"), "{error}");
    // The first one's last peer makes room.
    node.set_peers(&Peers::new()).unwrap();
    assert_eq!(node.vxlan(), None);
    node.network(|network| network.set_peers("sk-other", &peers)).unwrap();
    assert!(node.vxlan().is_some());
    let unknown = node.network(|network| network.set_peers("docker9", &peers));
    assert!(matches!(unknown, Err(LinkError::NoOverlay(name)) if name == "docker9"));
}

#[test]
fn a_thousand_peers_are_told_at_once() {
    let mut nodes = Nodes::new(1);
    let node = nodes.node(1);
    let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 4, 0)) + number);
    let all: Peers =
        (0..1000).map(|number| (address(number), host_address(2 + (number % 50) as u8))).collect();
    let begun = Instant::now();
    node.set_peers(&all).unwrap();
    let told = begun.elapsed();
    let vxlan = node.vxlan().unwrap();
    assert_eq!(node.machine.command(&format!("bridge fdb show dev {vxlan}")).matches(" dst ").count(), 1000);
    let moved: Peers = [(address(5), host_address(99))].into();
    let begun = Instant::now();
    node.network(|network| network.change_peers(MESH, &moved, &[address(6), address(2000)].into())).unwrap();
    let changed = begun.elapsed();
    let fdb = node.machine.command(&format!("bridge fdb show dev {vxlan}"));
    assert!(fdb.contains("02:42:0a:09:04:05 dst 192.0.2.99") && !fdb.contains("02:42:0a:09:04:06"), "{fdb}");
    let begun = Instant::now();
    node.set_peers(&all).unwrap();
    println!(
        "1,000 peers told in {told:?}, one moved and one removed in {changed:?}, compared in {:?}",
        begun.elapsed()
    );
    assert!(told < Duration::from_secs(1) && changed < Duration::from_millis(200));
    // A thousand refusals, that nobody minds, and the answers still fit.
    let unknown = (3000..4000).map(address).collect();
    node.network(|network| network.change_peers(MESH, &Peers::new(), &unknown)).unwrap();
    // A thousand that matter, and the socket is as good as before.
    node.machine.command(&format!("ip link del {vxlan}"));
    let refused = node.network(|network| network.change_peers(MESH, &all, &unknown));
    assert!(matches!(refused, Err(LinkError::Kernel(_))), "{refused:?}");
    node.set_peers(&all).unwrap();
    let vxlan = node.vxlan().unwrap();
    assert_eq!(node.machine.command(&format!("bridge fdb show dev {vxlan}")).matches(" dst ").count(), 1000);
    node.set_peers(&Peers::new()).unwrap();
    assert_eq!(node.machine.command("ip neigh show nud permanent"), "");
}

#[test]
fn connections_outlive_changes_of_others_and_end_with_their_backend() {
    let (mut nodes, [_, there]) = pair();
    let server = there.serve("0.0.0.0:80");
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.3:53"]);
    let datagrams = there.serve_udp("0.0.0.0:53");
    let mut kept = nodes.client.connect("192.0.2.1:8080");
    let flow = nodes.client.udp("192.0.2.1:53");
    exchange(&flow).unwrap();
    let third = nodes.container(2, "third", "10.9.0.4");
    let _third = (third.serve("0.0.0.0:80"), third.serve_udp("0.0.0.0:53"));
    // The endpoint no longer sends there; the connection drains while the task is there. A flow moves at once.
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.4:80"]);
    nodes.publish(Protocol::Udp, "53", &["10.9.0.4:53"]);
    assert_eq!(nodes.client.ask("192.0.2.1:8080").unwrap(), format!("third {CLIENT}"));
    kept.write_all(b"still there").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("there {CLIENT}"));
    until("the flow moves", || exchange(&flow).is_ok_and(|answer| answer == format!("third {CLIENT}")));
    drop((server, datagrams));
}

#[test]
fn a_host_that_joins_takes_its_place_on_a_network_that_it_had_alone() {
    let mut nodes = Nodes::new(2);
    // As it was before the cluster gave it an address.
    let node = nodes.node(1);
    node.set_peers(&Peers::new()).unwrap();
    node.ensure(Bridge { overlay: None, mtu: 1450, ..mesh_bridge(1) }).unwrap();
    let here = nodes.node(1).container("here", "10.9.0.2");
    let _client = nodes.client.serve("0.0.0.0:80");
    assert_eq!(here.ask(&format!("{CLIENT}:80")).unwrap(), "client 192.0.2.1");
    nodes.node(1).ensure(mesh_bridge(1)).unwrap();
    let there = nodes.container(2, "there", "10.9.0.3");
    let _server = there.serve("0.0.0.0:80");
    // Nobody told the other host of this container yet, so its answers go nowhere.
    here.cannot_reach("10.9.0.3:80");
    assert_eq!(here.ask(&format!("{CLIENT}:80")).unwrap(), "client 192.0.2.1");
    nodes.publish(Protocol::Tcp, "8080", &["10.9.0.3:80"]);
    assert_eq!(here.ask("192.0.2.1:8080").unwrap(), "there 10.9.0.201");
}

#[test]
fn a_network_that_a_process_carries_has_a_tap_device_that_is_mended_like_others() {
    let mut nodes = Nodes::new(2);
    let here = nodes.container(1, "here", "10.9.0.2");
    let peers = nodes.peers_of(1);
    let node = nodes.node(1);
    let overlay = Overlay { transport: Transport::Process, overhead: 32, ..mesh_bridge(1).overlay.unwrap() };
    node.ensure(Bridge { overlay: Some(overlay), ..mesh_bridge(1) }).unwrap();
    assert_eq!(node.vxlan(), None, "nothing goes in clear");
    let tap = node.network(|network| network.overlay_device(MESH));
    let shown = |node: &crate::support::nodes::Node| node.machine.command(&format!("ip -d link show {tap}"));
    let link = shown(node);
    for word in ["mtu 1418 ", &format!("master {MESH} "), "flood off", "neigh_suppress on", "learning off"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    // A question for a peer is answered by the bridge: there is no process that could have.
    here.cannot_reach("10.9.0.202:80");
    let neighbours = here.command("ip neigh show");
    assert!(neighbours.contains("10.9.0.202 dev eth0 lladdr 02:42:0a:09:00:ca"), "{neighbours}");
    let report = node.restart();
    assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
    for damage in [
        format!("ip link del {tap}"),
        format!("ip link set {tap} nomaster"),
        format!("ip link set {tap} down"),
        format!("ip link set {tap} mtu 600"),
        format!("bridge fdb del 02:42:0a:09:00:ca dev {tap} master"),
        format!("ip neigh replace 10.9.0.202 lladdr 02:42:0a:09:00:99 dev {MESH} nud permanent"),
    ] {
        node.machine.command(&damage);
        let report = node.restart();
        assert!(!report.repaired.is_empty() && report.failed.is_empty(), "{damage}: {report:?}");
        let report = node.restart();
        assert!(
            report.repaired.is_empty() && report.failed.is_empty(),
            "{damage}: once is enough: {report:?}"
        );
    }
    let table =
        |node: &crate::support::nodes::Node| node.machine.command(&format!("bridge fdb show dev {tap}"));
    assert!(table(node).contains("02:42:0a:09:00:ca master sk-mesh static"), "{}", table(node));
    let address = mesh_address(2);
    node.network(|network| network.change_peers(MESH, &Peers::new(), &[address].into())).unwrap();
    assert!(!node.machine.command("ip link").contains(&tap), "none without peers");
    node.network(|network| network.change_peers(MESH, &peers, &[].into())).unwrap();
    assert!(table(node).contains("02:42:0a:09:00:ca master sk-mesh static"), "{}", table(node));
    node.network(|network| network.remove_bridge(MESH)).unwrap();
    assert!(!node.machine.command("ip link").contains(&tap));
}
