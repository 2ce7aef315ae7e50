//! Networks that users make on one machine: bridges, several networks of a container, and names.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use skep_conformance::{Host, eventually, http};

/// An HTTP server that tells its container's host name.
const SERVER: &str = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

fn server(host: &Host, name: &str, options: &[&str]) -> String {
    host.run_detached(name, &[&["--hostname", name], options].concat(), SERVER)
}

/// What a web server says that a container finds under a name. The image's programs are linked statically, so that only its
/// `nslookup` knows how to ask for names.
fn fetch(host: &Host, from: &str, name: &str) -> Result<String, String> {
    let script = format!(
        "for try in 1 2 3 4 5 6 7 8 9 10; do address=$(nslookup -type=a {name} | sed -n 's/^Address: //p' | head -n 1); \
         [ -n \"$address\" ] && timeout 3 wget -q -O - http://$address/ && exit 0; sleep 0.2; done; exit 1"
    );
    let output = host.docker(&["exec", from, "sh", "-c", &script]);
    if output.code == 0 { Ok(output.stdout.trim().to_owned()) } else { Err(output.stderr) }
}

/// The default route of a container.
fn default_route(host: &Host, name: &str) -> String {
    host.docker(&["exec", name, "sh", "-c", "ip route | grep ^default || true"]).ok()
}

/// Whether a name is known to a container's resolver.
fn knows(host: &Host, from: &str, name: &str) -> bool {
    host.docker(&["exec", from, "nslookup", "-type=a", name]).code == 0
}

#[test]
fn a_network_of_ones_own_is_made_shown_and_removed() {
    let host = Host::with_busybox();
    let create =
        ["network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.9", "--label", "a=b"];
    let id =
        host.docker(&[&create[..], &["--opt", "com.docker.network.driver.mtu=1400", "shop"]].concat()).ok();
    assert_eq!(id.len(), 64);
    let format = "{{.Driver}} {{.Scope}} {{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} \
                  {{index .Labels \"a\"}} {{index .Options \"com.docker.network.driver.mtu\"}}";
    let shown = host.docker(&["network", "inspect", "--format", format, "shop"]).ok();
    assert_eq!(shown, "bridge local 10.77.0.0/24 10.77.0.9 b 1400");
    let listed = host.docker(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]).ok();
    assert_eq!(listed, "shop");
    host.docker(&["network", "create", "shop"]).fails(1, "network with name shop already exists");
    host.docker(&["network", "create", "--subnet", "10.77.0.0/25", "other"])
        .fails(1, "Pool overlaps with other one on this address space");
    host.docker(&["network", "create", "bridge"])
        .fails(1, "operation is not permitted on predefined bridge network");
    host.docker(&["network", "create", "--opt", "colour=red", "other"]).fails(1, "colour");
    host.docker(&["network", "create", "--driver", "overlay", "other"])
        .fails(1, "This node is not a swarm manager.");
    server(&host, "web", &["--network", "shop"]);
    let mtu = host.docker(&["exec", "web", "cat", "/sys/class/net/eth0/mtu"]).ok();
    assert_eq!(mtu, "1400");
    host.docker(&["network", "rm", "shop"]).fails(1, "network shop has active endpoints (name:\"web\"");
    host.docker(&["network", "rm", "bridge"])
        .fails(1, "bridge is a pre-defined network and cannot be removed");
    host.docker(&["rm", "--force", "web"]).ok();
    assert_eq!(host.docker(&["network", "rm", "shop"]).ok(), "shop");
    host.docker(&["network", "inspect", "shop"]).fails(1, "network shop not found");
    let links = host.command_with("ip", &["-o", "link", "show", "type", "bridge"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("br-"), "its bridge is gone");
}

