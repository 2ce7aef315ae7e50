//! Published ports against the real kernel: who reaches what, and whose address is seen.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::support::{
    GATEWAY, HOST, HOST_SECOND, Machine, OUTSIDER, Server, World, exchange, publication, tally, until,
};
use skep_network::{PublicationKey, PublishError};
use skep_types::port::Protocol;

/// A world whose container `web` serves TCP port 80, published as 8080.
fn published() -> (World, Machine, Server) {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let server = container.serve("0.0.0.0:80");
    assert_eq!(world.publish("web", "8080", &["172.30.0.2:80"]).unwrap(), 8080);
    (world, container, server)
}

#[test]
fn a_published_port_answers_outside_and_sees_the_clients_address() {
    let (world, _container, _server) = published();
    for address in ["192.0.2.1:8080", "192.0.2.9:8080"] {
        assert_eq!(world.outside.ask(address).unwrap(), format!("web {OUTSIDER}"));
    }
}

#[test]
fn a_published_port_answers_the_host_by_every_address_of_its() {
    let (world, _container, _server) = published();
    for (address, seen) in [(HOST, HOST), (HOST_SECOND, HOST), (GATEWAY, GATEWAY), ("127.0.0.1", GATEWAY)] {
        assert_eq!(world.host.ask(&format!("{address}:8080")).unwrap(), format!("web {seen}"), "{address}");
    }
}

/// Whether the kernel shows bridged frames to IP's rules; both are common.
const BRIDGE_NETFILTER: [&str; 2] = ["0", "1"];

