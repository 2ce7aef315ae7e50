//! The tunnel against the kernel: what arrives, what others see on the wire, and what failures cost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use support::{Capture, PORT, World, address, host_address, key, program, tunnelled, until};

fn both(number: u8) -> [IpAddr; 2] {
    [address(number).into(), format!("fd00::{number}").parse().unwrap()]
}

#[test]
fn containers_on_three_hosts_reach_each_other_whatever_the_links_take() {
    for mtu in [1500, 1400, 9000] {
        let world = World::new(3, mtu);
        for (from, to) in [(1, 2), (2, 3), (3, 1)] {
            let (client, server) = (&world.hosts[from - 1].container, &world.hosts[to - 1].container);
            for address in both(to as u8) {
                client.exchange(server, address, 4 << 20);
            }
        }
        // Datagrams beyond any link's size travel in fragments of the container's, none of the host's.
        let capture = Capture::start(&world.switch);
        let server = world.hosts[1].container.udp("10.9.0.2:53");
        let client = world.hosts[0].container.udp("10.9.0.1:0");
        let sent: Vec<u8> = (0..20_000).map(|at| at as u8).collect();
        client.send_to(&sent, "10.9.0.2:53").unwrap();
        let mut received = vec![0; 30_000];
        let len = server.recv(&mut received).unwrap();
        assert!(received[..len] == sent);
        let fragments = |packet: &&Vec<u8>| {
            packet[12..14] == [8, 0] && u16::from_be_bytes([packet[20], packet[21]]) & 0x3fff != 0
        };
        assert_eq!(capture.stop().iter().filter(fragments).count(), 0);
    }
}

const SECRET: &[u8] = b"what nobody on the wire may ever read";

/// Sends the secret from one container to another for some time, and returns how often it arrived and was sent.
fn whisper(world: &World, duration: Duration) -> (usize, usize) {
    let receiver = world.hosts[1].container.udp("10.9.0.2:0");
    let sender = world.hosts[0].container.udp("10.9.0.1:0");
    let to = receiver.local_addr().unwrap();
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut room = [0; 100];
            std::iter::from_fn(|| receiver.recv(&mut room).ok()).count()
        });
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < duration {
            sender.send_to(SECRET, to).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        (counting.join().unwrap(), sent)
    })
}

fn assert_secret(capture: Vec<Vec<u8>>) {
    let carried = capture.iter().filter(|packet| tunnelled(packet, host_address(2)).is_some()).count();
    assert!(carried > 10, "only {carried} packets were seen");
    for packet in &capture {
        let shown = packet.windows(SECRET.len()).any(|window| window == SECRET);
        let is_inner = packet.windows(6).any(|window| window == [0x02, 0x42, 10, 9, 0, 2]);
        assert!(!shown && !is_inner, "{packet:02x?}");
    }
}

#[test]
fn nothing_is_in_clear_on_the_wire_while_keys_rotate_and_processes_die() {
    let mut world = World::new(2, 1500);
    let capture = Capture::start(&world.switch);
    let (received, sent) = whisper(&world, Duration::from_millis(300));
    assert_eq!(received, sent, "nothing is lost between sessions");
    for newest in 3..6 {
        for number in 1..=2 {
            world.host(number).settings.keys = (newest - 2..=newest).map(key).collect();
            world.host(number).tell();
            // A handshake with the new keys, on one side first.
            let before = world.host(number).kill();
            whisper(&world, Duration::from_millis(200));
            until("another process runs", || world.hosts[usize::from(number) - 1].status().pid != before);
        }
        world.wait_for_way(1, 2);
        world.wait_for_way(2, 1);
    }
    assert_secret(capture.stop());
}

#[test]
fn packets_that_were_seen_before_or_altered_are_dropped() {
    let mut world = World::new(2, 1500);
    let capture = Capture::start(&world.switch);
    let receiver = world.hosts[1].container.udp("10.9.0.2:53");
    let sender = world.hosts[0].container.udp("10.9.0.1:0");
    for _ in 0..20 {
        sender.send_to(SECRET, "10.9.0.2:53").unwrap();
        receiver.recv(&mut [0; 100]).unwrap();
    }
    let seen: Vec<Vec<u8>> = capture
        .stop()
        .iter()
        .filter_map(|packet| tunnelled(packet, host_address(2)))
        .filter(|packet| packet.starts_with(&[4, 0, 0, 0]) && packet.len() > 60)
        .map(<[u8]>::to_vec)
        .collect();
    assert!(seen.len() >= 20);
    let attacker = world.switch.udp("192.0.2.100:0");
    let before = world.host(2).status();
    for packet in &seen {
        attacker.send_to(packet, (host_address(2), PORT)).unwrap();
        // A counter that was not used yet, and a byte of what is encrypted.
        for at in [13, 30] {
            let mut altered = packet.clone();
            altered[at] ^= 1;
            attacker.send_to(&altered, (host_address(2), PORT)).unwrap();
        }
    }
    let total = seen.len() as u64;
    until("all of them are counted", || {
        let status = world.hosts[1].status();
        status.replayed + status.forged == before.replayed + before.forged + 3 * total
    });
    assert!(world.host(2).status().forged >= total, "a new counter does not help");
    assert!(receiver.recv(&mut [0; 100]).is_err(), "none arrived");
    // Neither does what is sent to VXLAN's port, or to the tunnel's, in clear.
    for port in [4789, PORT] {
        let mut frame = vec![8, 0, 0, 0, 0, 0x10, 1, 0];
        frame.extend([0x02, 0x42, 10, 9, 0, 2, 0x02, 0x42, 10, 9, 0, 1, 8, 0]);
        frame.extend(SECRET);
        attacker.send_to(&frame, (host_address(2), port)).unwrap();
    }
    assert!(receiver.recv(&mut [0; 100]).is_err());
    world.wait_for_way(1, 2);
}