#[test]
fn names_are_answered_on_networks_of_ones_own() {
    let host = Host::with_busybox();
    host.docker(&["network", "create", "front"]).ok();
    host.docker(&["network", "create", "back"]).ok();
    server(&host, "db", &["--network", "back", "--network-alias", "store"]);
    server(&host, "web", &["--network", "front", "--network", "back"]);
    server(&host, "outside", &["--network", "front"]);
    let conf = host.docker(&["exec", "web", "cat", "/etc/resolv.conf"]).ok();
    assert!(conf.starts_with("nameserver 127.0.0.11\n") && conf.contains("ndots:0"), "{conf}");
    for name in ["db", "store", "db.back"] {
        assert_eq!(fetch(&host, "web", name).as_deref(), Ok("db"), "{name}");
    }
    let short = host.inspect("db", "{{slice .Id 0 12}}");
    assert_eq!(fetch(&host, "web", &short).as_deref(), Ok("db"));
    assert_eq!(fetch(&host, "outside", "web").as_deref(), Ok("web"));
    assert!(!knows(&host, "outside", "db"), "names stay on their network");
    // Who is on no common network is not reached either.
    let address = host.inspect("db", "{{.NetworkSettings.Networks.back.IPAddress}}");
    let ask = format!("timeout 1 wget -q -O - http://{address}/");
    assert_ne!(host.docker(&["exec", "outside", "sh", "-c", &ask]).code, 0);
    let pointer = host.docker(&["exec", "web", "nslookup", &address]).ok();
    assert!(pointer.contains("db.back"), "{pointer}");
    let names = host.inspect("db", "{{json .NetworkSettings.Networks.back.DNSNames}}");
    assert_eq!(names, format!("[\"db\",\"store\",\"{short}\"]"));
    assert_eq!(host.inspect("db", "{{json .NetworkSettings.Networks.back.Aliases}}"), "[\"store\"]");
    // The default bridge has none of this, as in Docker.
    let conf = host.run(&[], "cat /etc/resolv.conf").ok();
    assert!(!conf.contains("127.0.0.11"), "{conf}");
}

#[test]
fn running_and_stopped_containers_are_connected_and_disconnected() {
    let host = Host::with_busybox();
    host.docker(&["network", "create", "--subnet", "10.78.0.0/24", "shop"]).ok();
    server(&host, "web", &["--network", "shop"]);
    server(&host, "late", &[]);
    host.docker(&["network", "connect", "--alias", "cache", "--ip", "10.78.0.77", "shop", "late"]).ok();
    assert_eq!(fetch(&host, "web", "cache").as_deref(), Ok("late"));
    assert_eq!(fetch(&host, "late", "web").as_deref(), Ok("web"));
    assert_eq!(host.inspect("late", "{{.NetworkSettings.Networks.shop.IPAddress}}"), "10.78.0.77");
    let hosts = host.docker(&["exec", "late", "cat", "/etc/hosts"]).ok();
    assert!(hosts.contains("10.78.0.77\tlate"), "{hosts}");
    host.docker(&["network", "connect", "shop", "late"])
        .fails(1, "endpoint with name late already exists in network shop");
    host.docker(&["run", "--rm", "--network", "shop", "--ip", "10.78.0.77", "busybox", "true"])
        .fails(125, "Address already in use");
    host.docker(&["network", "connect", "--alias", "x", "bridge", "web"])
        .fails(1, "network-scoped aliases are only supported for user-defined networks");
    host.docker(&["network", "disconnect", "shop", "late"]).ok();
    assert!(!knows(&host, "web", "cache"));
    assert_eq!(host.inspect("late", "{{len .NetworkSettings.Networks}}"), "1");
    host.docker(&["network", "disconnect", "shop", "late"]).fails(1, "is not connected to network shop");

    // A stopped one keeps what it is told, across a restart of the daemon.
    let mut host = host;
    host.docker(&["kill", "late"]).ok();
    host.docker(&["network", "connect", "--alias", "cache", "shop", "late"]).ok();
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["start", "late"]).ok();
    assert_eq!(fetch(&host, "web", "cache").as_deref(), Ok("late"));
}

