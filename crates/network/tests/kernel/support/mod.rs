//! A small world of network namespaces: a host with the `Network` under test, somebody outside, containers.
//!
//! Everything a test does on a machine goes through [`Machine`], so tests read as sentences.
#![expect(unsafe_code, reason = "unshare is unsafe to call; see its one use")]

pub mod nodes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use skep_network::{
    Bridge, Config, Desired, Endpoint, MacAddress, Network, Publication, PublicationKey, PublishError,
};
use skep_types::port::Protocol;

/// How long a client waits for an answer that should not come.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a client waits for an answer that should come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kind 8, a checksum, identifier 1 and number 1.
const ECHO_REQUEST: [u8; 8] = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
const ECHO_REPLY: u8 = 0;

/// Addresses of the world.
pub const HOST: &str = "192.0.2.1";
pub const HOST_SECOND: &str = "192.0.2.9";
pub const OUTSIDER: &str = "192.0.2.2";
pub const GATEWAY: &str = "172.30.0.1";

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Machine {
    pub name: String,
    namespace: Arc<OwnedFd>,
}

impl Machine {
    /// A new one, its loopback up.
    pub fn new(name: &str) -> Machine {
        let namespace = std::thread::spawn(|| {
            // SAFETY: CLONE_NEWNET shares nothing less but the network, of which this thread has nothing open.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("a network namespace; run as root");
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let machine = Machine { name: name.to_owned(), namespace: Arc::new(namespace.join().unwrap()) };
        machine.command("ip link set lo up");
        machine
    }

    /// The namespace that is bound to a file.
    pub fn at(name: &str, path: &Path) -> Machine {
        Machine { name: name.to_owned(), namespace: Arc::new(File::open(path).unwrap().into()) }
    }

    /// Runs `work` on a thread that is on this machine.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) {
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace that is held open can be entered");
    }

    /// Runs a program here, which must succeed, and returns what it prints.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = self.run(|| command.args(words).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Connects, and returns what the server says: `NAME CLIENT-ADDRESS`.
    pub fn ask(&self, address: &str) -> io::Result<String> {
        self.ask_for(address, PATIENCE)
    }

    fn ask_for(&self, address: &str, patience: Duration) -> io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// Asserts that nobody can be connected to: refused or silent.
    pub fn cannot_reach(&self, address: &str) {
        if let Ok(answer) = self.ask_for(address, SILENCE) {
            panic!("{} reached {answer} at {address}", self.name);
        }
    }

    /// A connection that stays open.
    pub fn connect(&self, address: &str) -> TcpStream {
        let address: SocketAddr = address.parse().unwrap();
        let stream = self.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A UDP socket that is connected.
    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let socket = UdpSocket::bind(if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }

    /// Sends an echo request, and returns who answers.
    pub fn ping(&self, address: &str) -> io::Result<Ipv4Addr> {
        use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
        let target: Ipv4Addr = address.parse().unwrap();
        self.run(|| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
            let to = std::net::SocketAddrV4::new(target, 0);
            rustix::net::sendto(&socket, &ECHO_REQUEST, SendFlags::empty(), &to)?;
            let mut packet = [0; 128];
            loop {
                let (len, _) = rustix::net::recv(&socket, &mut packet[..], RecvFlags::empty())?;
                let header = usize::from(packet[0] & 0xf) * 4;
                // A request to oneself is seen, too.
                if len >= header + ECHO_REQUEST.len() && packet[header] == ECHO_REPLY {
                    return Ok(Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]));
                }
            }
        })
    }

    /// Whether a process here could listen on the address.
    pub fn listen(&self, address: &str) -> io::Result<TcpListener> {
        self.run(|| TcpListener::bind(address))
    }

    /// Listens on an address that somebody has just let go of. Programs that other tests start hold copies of all
    /// sockets between fork and exec.
    pub fn listen_soon(&self, address: &str) -> TcpListener {
        let mut listener = None;
        until("the address is free", || {
            listener = self.listen(address).ok();
            listener.is_some()
        });
        listener.unwrap()
    }

    /// A server that tells each TCP client its own name and the client's address, then echoes.
    pub fn serve(&self, address: &str) -> Server {
        let listener = self.listen_soon(address);
        let stop = listener.try_clone().unwrap();
        let name = self.name.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let name = name.clone();
                // Ends with its client.
                std::thread::spawn(move || greet(stream, &name, peer));
            }
        });
        Server { stop: Stop::Listener(stop), thread: Some(thread) }
    }

    /// A server that answers each datagram with its own name and the client's address.
    pub fn serve_udp(&self, address: &str) -> Server {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (self.name.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) else { continue };
                socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer).unwrap();
            }
        });
        Server { stop: Stop::Flag(stop), thread: Some(thread) }
    }
}

