//! A binary for tests and benchmarks of the tunnel alone: the process, and a daemon that knows nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use skep_tunnel::{Config, Settings, Tunnel, tunnel_main};
use skep_types::tunnel::{NetworkKey, TunnelKey};

/// `tunnel SOCKET`, or `drive FOLDER`: says the public key, and takes lines from its input until it ends:
/// `host ADDRESS PORT`, `node ADDRESS KEY`, `network VNI DEVICE ADDRESS=HOST,...`, `status`.
fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((word, rest)) if word == "tunnel" => tunnel_main(rest),
        Some((word, [folder])) if word == "drive" => drive(&PathBuf::from(folder)),
        _ => panic!("tunnel SOCKET, or drive FOLDER"),
    }
}

fn drive(folder: &std::path::Path) {
    let config = Config {
        socket: folder.join("tunnel.sock"),
        key: folder.join("tunnel.key"),
        program: std::env::current_exe().expect("a program has a file"),
    };
    let tunnel = Tunnel::open(config).expect("a key");
    println!("{}", tunnel.public_key());
    let key = NetworkKey { number: 1, secret: [7; 32] };
    let mut settings =
        Settings { host: Ipv4Addr::LOCALHOST, port: 0, keys: vec![key], hosts: BTreeMap::new() };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("readable input");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["host", address, port] => {
                settings.host = address.parse().expect("an address");
                settings.port = port.parse().expect("a port");
            }
            ["node", address, key] => {
                settings.hosts.insert(address.parse().expect("an address"), parse_key(key));
            }
            ["network", vni, device, peers] => {
                tunnel.configure(settings.clone());
                let peers = peers.split(',').map(|peer| {
                    let (address, host) = peer.split_once('=').expect("ADDRESS=HOST");
                    (address.parse().expect("an address"), host.parse().expect("an address"))
                });
                tunnel.set_network(vni.parse().expect("a number"), device, peers.collect());
            }
            ["status"] => println!("{:?} {:?}", tunnel.status(), tunnel.trouble()),
            _ => panic!("{line}"),
        }
        std::io::stdout().flush().expect("a reader");
    }
}

fn parse_key(text: &str) -> TunnelKey {
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).expect("digits");
        *byte = u8::from_str_radix(digits, 16).expect("digits");
    }
    TunnelKey(key)
}