#[test]
fn the_first_network_that_leads_outside_has_the_default_route_and_the_ports() {
    let host = Host::with_busybox();
    host.docker(&["network", "create", "--internal", "--subnet", "10.79.0.0/24", "closed"]).ok();
    host.docker(&["network", "create", "--subnet", "10.79.1.0/24", "open"]).ok();
    server(&host, "web", &["--network", "closed", "--network", "open", "--publish", "8080:80"]);
    let route = default_route(&host, "web");
    assert!(route.starts_with("default via 10.79.1.1"), "{route}");
    assert_eq!(host.curl_from_outside(8080).as_deref().map(str::trim), Ok("web"));
    host.docker(&["network", "disconnect", "open", "web"]).ok();
    assert_eq!(default_route(&host, "web"), "");
    assert!(host.curl_from_outside(8080).is_err());
    host.docker(&["network", "connect", "bridge", "web"]).ok();
    let route = default_route(&host, "web");
    assert!(route.starts_with("default via 172.17.0.1"), "{route}");
    assert_eq!(host.curl_from_outside(8080).as_deref().map(str::trim), Ok("web"));
}

#[test]
fn a_container_joins_anothers_network() {
    let host = Host::with_busybox();
    server(&host, "web", &[]);
    let seen = host.run(&["--network", "container:web"], "wget -q -O - http://127.0.0.1/; hostname").ok();
    assert_eq!(seen, "web\nweb");
    host.docker(&["run", "--rm", "--network", "container:web", "--publish", "80", "busybox", "true"])
        .fails(125, "conflicting options");
    host.docker(&["kill", "web"]).ok();
    host.docker(&["run", "--rm", "--network", "container:web", "busybox", "true"])
        .fails(125, "cannot join network namespace of a non running container: container web is exited");
}

#[test]
fn what_nobody_uses_is_pruned() {
    let host = Host::with_busybox();
    for name in ["used", "idle"] {
        host.docker(&["network", "create", name]).ok();
    }
    host.docker(&["network", "create", "--label", "keep", "kept"]).ok();
    server(&host, "web", &["--network", "used"]);
    let pruned = host.docker(&["network", "prune", "--force", "--filter", "label!=keep"]).ok();
    assert_eq!(pruned, "Deleted Networks:\nidle");
    let left = host.docker(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]).ok();
    assert_eq!(left, "kept\nused");
    let dangling = host.docker(&["network", "ls", "--filter", "dangling=true", "--format", "{{.Name}}"]).ok();
    assert_eq!(dangling, "kept");
}

#[test]
fn a_configuration_makes_networks() {
    let host = Host::with_busybox();
    host.docker(&["network", "create", "--config-only", "--subnet", "10.80.0.0/24", "plan"]).ok();
    host.docker(&["network", "create", "--config-from", "plan", "made"]).ok();
    let subnet =
        host.docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "made"]).ok();
    assert_eq!(subnet, "10.80.0.0/24");
    host.docker(&["network", "rm", "plan"]).fails(1, "configuration network \"plan\" is in use");
    host.docker(&["network", "create", "--config-from", "nothing", "other"])
        .fails(1, "configuration network \"nothing\" does not exist");
    host.docker(&["run", "--rm", "--network", "plan", "busybox", "true"])
        .fails(125, "cannot create endpoint on configuration-only network");
}

#[test]
fn a_killed_daemon_finds_networks_and_names_again() {
    let mut host = Host::with_busybox();
    host.docker(&["network", "create", "shop"]).ok();
    server(&host, "web", &["--network", "shop", "--network-alias", "www"]);
    server(&host, "client", &["--network", "shop"]);
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(fetch(&host, "client", "www").as_deref(), Ok("web"));
    host.docker(&["network", "rm", "shop"]).fails(1, "has active endpoints");
    let address = host.inspect("web", "{{.NetworkSettings.Networks.shop.IPAddress}}");
    server(&host, "more", &["--network", "shop"]);
    assert_ne!(host.inspect("more", "{{.NetworkSettings.Networks.shop.IPAddress}}"), address);
    assert_eq!(fetch(&host, "client", "more").as_deref(), Ok("more"));
    host.docker(&["rm", "--force", "web", "client", "more"]).ok();
    host.docker(&["network", "rm", "shop"]).ok();
}

