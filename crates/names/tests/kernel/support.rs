//! A daemon's handle, sandboxes, and clients in them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{self, RData, RecordType};
use rustix::thread::LinkNameSpaceType;
use skep_names::{ADDRESS, Config, Entry, Forwarding, Name, Names, PORT, Record, View, ZoneConfig};
use tempfile::TempDir;

/// How long a client waits for an answer, as clients do.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon's handle, and what its server is told.
pub struct World {
    pub folder: TempDir,
    pub names: Names,
    pub config: Config,
}

impl World {
    /// A daemon that knows of no network yet. The host's resolver is 127.0.0.53.
    pub fn new() -> World {
        let folder = tempfile::Builder::new().prefix("skep-names-").tempdir().unwrap();
        let config = Config {
            socket: folder.path().join("names.sock"),
            program: PathBuf::from(env!("CARGO_BIN_EXE_names-for-tests")),
            resolv_conf: folder.path().join("resolv.conf"),
        };
        std::fs::write(&config.resolv_conf, "nameserver 127.0.0.53\n").unwrap();
        let names = Names::open(config.clone());
        names.complete();
        World { folder, names, config }
    }

    /// A daemon that knows the network `shop` of [`fill_shop`].
    pub fn with_shop() -> World {
        let world = World::new();
        fill_shop(&world.names);
        world
    }

    /// A sandbox on these networks.
    pub async fn sandbox(&self, name: &str, networks: &[&str], forwarding: Forwarding) -> Sandbox {
        let sandbox = Sandbox::new(&self.folder.path().join(name));
        self.names.set_sandbox(name, sandbox.view(networks, forwarding));
        assert!(self.names.settled().await, "the server serves {name}");
        sandbox
    }

    /// The server's process id, if one listens.
    pub fn server(&self) -> Option<u32> {
        server(&self.config.socket)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed has not ended its server.
        if let Some(process) = self.server() {
            kill(process);
        }
    }
}

/// Says that a network `shop` has a service `web` of two tasks with a virtual address, `db` without one, and a container.
pub fn fill_shop(names: &Names) {
    let subnets = vec![("10.0.1.0".parse().unwrap(), 24), ("fd00:1::".parse().unwrap(), 64)];
    names.set_zone("shop-id", ZoneConfig { domain: Name::new("shop"), subnets });
    names.set_entry(
        "shop-id",
        "web-id",
        entry(&[
            ("web", &["10.0.1.2", "fd00:1::a00:102"], true),
            ("shop-front", &["10.0.1.2", "fd00:1::a00:102"], false),
            ("tasks.web", &["10.0.1.3", "10.0.1.4"], false),
            ("web.1.abc", &["10.0.1.3"], true),
            ("web.2.def", &["10.0.1.4"], true),
        ]),
    );
    names.set_entry(
        "shop-id",
        "db-id",
        entry(&[
            ("db", &["10.0.1.5", "10.0.1.6", "10.0.1.7"], false),
            ("tasks.db", &["10.0.1.5", "10.0.1.6", "10.0.1.7"], false),
        ]),
    );
    names.set_entry(
        "shop-id",
        "box-id",
        entry(&[("Box_1", &["10.0.1.9"], true), ("0123456789ab", &["10.0.1.9"], false)]),
    );
}

