//! The daemon's end: says what the tunnel process has to do, and sees to it that one runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use skep_types::tunnel::{NetworkKey, TunnelKey};

use crate::handshake::PrivateKey;
use crate::protocol::{self, Answer, Command, Configuration, Program, Status};

/// How long a process that was just started may take to listen.
const START_MS: u64 = 5_000;
/// How long the process may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The wait before a process that ended is started again, so that one that ends at once does not keep a core busy.
const RESTART: Duration = Duration::from_millis(20);
/// The wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where a [`Tunnel`] keeps its things.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the process listens for the daemon: a path below the exec root.
    pub socket: PathBuf,
    /// The file of the node's private key, made if it is not there: a path below the data root, that goes when the node
    /// leaves its cluster.
    pub key: PathBuf,
    /// The binary that is executed as `skep tunnel`.
    pub program: PathBuf,
}

/// Why a [`Tunnel`] could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The private key could not be read or made.
    #[error("reading or making the tunnel's key {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system lacks what the handle itself needs.
    #[error("preparing to speak with the tunnel process")]
    System(#[source] io::Error),
}

/// What a node's tunnel needs besides its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's own address, that packets are sent from.
    pub host: Ipv4Addr,
    /// The UDP port of all nodes.
    pub port: u16,
    /// The cluster's keys, in the order of their numbers.
    pub keys: Vec<NetworkKey>,
    /// All other nodes that may be spoken with, by their addresses.
    pub hosts: BTreeMap<Ipv4Addr, TunnelKey>,
}

/// The daemon's handle of the tunnel process. Calls return at once; a thread makes the process agree, starts it when
/// there is a network and none runs, and again when it was killed. Without a handle the process goes on as it is.
#[derive(Clone, Debug)]
pub struct Tunnel {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    public: TunnelKey,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    private: PrivateKey,
    wanted: Mutex<Wanted>,
    /// Says that something was asked for.
    asked: OwnedFd,
}

#[derive(Debug, Default)]
struct Wanted {
    settings: Option<Settings>,
    networks: BTreeMap<u32, Network>,
    /// What changed since the process was told all.
    changes: VecDeque<Command>,
    trouble: Option<String>,
    status: Option<Status>,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Network {
    device: String,
    peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// Ends the thread.
impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.ask(|wanted| wanted.ended = true);
    }
}

impl Tunnel {
    /// Reads the node's key, or makes one. No process is started before there are settings and a network.
    pub fn open(config: Config) -> Result<Tunnel, OpenError> {
        let private = read_or_make_key(&config.key)
            .map_err(|source| OpenError::Key { path: config.key.clone(), source })?;
        let asked = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| OpenError::System(error.into()))?;
        let public = private.public();
        let shared = Arc::new(Shared { config, private, wanted: Mutex::default(), asked });
        let keeper = Keeper { shared: shared.clone(), process: None };
        std::thread::Builder::new()
            .name("tunnel".to_owned())
            .stack_size(256 << 10)
            .spawn(move || keeper.run())
            .map_err(OpenError::System)?;
        Ok(Tunnel { handle: Arc::new(Handle { shared, public }) })
    }

    /// What other nodes must know of this one.
    pub fn public_key(&self) -> TunnelKey {
        self.handle.public
    }

    /// Sets keys and hosts, all of them at once. Sessions with hosts that are not named, or have another key, end.
    pub fn configure(&self, settings: Settings) {
        self.handle.shared.ask(|wanted| {
            if wanted.settings.as_ref() != Some(&settings) {
                wanted.changes.push_back(Command::Configure(self.handle.shared.configuration(&settings)));
                wanted.settings = Some(settings);
            }
        });
    }

    /// Carries a network, `vni` among the nodes, between `device` (a TAP device that exists) and `peers`: all its
    /// addresses on other nodes, and those nodes' addresses.
    pub fn set_network(&self, vni: u32, device: &str, peers: BTreeMap<Ipv4Addr, Ipv4Addr>) {
        self.handle.shared.ask(|wanted| {
            let network = Network { device: device.to_owned(), peers };
            wanted.changes.push_back(network.command(vni));
            wanted.networks.insert(vni, network);
        });
    }

    /// Whether this handle has told of a network.
    pub fn carries(&self, vni: u32) -> bool {
        self.handle.shared.lock().networks.contains_key(&vni)
    }

    /// Changes what [`Tunnel::set_network`] told of addresses.
    pub fn change_network(
        &self,
        vni: u32,
        update: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        remove: &BTreeSet<Ipv4Addr>,
    ) {
        self.handle.shared.ask(|wanted| {
            let Some(network) = wanted.networks.get_mut(&vni) else { return };
            network.peers.retain(|address, _| !remove.contains(address));
            network.peers.extend(update);
            let (update, remove) = (update.clone(), remove.clone());
            wanted.changes.push_back(Command::ChangeNetwork { vni, update, remove });
        });
    }

    /// Carries a network no longer. Without any, the process ends by itself.
    pub fn remove_network(&self, vni: u32) {
        self.handle.shared.ask(|wanted| {
            wanted.networks.remove(&vni);
            wanted.changes.push_back(Command::RemoveNetwork(vni));
        });
    }

    /// Why the process does not do what it should at present, if so.
    pub fn trouble(&self) -> Option<String> {
        self.handle.shared.lock().trouble.clone()
    }

    /// What the process told of itself when it was asked last, and asks it again.
    pub fn status(&self) -> Option<Status> {
        let mut status = None;
        self.handle.shared.ask(|wanted| {
            status = wanted.status.take();
            wanted.changes.push_back(Command::Tell);
        });
        status
    }
}