/// What the host hears at a port of an address of IPv6.
fn ask6(host: &Host, address: Ipv6Addr, port: u16) -> Result<String, String> {
    host.inside(|| http::fetch(SocketAddr::from((address, port))))
}

#[test]
fn a_network_with_ipv6_gives_addresses_names_and_published_ports() {
    let mut host = Host::with_busybox();
    // Where the kernel shows bridged frames to rules, [::1] is refused; a machine without that module has no such file.
    drop(host.command_with("sysctl", &["-qw", "net.bridge.bridge-nf-call-ip6tables=0"]).status());
    let subnets = ["--subnet", "10.78.0.0/24", "--subnet", "fd00:78::/64"];
    host.docker(&[&["network", "create", "--ipv6"], &subnets[..], &["six"]].concat()).ok();
    let format = "{{.EnableIPv6}} {{(index .IPAM.Config 1).Subnet}} {{(index .IPAM.Config 1).Gateway}}";
    let shown = host.docker(&["network", "inspect", "--format", format, "six"]).ok();
    assert_eq!(shown, "true fd00:78::/64 fd00:78::1");
    host.docker(&["network", "create", "--ipv6", "--subnet", "fd00:78::/80", "other"])
        .fails(1, "Pool overlaps with other one on this address space");
    host.docker(&["network", "create", "--ipv6", "--subnet", "fd00:79::/112", "other"])
        .fails(1, "may have at most 96 bits");
    host.docker(&["network", "create", "--ipv6", "drawn"]).ok();
    let format = "{{(index .IPAM.Config 1).Subnet}}";
    let drawn = host.docker(&["network", "inspect", "--format", format, "drawn"]).ok();
    assert!(drawn.starts_with("fd") && drawn.ends_with("::/64"), "{drawn}");
    server(&host, "web", &["--network", "six", "--publish", "8080:80"]);
    server(&host, "asker", &["--network", "six"]);
    server(&host, "four", &["--publish", "8081:80"]);
    let of = "{{with .NetworkSettings.Networks.six}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}";
    let address = host.docker(&["inspect", "--format", of, "web"]).ok();
    assert_eq!(address, "fd00:78::a4e:2/64 fd00:78::1");
    let published = host.docker(&["port", "web"]).ok();
    assert_eq!(published, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    assert_eq!(host.docker(&["port", "four"]).ok(), "80/tcp -> 0.0.0.0:8081");
    let look_up =
        |question: &[&str]| host.docker(&[&["exec", "asker", "nslookup"], question].concat()).stdout;
    assert!(
        look_up(&["-type=aaaa", "web"]).contains("fd00:78::a4e:2"),
        "{}",
        look_up(&["-type=aaaa", "web"])
    );
    assert!(look_up(&["fd00:78::a4e:2"]).contains("web"), "{}", look_up(&["fd00:78::a4e:2"]));
    let script = "wget -q -O - http://[fd00:78::a4e:2]/";
    assert_eq!(host.docker(&["exec", "asker", "sh", "-c", script]).ok(), "web");
    for restarted in [false, true] {
        if restarted {
            host.kill_daemon();
            host.start_daemon();
        }
        for to in [Ipv6Addr::LOCALHOST, "fd00:78::1".parse().unwrap()] {
            let answer = eventually("the port answers", Duration::from_secs(10), || ask6(&host, to, 8080));
            assert_eq!(answer.trim(), "web", "{to}");
        }
        assert!(ask6(&host, Ipv6Addr::LOCALHOST, 8081).is_err(), "nobody is there over IPv6");
        assert_eq!(host.docker(&["inspect", "--format", of, "web"]).ok(), address);
    }
    host.docker(&["rm", "--force", "web"]).ok();
    assert!(ask6(&host, Ipv6Addr::LOCALHOST, 8080).is_err());
}