/// An entry of names, their addresses, and whether these point back.
pub fn entry(records: &[(&str, &[&str], bool)]) -> Entry {
    let record = |(name, addresses, pointer): &(&str, &[&str], bool)| Record {
        name: Name::new(name).unwrap(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        pointer: *pointer,
    };
    Entry { records: records.iter().map(record).collect() }
}

/// A network namespace.
pub struct Sandbox {
    pub netns: PathBuf,
}

impl Sandbox {
    /// A new one, bound to that file.
    pub fn new(netns: &Path) -> Sandbox {
        std::fs::File::create(netns).unwrap();
        let option = format!("--net={}", netns.display());
        let made = Command::new("unshare").args([option.as_str(), "ip", "link", "set", "lo", "up"]).status();
        assert!(made.unwrap().success());
        Sandbox { netns: netns.to_owned() }
    }

    pub fn view(&self, networks: &[&str], forwarding: Forwarding) -> View {
        let networks = networks.iter().map(|network| (*network).to_owned()).collect();
        View { netns: self.netns.clone(), networks, search: None, own: Entry::default(), forwarding }
    }

    /// Runs `work` on a thread that is in the sandbox.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.netns);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program in the sandbox.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let namespace = format!("--net={}", self.netns.display());
        Command::new("nsenter").arg(namespace).args(arguments).output().unwrap()
    }

    /// A client in the sandbox.
    pub fn client(&self) -> UdpSocket {
        self.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect((ADDRESS, PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }

    /// A connection to the server from the sandbox.
    pub fn connection(&self) -> TcpStream {
        self.run(|| {
            let stream = TcpStream::connect((ADDRESS, PORT)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    }

    /// Asks the server by UDP. `None` when it does not answer in time.
    pub fn ask(&self, name: &str, kind: RecordType) -> Option<Answer> {
        exchange(&self.client(), name, kind)
    }

    /// The addresses that a name has, in order of their numbers.
    pub fn addresses(&self, name: &str, kind: RecordType) -> Vec<String> {
        let mut addresses = self.ask(name, kind).expect("an answer").data;
        addresses.sort_unstable();
        addresses
    }

    /// What the server says of a name, other than what it is.
    pub fn code(&self, name: &str, kind: RecordType) -> ResponseCode {
        self.ask(name, kind).expect("an answer").code
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.netns).status();
    }
}

fn enter(netns: &Path) {
    let namespace = std::fs::File::open(netns).unwrap();
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&namespace),
        Some(LinkNameSpaceType::Network),
    )
    .unwrap();
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: ResponseCode,
    pub data: Vec<String>,
    pub is_cut: bool,
    pub after: Duration,
}

/// A question as a packet.
pub fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(rr::Name::from_labels(labels).unwrap(), kind));
    message.to_vec().unwrap()
}

/// Asks a question and waits for its answer.
pub fn exchange(client: &UdpSocket, name: &str, kind: RecordType) -> Option<Answer> {
    let (began, id) = (Instant::now(), std::process::id() as u16);
    client.send(&question(id, name, kind)).unwrap();
    let mut packet = [0; 65_535];
    let length = client.recv(&mut packet).ok()?;
    Some(answer(&packet[..length], began))
}

/// Reads an answer.
pub fn answer(packet: &[u8], began: Instant) -> Answer {
    let message = Message::from_vec(packet).unwrap();
    let text = |record: &rr::Record| match &record.data {
        RData::A(address) => IpAddr::from(address.0).to_string(),
        RData::AAAA(address) => IpAddr::from(address.0).to_string(),
        other => other.to_string(),
    };
    Answer {
        code: message.metadata.response_code,
        data: message.answers.iter().map(text).collect(),
        is_cut: message.metadata.truncation,
        after: began.elapsed(),
    }
}

/// Asks on a connection.
pub fn exchange_by_tcp(stream: &mut TcpStream, name: &str, kind: RecordType) -> std::io::Result<Answer> {
    let (began, packet) = (Instant::now(), question(7, name, kind));
    stream.write_all(&[&(packet.len() as u16).to_be_bytes(), packet.as_slice()].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet)?;
    Ok(answer(&packet, began))
}

/// The process id of the server that listens at a socket.
pub fn server(socket: &Path) -> Option<u32> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x07\0\0\0\"Hello\"").ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    let welcome: serde_json::Value = serde_json::from_slice(&body).unwrap();
    welcome["Welcome"]["process"].as_u64().map(|process| process as u32)
}

/// Kills a process at once.
pub fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process as i32).unwrap();
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
}

/// Waits until something is so.
pub async fn until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and is no zombie.
pub fn is_running(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    state
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

/// The permissions of a file.
pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The resolver at that address of the host or a sandbox.
pub fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 53)
}
