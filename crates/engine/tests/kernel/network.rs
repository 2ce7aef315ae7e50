//! Networks and published ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_engine::ErrorKind;
use skep_types::assignment::{Endpoint, EndpointPort, Overlay};
use skep_types::container::{ClusterAttachment, ContainerConfig, NetworkMode};
use skep_types::ip::Subnet;
use skep_types::network::Network;
use skep_types::port::{ContainerPort, PortBinding, Protocol};
use skep_types::{NetworkId, ServiceId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{House, command, script, within};

const HTTP: ContainerPort = ContainerPort { port: 80, protocol: Protocol::Tcp };

/// A container that serves its own host name.
pub fn server(host_port: Option<u16>) -> ContainerConfig {
    let mut config = script("mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www");
    config.host.ports = host_port
        .into_iter()
        .map(|host_port| PortBinding { container: HTTP, host_ip: None, host_port })
        .collect();
    config
}

/// What a server says, asked again until it listens.
pub async fn ask(address: SocketAddr) -> String {
    let answer = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let mut text = String::new();
                let sent = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
                if sent.is_ok()
                    && stream.read_to_string(&mut text).await.is_ok()
                    && text.starts_with("HTTP/1.")
                {
                    return text.lines().last().unwrap_or_default().to_owned();
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(answer).await
}

pub async fn a_published_port_answers() {
    let house = House::new().await;
    let id = house.start(server(Some(0))).await;
    let view = house.engine.inspect(&id.to_string()).unwrap();
    let (_, port) = view.ports[0].host.unwrap();
    assert_ne!(port, 0);
    for host in [Ipv4Addr::LOCALHOST, house.gateway()] {
        assert_eq!(ask((host, port).into()).await, id.short(), "{host}");
    }
    let place = &view.networks[0];
    assert_eq!((place.network.as_str(), place.gateway), ("bridge", Some(house.gateway())));
    let octets = place.address.unwrap().octets();
    assert!(place.mac.starts_with("02:42:0a:63:") && octets[..2] == [10, 99], "{place:?}");
    let listed = house.engine.list(&Default::default()).await.unwrap();
    assert_eq!(listed[0].ports, view.ports);
    let members = house.engine.inspect_network("bridge").unwrap().containers;
    assert_eq!(members.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [id]);
    house.engine.kill(&id.to_string(), "KILL").await.unwrap();
    let all = skep_engine::options::ContainerFilter { all: true, ..Default::default() };
    assert_eq!(house.engine.list(&all).await.unwrap()[0].ports, []);
    house.close().await;
}

pub async fn a_taken_port_leaves_nothing_behind() {
    let house = House::new().await;
    let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = holder.local_addr().unwrap().port();
    let id = house.engine.create(Some("web".to_owned()), server(Some(port))).await.unwrap().id.to_string();
    let refused = house.engine.start(&id).await.unwrap_err();
    let begins = "failed to set up container networking: driver failed programming external connectivity on endpoint web (";
    assert!(refused.message.starts_with(begins), "{}", refused.message);
    assert!(refused.message.contains("/tcp: address already in use"), "{}", refused.message);
    let view = house.engine.inspect(&id).unwrap();
    assert_eq!((view.state.exit_code, view.state.error), (125, refused.message));
    drop(holder);
    house.engine.start(&id).await.unwrap();
    let other = house.engine.create(None, server(Some(port))).await.unwrap().id.to_string();
    let refused = house.engine.start(&other).await.unwrap_err();
    let names =
        format!("Bind for 0.0.0.0:{port} failed: port is already allocated (by container {})", &id[..12]);
    assert!(refused.message.ends_with(&names), "{}", refused.message);
    house.close().await;
}

pub async fn the_host_s_and_no_network() {
    let house = House::new().await;
    let with = |network| {
        let mut config = script("ip -o addr; hostname");
        config.host.network = network;
        config
    };
    let (_, host) = house.run(with(NetworkMode::Host)).await;
    assert!(host.contains(&house.gateway().to_string()), "{host}");
    let (_, none) = house.run(with(NetworkMode::None)).await;
    assert!(none.contains("127.0.0.1") && !none.contains("eth0"), "{none}");
    house.close().await;
}

pub async fn files_in_etc_are_docker_s() {
    let house = House::new().await;
    let mut config = script("cat /etc/hostname /etc/hosts /etc/resolv.conf; hostname");
    config.hostname = "web".to_owned();
    config.host.extra_hosts = vec!["db:10.1.2.3".to_owned()];
    let (code, output) = house.run(config).await;
    assert_eq!(code, 0);
    assert!(output.starts_with("web\n127.0.0.1\tlocalhost\n"), "{output}");
    assert!(
        output.contains("10.1.2.3\tdb\n") && output.contains("\tweb\n") && output.contains("nameserver ")
    );
    house.close().await;
}

pub async fn a_service_is_answered_by_its_backends() {
    let house = House::new().await;
    let subnet: Subnet = "10.98.7.0/24".parse().unwrap();
    let network = Network { ingress: true, ..Network::new(NetworkId(77), "ingress", subnet, 4096) };
    house.engine.ensure_network(&network, None).await.unwrap();
    house.engine.ensure_network(&network, None).await.unwrap();
    let mut names = Vec::new();
    for host in 2..4 {
        let address = subnet.nth(host).unwrap();
        let mut config = server(None);
        config.host.network = NetworkMode::Cluster(vec![ClusterAttachment {
            network: network.clone(),
            address,
            aliases: Vec::new(),
        }]);
        names.push(house.start(config).await.short());
    }
    assert!(house.engine.remove_network(network.id).await.is_err());
    let endpoint = Endpoint {
        service: ServiceId(5),
        name: "web".to_owned(),
        ports: vec![EndpointPort {
            protocol: Protocol::Tcp,
            published_port: 18_080,
            target_port: 80,
            address: None,
        }],
        backends: vec![subnet.nth(2).unwrap(), subnet.nth(3).unwrap()],
    };
    for address in &endpoint.backends {
        ask((IpAddr::V4(*address), 80).into()).await;
    }
    house.engine.serve_endpoint(&endpoint).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(ask((Ipv4Addr::LOCALHOST, 18_080).into()).await);
    }
    seen.sort();
    names.sort();
    assert_eq!(seen, [0, 0, 1, 1].map(|index: usize| names[index].clone()));
    house.engine.remove_endpoint(endpoint.service).await.unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 18_080)).await.is_err());
    house.close().await;
}

