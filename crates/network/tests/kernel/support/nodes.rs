//! Several hosts on one switch, each with a `Network`, and a client beside them.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use skep_network::{
    Bridge, Config, Desired, Endpoint, LinkError, Network, Overlay, Peers, Publication, PublicationKey,
    Report, Transport,
};
use skep_types::port::Protocol;

use super::{Machine, endpoint, move_link, publication};

/// The bridge of the network that spans the hosts, and its subnet's gateway.
pub const MESH: &str = "sk-mesh";
pub const MESH_GATEWAY: &str = "10.9.0.1";
pub const CLIENT: &str = "192.0.2.100";

/// A host of the cluster. The first is 192.0.2.1 and 10.9.0.201 on the mesh.
pub struct Node {
    pub machine: Machine,
    pub number: u8,
    pub desired: Desired,
    network: Option<Network>,
    directory: tempfile::TempDir,
}

/// All of them.
pub struct Nodes {
    pub nodes: Vec<Node>,
    pub client: Machine,
    switch: Machine,
    /// Where each address of the mesh is.
    places: Vec<(Ipv4Addr, u8)>,
}

impl Nodes {
    /// So many hosts that are on the mesh and know each other.
    pub fn new(count: u8) -> Nodes {
        let switch = Machine::new("switch");
        switch.command("ip link add lan type bridge");
        switch.command("ip link set lan up");
        let client = Machine::new("client");
        plug(&switch, &client, CLIENT);
        let nodes = (1..=count).map(|number| Node::new(&switch, number)).collect();
        let places = (1..=count).map(|number| (mesh_address(number), number)).collect();
        let mut nodes = Nodes { nodes, client, switch, places };
        for node in &mut nodes.nodes {
            node.ensure(mesh_bridge(node.number)).unwrap();
        }
        nodes.tell();
        nodes
    }

    /// A container on the mesh.
    pub fn container(&mut self, node: u8, name: &str, address: &str) -> Machine {
        let machine = self.node(node).container(name, address);
        self.place(address.parse().unwrap(), node);
        machine
    }

    /// Tells all hosts that an address is on one.
    pub fn place(&mut self, address: Ipv4Addr, node: u8) {
        self.places.retain(|(known, _)| *known != address);
        self.places.push((address, node));
        self.tell();
    }

    pub fn node(&mut self, number: u8) -> &mut Node {
        &mut self.nodes[usize::from(number) - 1]
    }

    pub fn peers_of(&self, number: u8) -> Peers {
        let others = self.places.iter().filter(|(_, node)| *node != number);
        others.map(|(address, node)| (*address, host_address(*node))).collect()
    }

    /// Tells all hosts where everything is.
    pub fn tell(&mut self) {
        for number in 1..=self.nodes.len() as u8 {
            let peers = self.peers_of(number);
            self.node(number).set_peers(&peers).unwrap();
        }
    }

    /// Publishes on all hosts.
    pub fn publish(&mut self, protocol: Protocol, front: &str, backends: &[&str]) {
        for node in &mut self.nodes {
            node.publish(publication(protocol, front, backends));
        }
    }

    pub fn set_mtu(&mut self, mtu: u32) {
        for node in &self.nodes {
            self.switch
                .command(&format!("ip link set port{} mtu {mtu}", host_address(node.number).octets()[3]));
            node.machine.command(&format!("ip link set uplink mtu {mtu}"));
        }
    }
}

impl Node {
    fn new(switch: &Machine, number: u8) -> Node {
        let machine = Machine::new(&format!("host{number}"));
        plug(switch, &machine, &host_address(number).to_string());
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node { machine, number, desired: Desired::default(), network: None, directory };
        node.open();
        node
    }

    fn open(&mut self) {
        let config = Config { netns_dir: self.directory.path().join("netns"), instance: "skep".to_owned() };
        self.network = None;
        self.network = Some(self.machine.run(|| Network::open(config)).unwrap());
    }

    /// A daemon starts after a crash.
    pub fn restart(&mut self) -> Report {
        self.open();
        let desired = self.desired.clone();
        self.network(|network| network.reconcile(&desired)).unwrap()
    }