#[test]
fn a_published_port_answers_a_neighbour_and_the_container_itself() {
    let (mut world, container, _server) = published();
    let neighbour = world.container("neighbour", "172.30.0.3");
    for setting in BRIDGE_NETFILTER {
        world.host.command(&format!("sysctl -w net.bridge.bridge-nf-call-iptables={setting}"));
        for client in [&neighbour, &container] {
            for address in [HOST, GATEWAY] {
                let answer = client.ask(&format!("{address}:8080"));
                assert_eq!(
                    answer.unwrap(),
                    format!("web {GATEWAY}"),
                    "{} to {address}, {setting}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn a_published_port_answers_a_container_of_another_bridge_and_sees_its_address() {
    let (mut world, _container, _server) = published();
    world.bridge("sk-other", "172.31.0.1");
    let stranger = world.container_on("sk-other", "172.31.0.1", "stranger", "172.31.0.2");
    assert_eq!(stranger.ask("192.0.2.1:8080").unwrap(), "web 172.31.0.2");
}

#[test]
fn a_port_published_on_one_address_answers_only_there() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    world.publish("one", "192.0.2.9:8080", &["172.30.0.2:80"]).unwrap();
    world.publish("two", "127.0.0.1:8080", &["172.30.0.2:80"]).unwrap();
    assert_eq!(world.outside.ask("192.0.2.9:8080").unwrap(), format!("web {OUTSIDER}"));
    world.outside.cannot_reach("192.0.2.1:8080");
    assert_eq!(world.host.ask("127.0.0.1:8080").unwrap(), format!("web {GATEWAY}"));
    world.host.cannot_reach("192.0.2.1:8080");
    assert!(world.rules().contains("tcp-192.0.2.9-8080"), "{}", world.rules());
}

#[test]
fn the_hosts_loopback_cannot_be_reached_from_outside_nor_from_containers() {
    let (mut world, container, _server) = published();
    world.publish("local", "127.0.0.1:8081", &["172.30.0.2:80"]).unwrap();
    let _private = world.host.serve("127.0.0.1:9000");
    for (client, gateway, link) in [(&world.outside, HOST, "cable"), (&container, GATEWAY, "eth0")] {
        // A client that wants to do harm lets go of its own loopback and sends 127.0.0.1 to the host.
        client.command(&format!("sysctl -w net.ipv4.conf.{link}.route_localnet=1"));
        client.command("ip addr del 127.0.0.1/8 dev lo");
        client.command("ip rule add pref 1 to 127.0.0.0/8 lookup 100");
        client.command("ip rule del pref 0");
        client.command(&format!("ip route add 127.0.0.0/8 via {gateway} dev {link} table 100"));
        client.command("ip rule add pref 2 lookup local");
        for address in ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9000"] {
            client.cannot_reach(address);
        }
    }
    assert!(world.host.ask("127.0.0.1:8081").is_ok() && world.host.ask("127.0.0.1:9000").is_ok());
}

#[test]
fn a_port_cannot_be_published_twice() {
    let (mut world, _container, _server) = published();
    let same = world.publish("other", "8080", &["172.30.0.2:80"]).unwrap_err();
    assert_eq!(same.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
    let narrower = world.publish("other", "192.0.2.1:8080", &["172.30.0.2:80"]).unwrap_err();
    assert_eq!(narrower.to_string(), "Bind for 192.0.2.1:8080 failed: port is already allocated");
    assert!(matches!(narrower, PublishError::AlreadyAllocated { .. }));
    world.publish_udp("other", "8080", &["172.30.0.2:80"]).unwrap();
    world.publish("web", "8080", &["172.30.0.2:80"]).expect("a key may say the same again");
}

#[test]
fn a_port_that_a_process_has_is_refused_in_dockers_words() {
    let mut world = World::new();
    let _process = world.host.serve("0.0.0.0:8080");
    let _datagrams = world.host.serve_udp("127.0.0.1:8080");
    let tcp = world.publish("web", "8080", &["172.30.0.2:80"]).unwrap_err();
    assert_eq!(
        tcp.to_string(),
        "failed to bind host port for 0.0.0.0:8080:172.30.0.2:80/tcp: address already in use"
    );
    let udp = world.publish_udp("dns", "8080", &["172.30.0.2:53"]).unwrap_err();
    assert_eq!(
        udp.to_string(),
        "failed to bind host port for 0.0.0.0:8080:172.30.0.2:53/udp: address already in use"
    );
    let absent = world.publish("web", "198.51.100.1:8080", &["172.30.0.2:80"]).unwrap_err();
    assert_eq!(
        absent.to_string(),
        "failed to bind host port for 198.51.100.1:8080:172.30.0.2:80/tcp: cannot assign requested address"
    );
    assert!(!world.rules().contains("goto"), "nothing was published: {}", world.rules());
}

#[test]
fn a_port_whose_server_has_just_gone_can_be_published() {
    let mut world = World::new();
    let process = world.host.serve("0.0.0.0:8080");
    // The server closes first, so that its side lingers.
    world.outside.ask("192.0.2.1:8080").unwrap();
    drop(process);
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
}

#[test]
fn a_process_cannot_take_a_published_port_until_it_is_withdrawn() {
    let (mut world, _container, _server) = published();
    world.publish_udp("dns", "53", &["172.30.0.2:53"]).unwrap();
    // The standard library's listeners set SO_REUSEADDR, as most servers do.
    assert_eq!(world.host.listen("0.0.0.0:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(world.host.listen("127.0.0.1:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let bind_udp = |world: &World| world.host.run(|| std::net::UdpSocket::bind("0.0.0.0:53"));
    assert_eq!(bind_udp(&world).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    world.unpublish("web");
    world.unpublish("dns");
    world.host.listen_soon("0.0.0.0:8080");
    until("the UDP port is free", || bind_udp(&world).is_ok());
}

#[test]
fn port_0_is_a_free_port_that_is_told() {
    let (mut world, _container, _server) = published();
    let first = world.publish("a", "0", &["172.30.0.2:80"]).unwrap();
    let second = world.publish("b", "0", &["172.30.0.2:80"]).unwrap();
    assert!(first >= 1024 && second >= 1024 && first != second);
    assert_eq!(world.outside.ask(&format!("192.0.2.1:{second}")).unwrap(), format!("web {OUTSIDER}"));
}

#[test]
fn backends_are_served_evenly_and_in_turn() {
    let mut world = World::new();
    let servers: Vec<_> = (2..7)
        .map(|last| {
            let address = format!("172.30.0.{last}");
            let container = world.container(&format!("task{last}"), &address);
            (container.serve("0.0.0.0:80"), format!("{address}:80"))
        })
        .collect();
    let backends: Vec<&str> = servers.iter().map(|(_, backend)| backend.as_str()).collect();
    world.publish("service", "8080", &backends).unwrap();
    let even: BTreeMap<String, usize> = (2..7).map(|last| (format!("task{last}"), 4)).collect();
    assert_eq!(tally(&world.outside, "192.0.2.1:8080", 20), even);
    assert_eq!(tally(&world.host, "127.0.0.1:8080", 20), even);
    assert!(world.rules().contains("numgen inc mod 5 map"), "{}", world.rules());
}

#[test]
fn a_change_of_backends_leaves_other_connections_alone() {
    let mut world = World::new();
    let first = world.container("first", "172.30.0.2");
    let second = world.container("second", "172.30.0.3");
    let _servers = (first.serve("0.0.0.0:80"), second.serve("0.0.0.0:80"));
    world.publish("service", "8080", &["172.30.0.2:80"]).unwrap();
    let mut kept = world.outside.connect("192.0.2.1:8080");
    world.publish("service", "8080", &["172.30.0.3:80"]).unwrap();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("second {OUTSIDER}"));
    world.unpublish("service");
    world.outside.cannot_reach("192.0.2.1:8080");
    kept.write_all(b"still there").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("first {OUTSIDER}"));
}

#[test]
fn a_service_without_backends_refuses_and_keeps_its_port() {
    let (mut world, _container, _server) = published();
    world.publish("web", "8080", &[]).unwrap();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    world.publish("other", "8080", &["172.30.0.2:80"]).unwrap_err();
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.outside.ask("192.0.2.1:8080").unwrap();
}

#[test]
fn a_key_can_narrow_and_widen_its_port_and_a_refusal_changes_nothing() {
    let (mut world, _container, _server) = published();
    let _process = world.host.serve("0.0.0.0:9000");
    let key = PublicationKey("web".to_owned());
    let ports = ["192.0.2.9:8080", "9000"]
        .map(|front| publication(Protocol::Tcp, front, &["172.30.0.2:80"]))
        .to_vec();
    let refused = world.network(|network| network.publish(key, ports)).unwrap_err();
    assert!(refused.to_string().contains("9000"), "{refused}");
    assert!(world.outside.ask("192.0.2.1:8080").is_ok() && world.host.listen("0.0.0.0:8080").is_err());
    world.publish("web", "192.0.2.9:8080", &["172.30.0.2:80"]).unwrap();
    world.outside.cannot_reach("192.0.2.1:8080");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.outside.ask("192.0.2.1:8080").unwrap();
}

#[test]
fn udp_is_published_from_everywhere() {
    let mut world = World::new();
    let container = world.container("dns", "172.30.0.2");
    let neighbour = world.container("neighbour", "172.30.0.3");
    let _server = container.serve_udp("0.0.0.0:53");
    world.publish_udp("dns", "5353", &["172.30.0.2:53"]).unwrap();
    for (client, address, seen) in [
        (&world.outside, HOST, OUTSIDER),
        (&world.host, "127.0.0.1", GATEWAY),
        (&world.host, HOST, HOST),
        (&neighbour, HOST, GATEWAY),
        (&container, HOST, GATEWAY),
    ] {
        let answer = exchange(&client.udp(&format!("{address}:5353"))).unwrap();
        assert_eq!(answer, format!("dns {seen}"), "{} to {address}", client.name);
    }
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_a_change_of_backends() {
    let mut world = World::new();
    let first = world.container("first", "172.30.0.2");
    let second = world.container("second", "172.30.0.3");
    let _servers = (first.serve_udp("0.0.0.0:53"), second.serve_udp("0.0.0.0:53"));
    let (client, early) = (world.outside.udp("192.0.2.1:5353"), world.outside.udp("192.0.2.1:5353"));
    // Before anything is published the host itself is tracked as the answerer.
    let _ = exchange(&early);
    world.publish_udp("dns", "5353", &["172.30.0.2:53"]).unwrap();
    assert_eq!(exchange(&early).unwrap(), format!("first {OUTSIDER}"));
    assert_eq!(exchange(&client).unwrap(), format!("first {OUTSIDER}"));
    world.publish_udp("dns", "5353", &["172.30.0.3:53"]).unwrap();
    assert_eq!(exchange(&client).unwrap(), format!("second {OUTSIDER}"));
    world.unpublish("dns");
    assert!(!world.host.command("conntrack -L -p udp").contains("dport=5353"));
}

#[test]
fn tables_of_others_stay_and_a_flushed_table_comes_back() {
    let (mut world, _container, _server) = published();
    world.host.command("nft add table ip theirs");
    world.host.command("nft add chain ip theirs forward { type filter hook forward priority 0 ; }");
    let theirs = world.host.command("nft list table ip theirs");
    world.publish("other", "8081", &["172.30.0.2:80"]).unwrap();
    world.unpublish("other");
    assert_eq!(world.host.command("nft list table ip theirs"), theirs);
    // Somebody reloads their firewall, and ours goes with it.
    world.host.command("nft flush ruleset");
    world.outside.cannot_reach("192.0.2.1:8080");
    world.publish("other", "8081", &["172.30.0.2:80"]).unwrap();
    for address in ["192.0.2.1:8080", "192.0.2.1:8081"] {
        assert_eq!(world.outside.ask(address).unwrap(), format!("web {OUTSIDER}"));
    }
}

#[test]
fn withdrawing_everything_leaves_no_chain_behind() {
    let mut world = World::new();
    let before = world.rules();
    world.publish("a", "8080", &["172.30.0.2:80", "172.30.0.3:80"]).unwrap();
    world.publish("b", "192.0.2.1:8081", &["172.30.0.2:80"]).unwrap();
    world.publish_udp("c", "53", &["172.30.0.2:53"]).unwrap();
    assert_ne!(world.rules(), before);
    for key in ["a", "b", "c", "c"] {
        world.unpublish(key);
    }
    assert_eq!(world.rules(), before);
}

#[test]
fn a_change_costs_the_same_beside_a_thousand_services() {
    const SERVICES: u16 = 1000;
    let mut world = World::new();
    let backends: Vec<String> = (2..12).map(|last| format!("172.30.0.{last}:80")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let key = |port: u16| PublicationKey(format!("service-{port}"));
    let one =
        |port: u16, count: usize| vec![publication(Protocol::Tcp, &format!("{port}"), &backends[..count])];
    let mut desired = world.desired.clone();
    desired.publications = (20_000..20_000 + SERVICES).map(|port| (key(port), one(port, 10))).collect();
    let started = std::time::Instant::now();
    let report = world.network(|network| network.reconcile(&desired)).unwrap();
    println!("{SERVICES} services written in {:?}", started.elapsed());
    assert!(report.contested.is_empty(), "{report:?}");
    let mut times = world.network(|network| {
        let timed = |work: &mut dyn FnMut()| {
            let started = std::time::Instant::now();
            work();
            started.elapsed()
        };
        (0..50)
            .map(|round| {
                let publish = timed(&mut || drop(network.publish(key(9), one(9000, 2)).unwrap()));
                let change =
                    timed(&mut || drop(network.publish(key(20_500), one(20_500, 1 + round % 10)).unwrap()));
                let withdraw = timed(&mut || network.unpublish(&key(9)).unwrap());
                [publish, change, withdraw]
            })
            .collect::<Vec<_>>()
    });
    let best = [0, 1, 2].map(|what| times.iter().map(|round| round[what]).min().unwrap());
    times.sort();
    println!("publish, change, withdraw: best {best:?}, median {:?}", times[times.len() / 2]);
    // The best of each, and many times the goal of 0.3 ms: a busy machine must not fail it, a rewrite of all must.
    assert!(best.iter().all(|time| *time < std::time::Duration::from_millis(10)), "{times:?}");
}
