//! What programs in containers do with it.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skep_names::Forwarding;

use crate::resolver::{self, Resolver};
use crate::support::{Sandbox, World, at, exchange};

/// The rules that `skep_network` puts into a sandbox.
const REDIRECTION: &str = "table ip names { chain output { type nat hook output priority -100; \
    ip daddr 127.0.0.11 meta l4proto { tcp, udp } th dport 53 dnat to 127.0.0.11:14; }; }";

fn redirect(sandbox: &Sandbox) {
    let done = sandbox.command(&["nft", REDIRECTION]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Runs a program in the sandbox with a `resolv.conf` like a container's.
fn in_container(world: &World, sandbox: &Sandbox, line: &str) -> (bool, String) {
    let resolv_conf = world.folder.path().join("container-resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.11\nsearch example\noptions ndots:0\n").unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf && exec {line}", resolv_conf.display());
    let output = sandbox.command(&["unshare", "--mount", "sh", "-c", &mount]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

pub async fn the_c_library_and_busybox_find_names() {
    let _resolver = Resolver::start(at("127.0.0.53"), |question, _| {
        vec![match question.queries[0].name.to_ascii().as_str() {
            "www.other.example." | "nas.example." => resolver::found(question, &[[192, 0, 2, 1]]),
            _ => resolver::code(question, ResponseCode::NXDomain),
        }]
    });
    let world = World::with_shop();
    std::fs::write(&world.config.resolv_conf, "nameserver 127.0.0.53\nsearch example\n").unwrap();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    redirect(&sandbox);
    let run = |line: &str| in_container(&world, &sandbox, line);
    let (found, text) = run("getent -A -s dns ahostsv4 tasks.web");
    assert!(found && text.contains("10.0.1.3") && text.contains("10.0.1.4"), "{text}");
    let (found, text) = run("getent -A -s dns ahostsv6 web");
    assert!(found && text.contains("fd00:1::a00:102"), "{text}");
    let (found, text) = run("getent -A -s dns hosts 10.0.1.3");
    assert!(found && text.contains("web.1.abc.shop"), "{text}");
    let (found, text) = run("getent -A -s dns ahosts www.other.example");
    assert!(found && text.contains("192.0.2.1"), "{text}");
    // What is no name of ours alone is asked for again with the host's search domain, and found there.
    let (found, text) = run("getent -A -s dns ahostsv4 nas");
    assert!(found && text.contains("192.0.2.1"), "{text}");
    // This one asks for nothing but the name below the search domain.
    let (found, text) = run("busybox nslookup web");
    assert!(found && text.contains("10.0.1.2") && text.contains("127.0.0.11:53"), "{text}");
    let (found, text) = run("busybox nslookup nobody");
    assert!(!found && text.contains("NXDOMAIN"), "{text}");
    let (found, text) = run("dig +noall +answer +tcp db.shop");
    assert!(found && text.lines().count() == 3, "{text}");
}

pub async fn a_container_may_have_port_53() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    redirect(&sandbox);
    let (udp, tcp) = sandbox.run(|| (UdpSocket::bind("0.0.0.0:53"), TcpListener::bind("0.0.0.0:53")));
    let (_udp, _tcp) = (udp.unwrap(), tcp.unwrap());
    let client = sandbox.client();
    sandbox.run(|| client.connect("127.0.0.11:53")).unwrap();
    assert_eq!(exchange(&client, "web", RecordType::A).unwrap().data, ["10.0.1.2"]);
    // A real one, that takes port 53 of all addresses, and asks ours for what it does not know.
    drop((_udp, _tcp));
    let pid_file = world.folder.path().join("dnsmasq.pid");
    let option = format!("--pid-file={}", pid_file.display());
    let words = [
        "dnsmasq",
        "--no-hosts",
        "--no-resolv",
        "--server=127.0.0.11",
        "--user=root",
        "--address=/own/192.0.2.5",
        &option,
    ];
    let started = sandbox.command(&words);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    sandbox.run(|| client.connect("127.0.0.1:53")).unwrap();
    let own = exchange(&client, "own", RecordType::A).unwrap();
    let ours = exchange(&client, "db.shop", RecordType::A).unwrap();
    let process = std::fs::read_to_string(pid_file).unwrap();
    Command::new("kill").arg(process.trim()).status().unwrap();
    assert_eq!((own.data, ours.data.len()), (vec!["192.0.2.5".to_owned()], 3));
}