fn greet(mut stream: TcpStream, name: &str, peer: SocketAddr) {
    if write!(stream, "{name} {}", peer.ip()).is_err() || stream.shutdown(std::net::Shutdown::Write).is_err()
    {
        return;
    }
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Waits for something that the kernel does in its own time.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a datagram and returns the answer.
pub fn exchange(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// A server that stops when dropped.
pub struct Server {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

enum Stop {
    Listener(TcpListener),
    Flag(Arc<AtomicBool>),
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.stop {
            Stop::Listener(listener) => rustix::net::shutdown(listener, rustix::net::Shutdown::Both).unwrap(),
            Stop::Flag(flag) => flag.store(true, Ordering::Relaxed),
        }
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A host with a `Network`, and somebody outside who has a route to the host's containers.
pub struct World {
    pub host: Machine,
    pub outside: Machine,
    network: Option<Network>,
    directory: tempfile::TempDir,
    pub desired: Desired,
}

impl World {
    /// With the bridge `docker0` of 172.30.0.0/16.
    pub fn new() -> World {
        let (host, outside) = (Machine::new("host"), Machine::new("outside"));
        let inode = rustix::fs::fstat(outside.namespace.as_fd()).unwrap().st_ino;
        // The outside's end is made on the host and moved by a name that a thread over there can see.
        host.command("ip link add uplink type veth peer name cable");
        move_link(&host, "cable", &outside, inode);
        host.command(&format!("ip addr add {HOST}/24 dev uplink"));
        host.command(&format!("ip addr add {HOST_SECOND}/24 dev uplink"));
        host.command("ip link set uplink up");
        outside.command(&format!("ip addr add {OUTSIDER}/24 dev cable"));
        outside.command("ip link set cable up");
        outside.command(&format!("ip route add 172.16.0.0/12 via {HOST}"));
        let directory = tempfile::tempdir().unwrap();
        let mut world = World { host, outside, network: None, directory, desired: Desired::default() };
        world.open();
        world.bridge("docker0", GATEWAY);
        world
    }

    /// Starts the daemon's part, in the place of one that runs.
    pub fn open(&mut self) {
        let config = Config { netns_dir: self.netns_dir(), instance: "skep".to_owned() };
        self.network = None;
        self.network = Some(self.host.run(|| Network::open(config)).unwrap());
    }

    /// The daemon ends as `kill -9` would end it.
    pub fn crash(&mut self) {
        self.network = None;
    }

    pub fn netns_dir(&self) -> PathBuf {
        self.directory.path().join("netns")
    }

    /// Calls the `Network` on the host.
    pub fn network<T: Send>(&mut self, work: impl FnOnce(&mut Network) -> T + Send) -> T {
        let network = self.network.as_mut().expect("a daemon that runs");
        self.host.run(|| work(network))
    }

    pub fn bridge(&mut self, name: &str, gateway: &str) -> Bridge {
        let bridge = bridge(name, gateway);
        self.network(|network| network.ensure_bridge(&bridge)).unwrap();
        self.desired.bridges.push(bridge.clone());
        bridge
    }

    /// A container on `docker0`.
    pub fn container(&mut self, name: &str, address: &str) -> Machine {
        self.container_on("docker0", GATEWAY, name, address)
    }

    pub fn container_on(&mut self, bridge: &str, gateway: &str, name: &str, address: &str) -> Machine {
        let endpoint = endpoint(bridge, gateway, address);
        let path = self
            .network(|network| {
                let path = network.create_sandbox(name)?;
                network.attach(name, &endpoint).map(|()| path)
            })
            .unwrap();
        self.desired.sandboxes.insert(name.to_owned(), vec![endpoint]);
        Machine::at(name, &path)
    }

    /// `-p` of a TCP port for all backends; returns the port.
    pub fn publish(&mut self, key: &str, front: &str, backends: &[&str]) -> Result<u16, PublishError> {
        self.publish_as(Protocol::Tcp, key, front, backends)
    }

    pub fn publish_udp(&mut self, key: &str, front: &str, backends: &[&str]) -> Result<u16, PublishError> {
        self.publish_as(Protocol::Udp, key, front, backends)
    }

    fn publish_as(
        &mut self,
        protocol: Protocol,
        key: &str,
        front: &str,
        backends: &[&str],
    ) -> Result<u16, PublishError> {
        let key = PublicationKey(key.to_owned());
        let publication = publication(protocol, front, backends);
        let made = self.network(|network| network.publish(key.clone(), vec![publication]))?;
        let port = made[0].host_port;
        self.desired.publications.insert(key, made);
        Ok(port)
    }

    pub fn unpublish(&mut self, key: &str) {
        let key = PublicationKey(key.to_owned());
        self.network(|network| network.unpublish(&key)).unwrap();
        self.desired.publications.remove(&key);
    }

    /// A daemon starts after a crash and is told what should exist.
    pub fn restart(&mut self) -> skep_network::Report {
        self.open();
        let desired = self.desired.clone();
        self.network(|network| network.reconcile(&desired)).unwrap()
    }

    pub fn rules(&self) -> String {
        self.host.command("nft list ruleset")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        unmount_all(&self.netns_dir());
    }
}

fn unmount_all(netns_dir: &Path) {
    let Ok(entries) = fs::read_dir(netns_dir) else { return };
    for entry in entries.flatten() {
        // Not all of them are mounted, in tests that damage things.
        let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn move_link(from: &Machine, link: &str, to: &Machine, inode: u64) {
    let (send, receive) = std::sync::mpsc::channel();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            to.enter();
            send.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
            let _ = finished.recv();
        });
        let thread = receive.recv().unwrap();
        let path = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
        assert_eq!(fs::metadata(&path).map(|it| std::os::unix::fs::MetadataExt::ino(&it)).unwrap(), inode);
        from.command(&format!("ip link set {link} netns {path}"));
        drop(done);
    });
}

/// How often each answer comes in `count` questions.
pub fn tally(client: &Machine, address: &str, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = client.ask(address).unwrap();
        *answers.entry(answer.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    answers
}

pub fn bridge(name: &str, gateway: &str) -> Bridge {
    Bridge {
        name: name.to_owned(),
        gateway: gateway.parse().unwrap(),
        prefix: 16,
        mtu: 1400,
        masquerade: true,
        internal: false,
        ingress: false,
        gateway6: None,
        overlay: None,
    }
}

pub fn endpoint(bridge: &str, gateway: &str, address: &str) -> Endpoint {
    let address: Ipv4Addr = address.parse().unwrap();
    Endpoint {
        bridge: bridge.to_owned(),
        interface: "eth0".to_owned(),
        address,
        prefix: 16,
        gateway: Some(gateway.parse().unwrap()),
        mac: MacAddress::of(address),
        priority: 0,
        address6: None,
        gateway6: None,
    }
}

/// `front` is `8080`, `192.0.2.1:8080` or `[2001:db8::1]:8080`, a backend `172.30.0.2:80` or `[fd00::2]:80`.
pub fn publication(protocol: Protocol, front: &str, backends: &[&str]) -> Publication {
    let (host_ip, host_port) = match front.parse::<SocketAddr>() {
        Ok(address) => (Some(address.ip()), address.port()),
        Err(_) => (None, front.parse().unwrap()),
    };
    let backends = backends.iter().map(|backend| {
        let backend: SocketAddr = backend.parse().unwrap();
        (backend.ip(), backend.port())
    });
    Publication { protocol, host_ip, host_port, backends: backends.collect() }
}
