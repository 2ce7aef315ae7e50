//! What a daemon finds and mends when it starts after a crash, against the real kernel.

use std::io::{Read, Write};

use crate::support::{GATEWAY, Machine, OUTSIDER, World, endpoint, exchange};
use skep_network::{PublicationKey, PublishError};

#[test]
fn a_crash_and_a_restart_leave_a_healthy_world_untouched() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _servers = (container.serve("0.0.0.0:80"), container.serve_udp("0.0.0.0:53"));
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.publish_udp("dns", "53", &["172.30.0.2:53"]).unwrap();
    let mut kept = world.outside.connect("192.0.2.1:8080");
    let datagrams = world.outside.udp("192.0.2.1:53");
    exchange(&datagrams).unwrap();
    let (links, rules) = (world.host.command("ip link"), world.rules());

    world.crash();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"), "without a daemon");
    world.open();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"), "not reconciled yet");
    let report = world.restart();

    assert!(
        report.repaired.is_empty() && report.removed.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
    assert!(report.contested.is_empty(), "{report:?}");
    assert_eq!(world.host.command("ip link"), links);
    assert_eq!(sorted(&world.rules()), sorted(&rules));
    kept.write_all(b"still there").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("web {OUTSIDER}"));
    assert_eq!(exchange(&datagrams).unwrap(), format!("web {OUTSIDER}"));
    // What was adopted can be changed and withdrawn as if there had been no crash.
    assert!(world.host.listen("0.0.0.0:8080").is_err());
    world.unpublish("web");
    world.outside.cannot_reach("192.0.2.1:8080");
}

#[test]
fn a_port_without_backends_is_no_hindrance_to_a_restart() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    world.publish("web", "8080", &[]).unwrap();
    world.crash();
    let report = world.restart();
    assert!(report.failed.is_empty(), "{report:?}");
    world.outside.cannot_reach("192.0.2.1:8080");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
}

fn sorted(rules: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = rules.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn damage_is_found_and_mended() {
    let mut world = World::new();
    let names = ["bare", "cut", "down", "lost", "fine"];
    let machines: Vec<_> =
        (2..).zip(names).map(|(last, name)| world.container(name, &format!("172.30.0.{last}"))).collect();
    let _servers: Vec<_> = machines.iter().map(|machine| machine.serve("0.0.0.0:80")).collect();
    world.publish("fine", "8080", &["172.30.0.6:80"]).unwrap();
    world.crash();
    // As if the daemon had died between making a veth pair and giving it an address ...
    machines[0].command("ip addr flush dev eth0");
    // ... and somebody had been at work on the host.
    let port = |last: u8| {
        let mac = format!("02:42:ac:1e:00:0{last}");
        let fdb = world.host.command("bridge fdb show br docker0");
        fdb.lines().find(|line| line.starts_with(&mac)).unwrap().split(' ').nth(2).unwrap().to_owned()
    };
    for (last, name) in (2..).zip(names) {
        assert!(world.host.ask(&format!("172.30.0.{last}:80")).is_ok() || name == "bare", "{name}");
    }
    world.host.command(&format!("ip link set {} nomaster", port(3)));
    world.host.command(&format!("ip link set {} down", port(4)));
    world.host.command(&format!("ip link del {}", port(5)));
    world.host.command("ip addr flush dev docker0");
    world.host.command("nft delete table ip skep");

    let report = world.restart();

    assert!(report.failed.is_empty() && report.removed.is_empty(), "{report:?}");
    assert_eq!(report.repaired.len(), 5, "{report:?}");
    for (last, name) in (2..).zip(names) {
        let answer = world.host.ask(&format!("172.30.0.{last}:80"));
        assert_eq!(answer.unwrap(), format!("{name} {GATEWAY}"));
    }
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("fine {OUTSIDER}"));
    assert!(world.restart().repaired.is_empty(), "once is enough");
}

#[test]
fn a_deleted_bridge_comes_back_with_its_containers() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.host.command("ip link del docker0");
    let report = world.restart();
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
    assert_eq!(world.host.ask("127.0.0.1:8080").unwrap(), format!("web {GATEWAY}"));
}

