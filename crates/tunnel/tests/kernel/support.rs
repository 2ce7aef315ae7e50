//! Hosts on one switch, each with a network, a container on it and a tunnel process; and somebody who listens.
#![expect(unsafe_code, reason = "unshare is unsafe to call; see its one use")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, sockopt};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use skep_tunnel::{Config, Settings, Status, Tunnel};
use skep_types::tunnel::NetworkKey;

/// How long anything may take that should happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PORT: u16 = 4790;
const VNI: u32 = 4097;
const TAP: &str = "tap0";

/// A network namespace.
#[derive(Clone)]
pub struct Machine {
    namespace: Arc<OwnedFd>,
}

impl Machine {
    pub fn new() -> Machine {
        let namespace = std::thread::spawn(|| {
            // SAFETY: CLONE_NEWNET shares nothing less but the network, of which this thread has nothing open.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("a network namespace; run as root");
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let machine = Machine { namespace: Arc::new(namespace.join().unwrap()) };
        machine.command("ip link set lo up");
        machine
    }

    /// Runs `work` on a thread that is on this machine.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(self.namespace.as_fd(), network).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program here, which must succeed, and returns what it prints.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = self.run(|| command.args(words).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a pair of interfaces, one end here, one on another machine.
    fn plug(&self, here: &str, other: &Machine, there: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.namespace.as_raw_fd());
        self.command(&format!("ip link add {here} type veth peer name {there} netns {path}"));
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    /// Sends `len` bytes each way at once, and compares what arrives.
    pub fn exchange(&self, server: &Machine, address: IpAddr, len: usize) {
        let pattern: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
        let swap = |mut stream: TcpStream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut writer = stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&pattern).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == pattern, "{} of {} bytes", received.len(), pattern.len());
            });
        };
        let listener = server.run(|| TcpListener::bind(SocketAddr::new(address, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| swap(listener.accept().unwrap().0));
            swap(self.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap());
        });
    }
}

/// A host with a container.
pub struct Host {
    pub machine: Machine,
    pub container: Machine,
    pub tunnel: Tunnel,
    pub settings: Settings,
    pub folder: tempfile::TempDir,
    number: u8,
}

/// Hosts that know each other.
pub struct World {
    pub switch: Machine,
    pub hosts: Vec<Host>,
}

pub fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

pub fn key(number: u64) -> NetworkKey {
    NetworkKey { number, secret: [number as u8; 32] }
}

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_tunnel-for-tests").into()
}

impl World {
    /// So many hosts with sessions between all of them, on links with packets of that size.
    pub fn new(count: u8, mtu: u32) -> World {
        let switch = Machine::new();
        switch.command("ip link add lan type bridge");
        switch.command(&format!("ip link set lan mtu {mtu} up"));
        switch.command("ip addr add 192.0.2.100/24 dev lan");
        let hosts = (1..=count).map(|number| Host::new(&switch, number, count, mtu)).collect();
        let mut world = World { switch, hosts };
        let keys: Vec<_> =
            world.hosts.iter().map(|host| (host_address(host.number), host.tunnel.public_key())).collect();
        for host in &mut world.hosts {
            let own = host_address(host.number);
            host.settings.hosts = keys.iter().filter(|(other, _)| *other != own).copied().collect();
            host.tell();
        }
        for host in &world.hosts {
            host.wait_for_sessions(usize::from(count) - 1);
        }
        world
    }

    pub fn host(&mut self, number: u8) -> &mut Host {
        &mut self.hosts[usize::from(number) - 1]
    }

    /// Waits until a datagram gets from one container to another.
    pub fn wait_for_way(&self, from: u8, to: u8) {
        let (from, to) = (&self.hosts[usize::from(from) - 1], &self.hosts[usize::from(to) - 1]);
        let receiver = to.container.udp(&format!("{}:0", address(to.number)));
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let sender = from.container.udp("0.0.0.0:0");
        until("a datagram arrives", || {
            sender.send_to(b"?", receiver.local_addr().unwrap()).unwrap();
            receiver.recv(&mut [0; 8]).is_ok()
        });
    }
}

