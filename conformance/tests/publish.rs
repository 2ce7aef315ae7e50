//! Networks of containers and published ports: from the machine itself, from outside, by TCP and UDP.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use skep_conformance::{ADDRESS, Host, NEIGHBOUR, eventually, http};
/// An HTTP server that tells its container's name and the client's address.
const SERVER: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\nprintf \"\\r\\n\"; hostname; echo $REMOTE_ADDR\\n' \
    > /www/cgi-bin/index.cgi; chmod +x /www/cgi-bin/index.cgi; exec httpd -f -p 80 -h /www";
/// Sends every datagram back.
const ECHO: &str = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 53))\n\
    while True: s.sendto(*s.recvfrom(100))";

fn server(host: &Host, name: &str, options: &[&str]) {
    host.run_detached(name, &[&["--hostname", name], options].concat(), SERVER);
}

/// Connects until there is an answer; the answer.
fn answer(host: &Host, address: Ipv4Addr, port: u16, outside: bool) -> String {
    let fetch = || http::fetch(SocketAddr::from((address, port)));
    eventually(&format!("{address}:{port} answers"), Duration::from_secs(10), || {
        if outside { host.outside(fetch) } else { host.inside(fetch) }
    })
}

fn refused(host: &Host, address: Ipv4Addr, port: u16, outside: bool) {
    let fetch = || http::fetch(SocketAddr::from((address, port)));
    let result = if outside { host.outside(fetch) } else { host.inside(fetch) };
    assert!(result.is_err(), "{address}:{port} answered {result:?}");
}

#[test]
fn a_published_port_answers_from_everywhere_and_keeps_the_clients_address() {
    let host = Host::with_busybox();
    server(&host, "web", &["--publish", "8080:80"]);
    assert!(answer(&host, Ipv4Addr::LOCALHOST, 8080, false).starts_with("web\n"));
    assert!(answer(&host, ADDRESS, 8080, false).starts_with("web\n"));
    assert!(answer(&host, Ipv4Addr::new(172, 17, 0, 1), 8080, false).starts_with("web\n"));
    let seen = answer(&host, ADDRESS, 8080, true);
    assert!(seen.contains(&NEIGHBOUR.to_string()), "the container sees the client's own address: {seen}");
    // From another container, by the host's address, and from the container itself.
    let ask = format!("wget -q -O - http://{ADDRESS}:8080/");
    assert!(host.run(&[], &ask).ok().starts_with("web"));
    assert!(host.docker(&["exec", "web", "sh", "-c", &ask]).ok().starts_with("web"));
    assert_eq!(host.docker(&["port", "web"]).ok().lines().next(), Some("80/tcp -> 0.0.0.0:8080"));
    host.docker(&["rm", "--force", "web"]).ok();
    refused(&host, Ipv4Addr::LOCALHOST, 8080, false);
    refused(&host, ADDRESS, 8080, true);
}

#[test]
fn a_host_address_bounds_who_reaches_a_port() {
    let host = Host::with_busybox();
    server(&host, "local", &["--publish", "127.0.0.1:8081:80"]);
    server(&host, "public", &["--publish", &format!("{ADDRESS}:8082:80")]);
    assert!(answer(&host, Ipv4Addr::LOCALHOST, 8081, false).starts_with("local\n"));
    refused(&host, ADDRESS, 8081, true);
    refused(&host, ADDRESS, 8081, false);
    assert!(answer(&host, ADDRESS, 8082, true).starts_with("public\n"));
    refused(&host, Ipv4Addr::LOCALHOST, 8082, false);
    assert_eq!(host.docker(&["port", "local", "80"]).ok(), "127.0.0.1:8081");
}