#[test]
fn what_is_ours_and_unwanted_goes_and_what_is_not_ours_stays() {
    let mut world = World::new();
    world.bridge("sk-old", "172.31.0.1");
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    drop(world.container_on("sk-old", "172.31.0.1", "old", "172.31.0.2"));
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.publish("old", "8081", &["172.31.0.2:80"]).unwrap();
    world.host.command("ip link add theirs type bridge");
    world.host.command("ip link add skin type veth peer name deep");
    // A crash between making the file and binding a namespace to it.
    std::fs::write(world.netns_dir().join("half"), "").unwrap();
    world.crash();
    world.desired.bridges.retain(|bridge| bridge.name == "docker0");
    world.desired.sandboxes.remove("old");
    world.desired.publications.remove(&PublicationKey("old".to_owned()));

    let report = world.restart();

    assert!(report.failed.is_empty() && report.repaired.is_empty(), "{report:?}");
    let names: Vec<_> =
        std::fs::read_dir(world.netns_dir()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["web"]);
    let links = world.host.command("ip -o link");
    assert!(links.contains("theirs") && links.contains("skin") && !links.contains("sk-old"), "{links}");
    assert_eq!(world.host.command("ip -o link show master docker0").lines().count(), 1);
    assert!(!world.rules().contains("8081") && !world.rules().contains("sk-old"), "{}", world.rules());
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
}

#[test]
fn a_half_made_sandbox_is_made_whole() {
    let mut world = World::new();
    std::fs::write(world.netns_dir().join("web"), "").unwrap();
    world.desired.sandboxes.insert("web".to_owned(), vec![endpoint("docker0", GATEWAY, "172.30.0.2")]);
    let report = world.restart();
    assert_eq!(report.repaired, ["create sandbox web", "attach eth0 of sandbox web to docker0"]);
    let container = Machine::at("web", &world.netns_dir().join("web"));
    let _server = container.serve("0.0.0.0:80");
    assert_eq!(world.host.ask("172.30.0.2:80").unwrap(), format!("web {GATEWAY}"));
}

#[test]
fn a_port_that_was_taken_while_no_daemon_ran_is_served_and_reported() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.crash();
    let thief = world.host.serve("0.0.0.0:8080");
    let report = world.restart();
    let [(key, PublishError::Bind { port: 8080, .. })] = &report.contested[..] else { panic!("{report:?}") };
    assert_eq!(key.0, "web");
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
    world.unpublish("web");
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("host {OUTSIDER}"));
    drop(thief);
}

#[test]
fn a_lost_port_is_reserved_again_at_the_next_change_after_the_process_has_gone() {
    let mut world = World::new();
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.crash();
    let thief = world.host.serve("0.0.0.0:8080");
    assert_eq!(world.restart().contested.len(), 1);
    drop(thief);
    world.publish("web", "8080", &["172.30.0.2:80", "172.30.0.3:80"]).unwrap();
    assert!(world.host.listen("0.0.0.0:8080").is_err());
}

#[test]
fn what_cannot_be_done_is_reported_and_stops_nothing_else() {
    let mut world = World::new();
    let eth0 = endpoint("absent0", GATEWAY, "172.30.0.9");
    world.desired.sandboxes.insert("odd".to_owned(), vec![eth0]);
    world.desired.sandboxes.insert("../bad".to_owned(), Vec::new());
    world.desired.sandboxes.insert("web".to_owned(), vec![endpoint("docker0", GATEWAY, "172.30.0.2")]);
    let report = world.restart();
    assert_eq!(report.failed.len(), 2, "{report:?}");
    let container = Machine::at("web", &world.netns_dir().join("web"));
    let _server = container.serve("0.0.0.0:80");
    assert_eq!(world.host.ask("172.30.0.2:80").unwrap(), format!("web {GATEWAY}"));
}

#[test]
fn a_table_of_another_layout_is_replaced() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    world.publish("web", "8080", &["172.30.0.2:80"]).unwrap();
    world.crash();
    world.host.command("nft delete table ip skep");
    world.host.command("nft add table ip skep");
    world.host.command("nft add set ip skep ports { type inet_service ; }");
    world.host.command("nft add chain ip skep forward { type filter hook input priority 5 ; }");
    world.restart();
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_of() {
    let mut world = World::new();
    assert!(world.restart().warnings.is_empty());
    world.host.command("nft add table inet theirs");
    world
        .host
        .command("nft add chain inet theirs through { type filter hook forward priority 0 ; policy drop ; }");
    world
        .host
        .command("nft add chain inet theirs inward { type filter hook input priority 0 ; policy drop ; }");
    let report = world.restart();
    let [warning] = &report.warnings[..] else { panic!("{report:?}") };
    assert!(warning.starts_with("chain through of nft table theirs drops forwarded packets"), "{warning}");
}