#[test]
fn who_is_not_of_the_cluster_gets_no_session() {
    let mut world = World::new(3, 1500);
    // The third is not known to the second any more; the first has keys of another cluster.
    world.host(2).settings.hosts.remove(&host_address(3));
    world.host(2).tell();
    world.host(1).settings.keys = vec![key(8), key(9)];
    world.host(1).tell();
    world.hosts[0].kill();
    world.hosts[2].kill();
    world.hosts[0].wait_for_sessions(0);
    let removed = host_address(3);
    until("the removed one has no session", || !world.hosts[1].status().sessions.contains_key(&removed));
    let receiver = world.hosts[1].container.udp("10.9.0.2:53");
    for from in [0, 2] {
        let sender = world.hosts[from].container.udp("0.0.0.0:0");
        for _ in 0..100 {
            sender.send_to(SECRET, "10.9.0.2:53").unwrap();
        }
    }
    assert!(receiver.recv(&mut [0; 100]).is_err());
    assert!(!world.hosts[0].status().sessions.contains_key(&host_address(2)));
    assert!(!world.hosts[2].status().sessions.contains_key(&host_address(2)));
    // Known again, with the right keys, all is well.
    let key3 = world.hosts[2].tunnel.public_key();
    world.host(2).settings.hosts.insert(host_address(3), key3);
    world.host(2).tell();
    world.host(1).settings.keys = vec![key(1), key(2)];
    world.host(1).tell();
    world.wait_for_way(1, 2);
    world.wait_for_way(3, 2);
}

#[test]
fn a_process_that_is_killed_is_started_again_and_spoken_with_at_once() {
    let world = World::new(2, 1500);
    for host in &world.hosts {
        let before = host.kill();
        world.wait_for_way(1, 2);
        world.wait_for_way(2, 1);
        assert_ne!(host.status().pid, before);
        world.hosts[0].container.exchange(&world.hosts[1].container, address(2).into(), 1 << 20);
    }
}

#[test]
fn the_process_goes_on_without_a_daemon_and_as_a_newer_program_without_a_loss() {
    let mut world = World::new(2, 1500);
    let before = world.host(1).status();
    // The same program, in another file: what an upgrade looks like.
    let newer = world.host(1).folder.path().join("newer");
    std::fs::copy(program(), &newer).unwrap();
    world.hosts[0].container.exchange(&world.hosts[1].container, address(2).into(), 1 << 20);
    let (received, sent) = std::thread::scope(|scope| {
        let (container, peer) = (world.hosts[0].container.clone(), world.hosts[1].container.clone());
        let whispering = scope.spawn(move || {
            let receiver = peer.udp("10.9.0.2:0");
            let sender = container.udp("10.9.0.1:0");
            let to = receiver.local_addr().unwrap();
            let counting = std::thread::spawn(move || {
                receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                std::iter::from_fn(|| receiver.recv(&mut [0; 100]).ok()).count()
            });
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < Duration::from_secs(2) {
                sender.send_to(SECRET, to).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (counting.join().unwrap(), sent)
        });
        world.host(1).restart_daemon(newer.clone());
        let is_newer = || {
            let pid = world.hosts[0].status().pid;
            std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| file == newer)
        };
        until("the newer program runs", is_newer);
        whispering.join().unwrap()
    });
    assert_eq!(received, sent);
    let after = world.host(1).status();
    assert_eq!(after.pid, before.pid);
    assert!(after.sessions[&host_address(2)] > before.sessions[&host_address(2)], "the same session");
    world.wait_for_way(2, 1);
}

#[test]
fn garbage_costs_neither_the_process_nor_memory() {
    let world = World::new(2, 1500);
    let before = world.hosts[1].status();
    let memory = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", before.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let attacker = world.switch.udp("192.0.2.100:0");
    let mut state = 3u64;
    let mut garbage = |count: usize| {
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = [0, 1, 15, 31, 32, 76, 128, 129, 1400][(state >> 40) as usize % 9];
            let mut packet = vec![(state >> 20) as u8; len];
            for (byte, kind) in packet
                .iter_mut()
                .zip([[1, 0, 0, 0], [2, 0, 0, 0], [4, 0, 0, 0], [9, 9, 9, 9]][(state >> 50) as usize % 4])
            {
                *byte = kind;
            }
            attacker.send_to(&packet, (host_address(2), PORT)).unwrap();
        }
    };
    garbage(20_000);
    let usual = memory();
    garbage(60_000);
    world.wait_for_way(1, 2);
    assert!(memory() < usual + 4096, "{usual} kB, then {} kB", memory());
    let after = world.hosts[1].status();
    assert_eq!((after.pid, after.sessions.len()), (before.pid, 1));
    assert!(after.unknown > before.unknown);
}

#[test]
fn only_root_may_tell_the_process_what_to_do_and_it_ends_when_there_is_nothing_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(2, 1500);
    let host = &world.hosts[0];
    for file in ["tunnel.sock", "tunnel.key"] {
        let mode = std::fs::metadata(host.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let pid = host.status().pid;
    // Whoever takes the device away need not say so.
    host.machine.command("ip link del tap0");
    until("the process ends", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
    assert!(host.tunnel.trouble().is_none_or(|why| why.contains("tap0")), "{:?}", host.tunnel.trouble());
}