impl Network {
    fn command(&self, vni: u32) -> Command {
        Command::SetNetwork { vni, device: self.device.clone(), peers: self.peers.clone() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.lock());
        // Full, it says so all the same.
        let _ = rustix::io::write(&self.asked, &1u64.to_ne_bytes());
    }

    fn configuration(&self, settings: &Settings) -> Configuration {
        Configuration {
            private: self.private.0,
            host: settings.host,
            port: settings.port,
            keys: settings.keys.clone(),
            hosts: settings.hosts.iter().map(|(host, key)| (*host, *key)).collect(),
        }
    }

    /// Everything, in the place of the changes that led to it; `None` while there is nothing to run a process for.
    fn take_all(&self) -> Option<Vec<Command>> {
        let mut wanted = self.lock();
        wanted.changes.clear();
        let settings = wanted.settings.as_ref().filter(|_| !wanted.networks.is_empty())?;
        let mut all = vec![Command::Configure(self.configuration(settings))];
        all.extend(wanted.networks.iter().map(|(vni, network)| network.command(*vni)));
        Some(all)
    }
}

fn read_or_make_key(path: &Path) -> io::Result<PrivateKey> {
    match std::fs::read(path) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => Ok(PrivateKey(key)),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not a key of 32 bytes")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path),
        Err(error) => Err(error),
    }
}

/// A key is there whole or not at all, also after a power cut.
fn make_key(path: &Path) -> io::Result<PrivateKey> {
    let key = PrivateKey::generate();
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&key.0)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(key)
}

/// The thread that makes the process agree.
struct Keeper {
    shared: Arc<Shared>,
    process: Option<UnixStream>,
}

impl Keeper {
    fn run(mut self) {
        loop {
            let done = self.step();
            let mut wanted = self.shared.lock();
            if wanted.ended {
                return;
            }
            wanted.trouble = done.as_ref().err().map(ToString::to_string);
            drop(wanted);
            if done.is_err() {
                self.process = None;
            }
            if self.wait(done.is_err().then_some(RETRY)) {
                self.process = None;
                std::thread::sleep(RESTART);
            }
        }
    }

    /// Tells the process what it does not know yet.
    fn step(&mut self) -> io::Result<()> {
        if self.process.is_none() {
            let Some(all) = self.shared.take_all() else { return Ok(()) };
            let mut process = self.reach()?;
            for command in all {
                tell(&mut process, command)?;
            }
            self.process = Some(process);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        loop {
            let Some(command) = self.shared.lock().changes.pop_front() else { return Ok(()) };
            if let Answer::Told(status) = tell(process, command)? {
                self.shared.lock().status = Some(status);
            }
        }
    }

    /// Connects to a process that runs this daemon's program.
    fn reach(&self) -> io::Result<UnixStream> {
        let ours = Program::at(&self.shared.config.program)?;
        let mut process = match self.connect() {
            Ok(process) => process,
            Err(_) => self.start()?,
        };
        let Answer::Program(theirs) = tell(&mut process, Command::Greet)? else { return Ok(process) };
        if theirs == ours {
            return Ok(process);
        }
        // An answer means that it could not; an older program that works is better than none.
        if tell(&mut process, Command::Become(self.shared.config.program.clone())).is_err() {
            return self.connect_soon();
        }
        Ok(process)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let process = UnixStream::connect(&self.shared.config.socket)?;
        process.set_read_timeout(Some(ANSWER))?;
        process.set_write_timeout(Some(ANSWER))?;
        Ok(process)
    }

    fn connect_soon(&self) -> io::Result<UnixStream> {
        let start = Instant::now();
        loop {
            match self.connect() {
                Err(error) if start.elapsed() > Duration::from_millis(START_MS) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
                connected => return connected,
            }
        }
    }

    fn start(&self) -> io::Result<UnixStream> {
        let Config { socket, program, .. } = &self.shared.config;
        let mut process = std::process::Command::new(program);
        process.arg("tunnel").arg(socket).env_clear().current_dir("/").process_group(0);
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = process.spawn()?;
        // Nobody else would collect it while this daemon lives.
        std::thread::Builder::new().name("tunnel's end".to_owned()).stack_size(64 << 10).spawn(
            move || {
                let _ = child.wait();
            },
        )?;
        self.connect_soon()
    }

    /// Waits until something is asked for, the process ends, or the time is over.
    /// Returns whether the process has ended.
    fn wait(&self, patience: Option<Duration>) -> bool {
        let mut events = vec![PollFd::new(&self.shared.asked, PollFlags::IN)];
        // Only its end makes it readable: each answer has been read.
        events.extend(self.process.as_ref().map(|process| PollFd::new(process, PollFlags::IN)));
        let patience = patience.and_then(|patience| patience.try_into().ok());
        let _ = rustix::event::poll(&mut events, patience.as_ref());
        let _ = rustix::io::read(&self.shared.asked, &mut [0; 8]);
        events.get(1).is_some_and(|process| !process.revents().is_empty())
    }
}

/// Tells the process one thing, and returns its answer; that it refuses is an error.
fn tell(process: &mut UnixStream, command: Command) -> io::Result<Answer> {
    protocol::write(process, &command)?;
    match protocol::read(process)? {
        Answer::Failed(why) if !matches!(command, Command::Become(_)) => Err(io::Error::other(why)),
        answer => Ok(answer),
    }
}