impl Host {
    fn new(switch: &Machine, number: u8, count: u8, mtu: u32) -> Host {
        let (machine, container) = (Machine::new(), Machine::new());
        switch.plug(&format!("port{number}"), &machine, "uplink");
        switch.command(&format!("ip link set port{number} mtu {mtu} master lan up"));
        machine.command(&format!("ip link set uplink mtu {mtu} up"));
        machine.command(&format!("ip addr add {}/24 dev uplink", host_address(number)));
        let inner = mtu - skep_tunnel::OVERHEAD;
        machine.command("ip link add mesh type bridge");
        machine.command("ip link set mesh up");
        machine.command(&format!("ip tuntap add dev {TAP} mode tap multi_queue vnet_hdr"));
        machine.command(&format!("ip link set {TAP} mtu {inner} master mesh up"));
        machine.plug("inside", &container, "eth0");
        machine.command(&format!("ip link set inside mtu {inner} master mesh up"));
        let mac = |number: u8| format!("02:42:0a:09:00:{number:02x}");
        container.command(&format!("ip link set eth0 mtu {inner} address {} up", mac(number)));
        container.command(&format!("ip addr add {}/24 dev eth0", address(number)));
        container.command(&format!("ip addr add fd00::{number}/64 dev eth0 nodad"));
        for other in (1..=count).filter(|other| *other != number) {
            machine.command(&format!("bridge fdb replace {} dev {TAP} master static", mac(other)));
            for address in [address(other).to_string(), format!("fd00::{other}")] {
                let mac = mac(other);
                container.command(&format!("ip neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let host = host_address(number);
        let settings = Settings { host, port: PORT, keys: vec![key(1), key(2)], hosts: BTreeMap::new() };
        let tunnel = open(&machine, &folder, program());
        let peers = (1..=count).filter(|other| *other != number);
        tunnel.set_network(VNI, TAP, peers.map(|other| (address(other), host_address(other))).collect());
        Host { machine, container, tunnel, settings, folder, number }
    }

    /// Tells the process what the settings are.
    pub fn tell(&self) {
        self.tunnel.configure(self.settings.clone());
    }

    /// A daemon of that program starts in the place of the one before, and says what that had said.
    pub fn restart_daemon(&mut self, program: PathBuf) {
        self.tunnel = open(&self.machine, &self.folder, program);
        self.tell();
        let hosts = self.settings.hosts.keys().map(|host| (address(host.octets()[3]), *host));
        self.tunnel.set_network(VNI, TAP, hosts.collect());
    }

    pub fn status(&self) -> Status {
        let mut status = None;
        until(&format!("the process answers; {:?}", self.tunnel.trouble()), || {
            status = self.tunnel.status();
            status.is_some()
        });
        // The first answer may be to an older question.
        status = None;
        until("the process answers again", || {
            status = status.take().or_else(|| self.tunnel.status());
            status.is_some()
        });
        status.unwrap()
    }

    pub fn wait_for_sessions(&self, count: usize) {
        until("there are sessions", || self.status().sessions.len() == count);
    }

    /// Ends the process without warning, and returns its id.
    pub fn kill(&self) -> u32 {
        let pid = self.status().pid;
        rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        pid
    }
}

/// A daemon's handle, on that machine.
fn open(machine: &Machine, folder: &tempfile::TempDir, program: PathBuf) -> Tunnel {
    let path = |name: &str| folder.path().join(name);
    let config = Config { socket: path("tunnel.sock"), key: path("tunnel.key"), program };
    machine.run(|| Tunnel::open(config)).unwrap()
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without a network it would end by itself, but not at once.
        if let Some(status) = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            self.tunnel.status()
        }) {
            self.tunnel.remove_network(VNI);
            let pid = Pid::from_raw(status.pid as i32).unwrap();
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that passes a machine.
pub struct Capture {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Capture {
    pub fn start(machine: &Machine) -> Capture {
        let socket = machine
            .run(|| rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL)).unwrap());
        let wait = Some(Duration::from_millis(50));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, wait).unwrap();
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20);
        let end = Arc::new(AtomicBool::new(false));
        let is_over = end.clone();
        let thread = std::thread::spawn(move || {
            let (mut packets, mut room) = (Vec::new(), vec![0; 1 << 17]);
            loop {
                match rustix::net::recv(&socket, &mut room[..], RecvFlags::empty()) {
                    Ok((len, _)) => packets.push(room[..len].to_vec()),
                    Err(_) if is_over.load(Ordering::Relaxed) => return packets,
                    Err(_) => {}
                }
            }
        });
        Capture { end, thread }
    }

    /// All packets so far.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a packet carries for the tunnel's port of a host, if it does.
pub fn tunnelled(packet: &[u8], to: Ipv4Addr) -> Option<&[u8]> {
    let is_udp = packet.len() > 42 && packet[12..14] == [8, 0] && packet[23] == 17;
    let is_there = is_udp && packet[30..34] == to.octets() && packet[36..38] == PORT.to_be_bytes();
    is_there.then(|| &packet[42..])
}