#[test]
fn a_neighbour_cannot_reach_a_loopback_port_by_routing() {
    let host = Host::with_busybox();
    server(&host, "local", &["--publish", "127.0.0.1:8081:80"]);
    answer(&host, Ipv4Addr::LOCALHOST, 8081, false);
    // A neighbour on the link may send a packet for 127.0.0.1 to us: it must not be let in.
    let via = ADDRESS.to_string();
    let route = ["-n", &host.neighbour_namespace(), "route", "replace", "127.0.0.1/32", "via", &via]
        .map(str::to_owned);
    std::process::Command::new("ip").args(&route).status().unwrap();
    let delete =
        ["-n", &host.neighbour_namespace(), "route", "delete", "local", "127.0.0.1", "table", "local"]
            .map(str::to_owned);
    std::process::Command::new("ip").args(&delete).status().unwrap();
    let setting = "/proc/sys/net/ipv4/conf/up0/route_localnet";
    host.outside(|| std::fs::write(setting, "1")).unwrap();
    refused(&host, Ipv4Addr::LOCALHOST, 8081, true);
}

#[test]
fn udp_answers_come_back_from_where_they_were_sent() {
    let host = Host::new();
    host.load_image("simple_server");
    let run = ["run", "--detach", "--name", "echo", "--publish", "5353:53/udp", "simple_server"];
    host.docker(&[&run[..], &["python3.11", "-c", ECHO]].concat()).ok();
    let ask = |address: Ipv4Addr| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A connected socket takes answers only from where it asked.
        socket.connect((address, 5353)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send(b"ping").map_err(|error| error.to_string())?;
        let mut buffer = [0; 16];
        let count = socket.recv(&mut buffer).map_err(|error| error.to_string())?;
        if &buffer[..count] == b"ping" { Ok(()) } else { Err(format!("{:?}", &buffer[..count])) }
    };
    let limit = Duration::from_secs(10);
    eventually("from outside", limit, || host.outside(|| ask(ADDRESS)));
    eventually("from the host's own address", limit, || host.inside(|| ask(ADDRESS)));
    eventually("from 127.0.0.1", limit, || host.inside(|| ask(Ipv4Addr::LOCALHOST)));
    assert_eq!(host.docker(&["port", "echo", "53/udp"]).ok().lines().next(), Some("0.0.0.0:5353"));
}

#[test]
fn ports_that_are_taken_are_refused_and_freed_ones_are_not() {
    let host = Host::with_busybox();
    let listener = host.inside(|| TcpListener::bind("0.0.0.0:8090").unwrap());
    host.docker(&["run", "--name", "late", "--publish", "8090:80", "busybox", "true"])
        .fails(125, "address already in use");
    assert_eq!(host.inspect("late", "{{.State.Status}}"), "created");
    drop(listener);
    host.docker(&["start", "late"]).ok();
    server(&host, "web", &["--publish", "8091:80"]);
    host.docker(&["run", "--name", "second", "--publish", "8091:80", "busybox", "true"])
        .fails(125, "Bind for 0.0.0.0:8091 failed: port is already allocated");
    // Another protocol or address is another port.
    host.run(&["--publish", "8091:80/udp"], "true").ok();
    host.docker(&["rm", "--force", "web"]).ok();
    server(&host, "next", &["--publish", "8091:80"]);
    assert!(answer(&host, ADDRESS, 8091, true).starts_with("next\n"));
}