pub async fn a_network_between_machines_outlives_the_daemon() {
    let house = House::new().await;
    let subnet: Subnet = "10.98.8.0/24".parse().unwrap();
    let network = Network { ingress: true, ..Network::new(NetworkId(78), "ingress", subnet, 7_000_078) };
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = subnet.nth(2).unwrap();
    let place = Overlay { network: network.id, address: Some(address), host, port: 48_978 };
    let peer = |last| (subnet.nth(last).unwrap(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8)));
    let refused = house.engine.set_peers(network.id, [peer(3)].into()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound, "{}", refused.message);
    house.engine.ensure_network(&network, Some(place)).await.unwrap();
    house.engine.set_peers(network.id, [peer(3), peer(4)].into()).await.unwrap();
    house.engine.change_peers(network.id, [peer(5)].into(), [peer(3).0].into()).await.unwrap();
    let known = || {
        let fdb = std::process::Command::new("bridge").args(["fdb", "show"]).output().unwrap();
        let fdb = String::from_utf8(fdb.stdout).unwrap();
        [3, 4, 5].map(|last| {
            let (mac, host) = (format!("02:42:0a:62:08:0{last} "), format!(" dst 127.0.0.{last} "));
            fdb.lines().any(|line| line.starts_with(&mac) && line.contains(&host))
        })
    };
    assert_eq!(known(), [false, true, true]);
    let device = || {
        let links = std::process::Command::new("ip").args(["-d", "link", "show", "type", "vxlan"]).output();
        String::from_utf8(links.unwrap().stdout).unwrap()
    };
    assert!(device().contains("vxlan id 7000078 local 127.0.0.1"), "{}", device());
    // A whole set of duties tells the same again.
    let house = house.reopen(async |_| ()).await;
    assert_eq!(known(), [false, true, true]);
    house.engine.ensure_network(&network, Some(place)).await.unwrap();
    house.engine.set_peers(network.id, [peer(4)].into()).await.unwrap();
    assert_eq!(known(), [false, true, false]);
    let beyond = [(subnet.nth(6).unwrap(), "2001:db8::1".parse().unwrap())].into();
    let refused = house.engine.set_peers(network.id, beyond).await.unwrap_err();
    assert!(refused.message.contains("2001:db8::1 is an IPv6 address"), "{}", refused.message);
    house.engine.remove_network(network.id).await.unwrap();
    assert!(!device().contains("7000078"), "{}", device());
    house.close().await;
}

/// Not a test: an idle container.
pub fn idle() -> ContainerConfig {
    command(&["sleep", "1000"])
}
