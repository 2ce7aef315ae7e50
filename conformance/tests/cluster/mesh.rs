//! Published ports: whom a container sees, on which addresses they answer, and what is said where they cannot.

use std::net::TcpListener;

use skep_conformance::{Lab, eventually};

use crate::SOON;

/// An HTTP server that tells a client's address and its own container's name.
const SERVER: &str = r#"mkdir -p /www/cgi-bin; cd /www/cgi-bin
printf '%s\n' '#!/bin/sh' 'printf "Content-Type: text/plain\r\n\r\n%s by %s" "$REMOTE_ADDR" "$(hostname)"' > index.cgi
chmod +x index.cgi; exec httpd -f -p 80 -h /www"#;

fn serve(lab: &Lab, name: &str, options: &[&str]) {
    let head = ["service", "create", "--detach", "--quiet", "--name", name];
    lab.docker(1, &[&head[..], options, &["busybox", "sh", "-c", SERVER]].concat()).ok();
}

/// The client's address that a container saw when a node's port was asked from outside.
fn seen(lab: &Lab, node: u16, port: u16) -> Result<String, String> {
    let answer = lab.fetch(node, port)?;
    let address = answer.split(" by ").next().unwrap_or_default();
    Ok(address.trim_start_matches('[').trim_start_matches("::ffff:").trim_end_matches(']').to_owned())
}

#[test]
fn a_container_sees_the_client_through_every_node() {
    let lab = Lab::up(1, 2, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "shop"]).ok();
    serve(&lab, "web", &["-p", "8080:80"]);
    // Its first network is another one than that of published ports.
    serve(&lab, "shop", &["-p", "8081:80", "--network", "shop"]);
    let client = lab.address(0).to_string();
    for (name, port) in [("web", 8080), ("shop", 8081)] {
        lab.until_replicas(1, name, "1/1", SOON);
        for node in lab.nodes() {
            let what = format!("node {node} answers for {name}");
            assert_eq!(eventually(&what, SOON, || seen(&lab, node, port)), client, "{what}");
        }
    }
}

#[test]
fn a_port_that_a_node_cannot_serve_is_said_with_its_holder() {
    let lab = Lab::up(1, 0, &["busybox"]);
    let taken = lab.inside(1, || TcpListener::bind("0.0.0.0:8080")).unwrap();
    serve(&lab, "web", &["-p", "8080:80"]);
    let shown = ["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "web"];
    let told = lab.until(1, "the task tells", SOON, &shown, |text| text.contains("address already in use"));
    assert!(
        told.starts_with("Running") && told.contains(&format!("process {}", std::process::id())),
        "{told}"
    );
    drop(taken);
    lab.until(1, "it tells no longer", SOON, &shown, |text| !text.contains("address already in use"));
    eventually("the port is served", SOON, || seen(&lab, 1, 8080));

    let second =
        ["service", "create", "--detach", "--name", "other", "-p", "8080:80", "busybox", "sleep", "60"];
    let refused = lab.docker(1, &second);
    assert!(refused.stderr.contains("port '8080' is already in use by service 'web'"), "{refused}");
    let container = lab.docker(1, &["run", "--detach", "-p", "8080:80", "busybox", "sleep", "60"]);
    assert!(container.stderr.contains("port is already allocated (by service web)"), "{container}");
}

#[test]
fn a_label_restricts_a_services_ports_to_an_address() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let label = format!("skep.publish.address={}", lab.address(1));
    serve(&lab, "web", &["-p", "8080:80", "--label", &label]);
    lab.until_replicas(1, "web", "1/1", SOON);
    let client = lab.address(0).to_string();
    assert_eq!(eventually("the node with the address answers", SOON, || seen(&lab, 1, 8080)), client);
    assert!(seen(&lab, 2, 8080).is_err(), "the other node has no such address");
    let loopback = lab.inside(1, || std::net::TcpStream::connect("127.0.0.1:8080"));
    assert!(loopback.is_err(), "nor has the first one's loopback");
}