#[test]
fn a_stopped_container_frees_its_port_and_takes_it_again() {
    let host = Host::with_busybox();
    server(&host, "web", &["--publish", "8080:80"]);
    answer(&host, ADDRESS, 8080, true);
    host.docker(&["stop", "--time", "0", "web"]).ok();
    refused(&host, ADDRESS, 8080, true);
    let listener = host.inside(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    drop(listener);
    host.docker(&["start", "web"]).ok();
    assert!(answer(&host, ADDRESS, 8080, true).starts_with("web\n"));
    assert!(answer(&host, Ipv4Addr::LOCALHOST, 8080, false).starts_with("web\n"));
}

#[test]
fn ports_without_a_number_get_one() {
    let host = Host::with_busybox();
    server(&host, "web", &["--publish", "80", "--publish", "127.0.0.1::81"]);
    let printed = host.docker(&["port", "web", "80"]).ok();
    let port: u16 = printed.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    assert!(port >= 32768, "{printed}");
    assert!(answer(&host, ADDRESS, port, true).starts_with("web\n"));
    let local = host.docker(&["port", "web", "81"]).ok();
    assert!(local.starts_with("127.0.0.1:") && !local.ends_with(":0"), "{local}");
}

#[test]
fn a_range_of_host_ports_is_used_in_turn_or_refused() {
    let host = Host::with_busybox();
    let run = |name: &str| {
        let run =
            ["run", "--detach", "--name", name, "--publish", "9000-9002:80", "busybox", "sleep", "1000"];
        host.docker(&run)
    };
    let first = run("range");
    if first.code != 0 {
        first.fails(125, "9000-9002");
        return;
    }
    run("range-too").ok();
    let port = |name: &str| host.docker(&["port", name, "80"]).ok().lines().next().unwrap().to_owned();
    assert_eq!((&*port("range"), &*port("range-too")), ("0.0.0.0:9000", "0.0.0.0:9001"));
}

#[test]
fn the_bridge_gives_addresses_routes_and_a_way_out() {
    let host = Host::with_busybox();
    let printed = host
        .run(&[], "ip -o -4 addr show dev eth0 | awk '{print $4}'; ip route; cat /etc/resolv.conf | wc -l")
        .ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "172.17.0.2/16");
    assert!(lines[1].starts_with("default via 172.17.0.1 dev eth0"), "{printed}");
    assert!(lines[2].starts_with("172.17.0.0/16 dev eth0 "), "{printed}");
    // Out to the neighbour, as the host.
    let listener = host.outside(|| TcpListener::bind((NEIGHBOUR, 7000)).unwrap());
    let accepting = std::thread::spawn(move || listener.accept().unwrap().1.ip());
    host.run(&[], &format!("echo hi | nc {NEIGHBOUR} 7000")).ok();
    assert_eq!(accepting.join().unwrap(), ADDRESS, "masqueraded");
    // Two containers reach each other by address.
    server(&host, "web", &[]);
    let address = host.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let script =
        format!("for i in $(seq 50); do wget -q -O - http://{address}/ && exit; sleep 0.1; done; exit 1");
    assert!(host.run(&[], &script).ok().starts_with("web"));
}

#[test]
fn addresses_are_not_given_twice_and_return() {
    let host = Host::with_busybox();
    let names: Vec<String> = (0..5).map(|number| format!("bee{number}")).collect();
    for name in &names {
        host.run_detached(name, &[], "while :; do sleep 1; done");
    }
    let address = |name: &str| host.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let mut addresses: Vec<String> = names.iter().map(|name| address(name)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    host.docker(&["rm", "--force", "bee2"]).ok();
    host.run_detached("new", &[], "while :; do sleep 1; done");
    assert!(!names.iter().filter(|name| *name != "bee2").any(|name| address(name) == address("new")));
}

#[test]
fn host_and_none_networks() {
    let host = Host::with_busybox();
    let inside =
        host.run(&["--network", "host"], "readlink /proc/self/ns/net; ip -o link | wc -l; hostname").ok();
    let namespace = host.inside(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(lines[0], namespace.to_str().unwrap());
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(lines[2], name.trim(), "the host's network comes with the host's name");
    assert_eq!(host.run(&["--network", "none"], "ip -o link | awk '{print $2}'").ok(), "lo:");
    host.run(&["--network", "none"], "ping -c 1 127.0.0.1 > /dev/null").ok();
    server(&host, "web", &["--network", "host"]);
    assert!(answer(&host, ADDRESS, 80, true).starts_with("web\n"));
    host.run(&["--network", "absent"], "true").fails(125, "network absent not found");
}

#[test]
fn network_ls_shows_the_three_predefined_ones() {
    let host = Host::with_busybox();
    let printed = host.docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).ok();
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["bridge bridge local", "host host local", "none null local"]);
    let id = host.run_detached("bee", &["--network", "bridge"], "while :; do sleep 1; done");
    let shown = host.inspect(
        "bridge",
        &format!("{{{{(index .Containers \"{id}\").Name}}}} {{{{(index .IPAM.Config 0).Subnet}}}}"),
    );
    assert_eq!(shown, "bee 172.17.0.0/16");
    // Networks of one's own are a later issue; these three stay whatever is asked.
    assert_eq!(host.docker(&["network", "rm", "bridge"]).code, 1);
    assert_eq!(host.inspect("bridge", "{{.Name}}"), "bridge");
}
