//! What is refused, and that the refusal says why.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::SOON;

#[test]
fn who_does_not_belong_is_not_let_in() {
    let lab = Lab::machines(3, &[]);
    let (first, third) = (lab.address(1).to_string(), lab.address(3).to_string());
    lab.docker(1, &["swarm", "init", "--advertise-addr", &first]).ok();
    lab.docker(3, &["swarm", "init", "--advertise-addr", &third]).ok();
    let token = lab.token(1, "worker");
    let join = |token: &str, address: &str| {
        lab.docker(2, &["swarm", "join", "--token", token, &format!("{address}:2377")])
    };
    join(&lab.token(3, "worker"), &first).fails(1, "remote CA does not match fingerprint");
    join("SWMTKN-1-nonsense", &first).fails(1, "invalid join token");
    lab.docker(1, &["swarm", "join-token", "--rotate", "--quiet", "worker"]).ok();
    join(&token, &first).fails(1, "A valid join token is necessary to join this cluster");
    let inactive = lab.docker(2, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok();
    assert_eq!(inactive, "inactive", "a failed join leaves nothing behind");
    join(&lab.token(1, "worker"), &first).ok();
    join(&lab.token(1, "worker"), &first).fails(1, "This node is already part of a swarm");

    lab.docker(1, &["node", "demote", "self"]).fails(1, "attempting to demote the last manager of the swarm");
    lab.docker(1, &["swarm", "leave"])
        .fails(1, "Removing the last manager erases all current state of the swarm");
    lab.docker(2, &["service", "ls"]).fails(1, "This node is not a swarm manager");
    lab.docker(2, &["swarm", "join-token", "worker"]).fails(1, "This node is not a swarm manager");
}

#[test]
fn a_removed_node_is_let_in_no_more() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "2", "busybox"];
    lab.docker(1, &[&create[..], &["sleep", "1000"]].concat()).ok();
    lab.until_replicas(1, "web", "2/2", SOON);
    let name = lab.docker(2, &["info", "--format", "{{.Name}}"]).ok();
    lab.docker(1, &["node", "rm", "--force", &name]).ok();
    eventually("it runs nothing any more", SOON, || {
        let shown = lab.docker(2, &["ps", "--quiet"]).ok();
        if shown.is_empty() { Ok(()) } else { Err(shown) }
    });
    lab.until_replicas(1, "web", "2/2", SOON);
    lab.run(&["stop", "2"]).ok();
    lab.run(&["start", "2"]).ok();
    let listed = lab.docker(1, &["node", "ls", "--quiet"]).ok();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    lab.docker(2, &["swarm", "leave", "--force"]).ok();
    let joined = lab.docker(2, &["swarm", "join", "--token", &lab.token(1, "worker"), "192.0.2.1:2377"]);
    joined.ok();
}

/// Port 2377 is given noise, half a handshake and plain HTTP: it costs a bounded time, and others are served.
#[test]
fn noise_on_the_cluster_port_is_cut_off() {
    let lab = Lab::up(1, 0, &[]);
    let address = SocketAddr::new(IpAddr::V4(lab.address(1)), 2377);
    let memory = || {
        let pid = std::fs::read_to_string(lab.folder(1).join("skep.pid")).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    lab.inside(0, || {
        let mut open = Vec::new();
        for number in 0..500_u32 {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
                continue;
            };
            let noise: Vec<u8> = match number % 3 {
                0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                1 => (0..4096_u32).map(|byte| (byte * number) as u8).collect(),
                // The head of a TLS record whose rest never comes.
                _ => vec![0x16, 0x03, 0x01, 0x40, 0x00],
            };
            // It may be cut off at once.
            let _ = stream.write_all(&noise);
            open.push(stream);
        }
        for mut stream in open {
            stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            let mut rest = [0; 64];
            // An alert may come first; then the end, in bounded time.
            let ended = loop {
                match stream.read(&mut rest) {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
                    Err(_) => break false,
                }
            };
            assert!(ended, "a connection that says nothing is kept");
        }
    });
    assert!(memory() < before + 32 * 1024, "{} KiB before, {} after", before, memory());
    lab.docker(1, &["node", "ls"]).ok();
}