    pub fn network<T: Send>(&mut self, work: impl FnOnce(&mut Network) -> T + Send) -> T {
        let network = self.network.as_mut().expect("a daemon that runs");
        self.machine.run(|| work(network))
    }

    pub fn ensure(&mut self, bridge: Bridge) -> Result<(), LinkError> {
        self.network(|network| network.ensure_bridge(&bridge))?;
        self.desired.bridges.retain(|known| known.name != bridge.name);
        self.desired.bridges.push(bridge);
        Ok(())
    }

    pub fn set_peers(&mut self, peers: &Peers) -> Result<(), LinkError> {
        self.desired.peers.insert(MESH.to_owned(), peers.clone());
        self.network(|network| network.set_peers(MESH, peers))
    }

    pub fn container(&mut self, name: &str, address: &str) -> Machine {
        let mut endpoint = endpoint(MESH, MESH_GATEWAY, address);
        endpoint.prefix = 24;
        self.attach(name, vec![endpoint])
    }

    /// A container with these interfaces.
    pub fn attach(&mut self, name: &str, endpoints: Vec<Endpoint>) -> Machine {
        let path = self
            .network(|network| {
                let path = network.create_sandbox(name)?;
                endpoints.iter().try_for_each(|endpoint| network.attach(name, endpoint))?;
                Ok::<_, LinkError>(path)
            })
            .unwrap();
        self.desired.sandboxes.insert(name.to_owned(), endpoints);
        Machine::at(name, &path)
    }

    /// Counts the packets that leave for the other hosts under an address of a container.
    pub fn watch_for_leaks(&self) {
        self.machine.command("nft add table ip leaks");
        self.machine.command("nft add chain ip leaks out { type filter hook postrouting priority 300 ; }");
        self.machine.command("nft add rule ip leaks out oifname uplink ip saddr 10.0.0.0/8 counter");
    }

    pub fn leaks(&self) -> u64 {
        self.counted("leaks")
    }

    pub fn publish(&mut self, publication: Publication) {
        let key = PublicationKey(format!("{}-{}", publication.protocol, publication.host_port));
        let made = self.network(|network| network.publish(key.clone(), vec![publication])).unwrap();
        self.desired.publications.insert(key, made);
    }

    /// Counts the packets that leave for other hosts' VXLAN port.
    pub fn count_tunnelled(&self) {
        self.machine.command("nft add table ip tunnelled");
        self.machine.command("nft add chain ip tunnelled out { type filter hook output priority 0 ; }");
        self.machine.command("nft add rule ip tunnelled out udp dport 4789 counter");
    }

    pub fn tunnelled(&self) -> u64 {
        self.counted("tunnelled")
    }

    fn counted(&self, table: &str) -> u64 {
        let rules = self.machine.command(&format!("nft list table ip {table}"));
        rules.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// The name of the mesh's VXLAN device; `None` when there is none.
    pub fn vxlan(&self) -> Option<String> {
        let links = self.machine.command("ip -o link show type vxlan");
        links.split(": ").nth(1).map(str::to_owned)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        super::unmount_all(&self.directory.path().join("netns"));
    }
}

fn plug(switch: &Machine, machine: &Machine, address: &str) {
    let port = format!("port{}", address.rsplit('.').next().unwrap());
    switch.command(&format!("ip link add {port} type veth peer name uplink"));
    let inode = rustix::fs::fstat(machine.namespace.as_fd()).unwrap().st_ino;
    move_link(switch, "uplink", machine, inode);
    switch.command(&format!("ip link set {port} master lan"));
    switch.command(&format!("ip link set {port} up"));
    machine.command(&format!("ip addr add {address}/24 dev uplink"));
    machine.command("ip link set uplink up");
}

pub fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// A host's own address on the mesh.
pub fn mesh_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, 200 + number)
}

pub fn mesh_bridge(number: u8) -> Bridge {
    let (local, address) = (host_address(number), mesh_address(number));
    let overlay = Some(Overlay {
        vni: 4096,
        port: 4789,
        local,
        address,
        mtu: None,
        overhead: 0,
        transport: Transport::Vxlan,
    });
    Bridge { prefix: 24, ingress: true, overlay, ..super::bridge(MESH, MESH_GATEWAY) }
}
