//! The process: one thread from devices to the wire, one back, and this one, that decides.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::FdFlags;

use crate::clock::{now, now_ms};
use crate::exchange::{Exchange, Output};
use crate::handover::{HandedNetwork, Handover};
use crate::handshake::PrivateKey;
use crate::inbound::Inbound;
use crate::outbound::{Outbound, Outbox, WAKE};
use crate::protocol::{self, Answer, Command, Configuration, Program, Status};
use crate::session::Frozen;
use crate::sys;
use crate::table::{Network, Shared, Table, View};

/// How long the thread that receives waits before it looks whether it is to end. Meanwhile nothing is lost.
const ATTENTION: Duration = Duration::from_millis(100);
/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(250);
/// So many ticks without a network end the process.
const IDLE_TICKS: u32 = 40;
/// Events that wait for this thread. What is lost of handshakes is begun again.
const EVENTS: usize = 256;
/// Received packets wait in this many bytes.
const SOCKET_BUFFER: i32 = 8 << 20;

/// What this thread waits for.
pub(crate) enum Event {
    /// A packet came that may be part of a handshake.
    Handshake(Vec<u8>),
    /// The session with this name has been used by who began it.
    Confirmed(u32),
    Command(Command, SyncSender<Answer>),
}

/// Everything that the process has.
struct Carrier {
    listener: UnixListener,
    events: SyncSender<Event>,
    epoll: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    shared: Arc<Shared>,
    networks: BTreeMap<u32, Carried>,
    link: Option<Link>,
    idle: u32,
}

struct Carried {
    device: String,
    network: Network,
}

/// What there is with a configuration: the socket, its threads, and sessions.
struct Link {
    configuration: Configuration,
    socket: Arc<UdpSocket>,
    exchange: Exchange,
    outbox: Outbox,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Runs the process, with the path of its socket, or what its predecessor handed over.
pub(crate) fn run(arguments: &[OsString]) -> io::Result<()> {
    let (listener, handed) = match arguments {
        [word, number] if word == crate::handover::WORD => {
            let handover = Handover::read(number)?;
            (UnixListener::from(sys::inherited(handover.listener)), Some(handover))
        }
        [socket] => (listen(Path::new(socket))?, None),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of a socket is needed")),
    };
    let (events, waiting) = sync_channel(EVENTS);
    let mut carrier = Carrier::new(listener, events)?;
    if let Some(handover) = handed {
        carrier.take_over(handover)?;
    }
    carrier.serve()?;
    carrier.run(&waiting)
}

/// Two processes never have one socket: the second finds the first one's answering.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another tunnel process runs"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Under another name until nobody but root can open it.
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Answers on one connection, until its other end has gone.
fn converse(mut stream: UnixStream, events: &SyncSender<Event>) -> io::Result<()> {
    loop {
        let command = protocol::read(&mut stream)?;
        let (answer, answered) = sync_channel(1);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        events.send(Event::Command(command, answer)).map_err(|_| gone(()))?;
        protocol::write(&mut stream, &answered.recv().map_err(|_| gone(()))?)?;
    }
}

fn random_name() -> u32 {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the system has random bytes");
    u32::from_ne_bytes(bytes)
}

impl Carrier {
    fn new(listener: UnixListener, events: SyncSender<Event>) -> io::Result<Carrier> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Carrier {
            listener,
            events,
            epoll: Arc::new(epoll),
            wake: Arc::new(wake),
            shared: Arc::default(),
            networks: BTreeMap::new(),
            link: None,
            idle: 0,
        })
    }

    /// Lets daemons connect: one at a time is usual, one that starts while its predecessor ends is not unheard of.
    fn serve(&self) -> io::Result<()> {
        let (listener, events) = (self.listener.try_clone()?, self.events.clone());
        spawn("control", move || {
            while let Ok((stream, _)) = listener.accept() {
                let events = events.clone();
                // That a daemon went is no concern of the tunnel's.
                let _ = spawn("daemon", move || drop(converse(stream, &events)));
            }
        })
        .map(drop)
    }

    fn run(mut self, waiting: &Receiver<Event>) -> io::Result<()> {
        let mut due = now_ms();
        loop {
            let patience = Duration::from_millis(due.saturating_sub(now_ms()));
            match waiting.recv_timeout(patience) {
                Ok(Event::Handshake(packet)) => self.handshake(&packet),
                Ok(Event::Confirmed(name)) => self.confirmed(name),
                Ok(Event::Command(command, answer)) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.obey(command));
                }
                Err(RecvTimeoutError::Timeout) => {
                    due = now_ms() + TICK.as_millis() as u64;
                    self.tick();
                    if self.idle > IDLE_TICKS {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn tick(&mut self) {
        self.drop_dead_networks();
        self.idle = if self.networks.is_empty() { self.idle + 1 } else { 0 };
        let output = self.link.as_mut().map(|link| link.exchange.tick(now()));
        self.carry_out(output.unwrap_or_default());
    }

    fn handshake(&mut self, packet: &[u8]) {
        let output = self.link.as_mut().map(|link| link.exchange.receive(packet, now()));
        self.carry_out(output.unwrap_or_default());
    }

    fn confirmed(&mut self, name: u32) {
        if self.link.as_mut().is_some_and(|link| link.exchange.confirmed(name)) {
            self.publish();
        }
    }

    fn carry_out(&mut self, output: Output) {
        // Sessions are to be received with before anybody can send with them.
        if output.changed {
            self.publish();
        }
        let Some(link) = &mut self.link else { return };
        for (host, packet) in output.send {
            // Lost like any packet; it is sent again.
            let _ = link.socket.send_to(&packet, (host, link.configuration.port));
        }
        for session in output.greet {
            link.outbox.greet(&session, now_ms(), &self.shared.counters);
        }
    }

    /// Shows the threads what is to be done from now on.
    fn publish(&self) {
        let exchange = self.link.as_ref().map(|link| &link.exchange);
        self.shared.replace(Table {
            networks: self.networks.iter().map(|(vni, carried)| (*vni, carried.network.clone())).collect(),
            sending: exchange.map(Exchange::sending).unwrap_or_default(),
            receiving: exchange.map(Exchange::receiving).unwrap_or_default(),
        });
        self.wake();
    }

    fn wake(&self) {
        // Full, it wakes all the same.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn obey(&mut self, command: Command) -> Answer {
        let done = match command {
            Command::Greet => return program(),
            Command::Tell => return Answer::Told(self.status()),
            Command::Configure(configuration) => self.configure(configuration),
            Command::SetNetwork { vni, device, peers } => self.set_network(vni, device, peers),
            Command::ChangeNetwork { vni, update, remove } => self.change_network(vni, &update, &remove),
            Command::RemoveNetwork(vni) => {
                self.remove_network(vni);
                Ok(())
            }
            Command::Become(program) => self.become_program(&program),
        };
        match done {
            Ok(()) => {
                self.want();
                self.publish();
                Answer::Done
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    fn status(&self) -> Status {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        let now_ms = now_ms();
        let sessions = self.link.iter().flat_map(|link| link.exchange.sending());
        let age = |made_ms| now_ms.saturating_sub(made_ms);
        Status {
            pid: std::process::id(),
            networks: self.networks.keys().copied().collect(),
            sessions: sessions.map(|(host, session)| (host, age(session.identity.made_ms))).collect(),
            sent: count(&counters.sent),
            received: count(&counters.received),
            unsent: count(&counters.unsent),
            replayed: count(&counters.replayed),
            forged: count(&counters.forged),
            unknown: count(&counters.unknown),
        }
    }

    fn configure(&mut self, configuration: Configuration) -> io::Result<()> {
        let same_link = |old: &Configuration| {
            (old.private, old.host, old.port)
                == (configuration.private, configuration.host, configuration.port)
        };
        if !self.link.as_ref().is_some_and(|link| same_link(&link.configuration)) {
            self.unlink();
            let socket = bind(configuration.host, configuration.port)?;
            self.link = Some(self.start_link(socket, configuration.clone())?);
        }
        if let Some(link) = &mut self.link {
            let hosts = configuration.hosts.iter().copied().collect();
            link.exchange.configure(configuration.keys.clone(), &hosts);
            link.configuration = configuration;
        }
        Ok(())
    }

    /// Starts the threads between devices and a socket.
    fn start_link(&self, socket: UdpSocket, configuration: Configuration) -> io::Result<Link> {
        sys::tune_socket(&socket, SOCKET_BUFFER)?;
        socket.set_read_timeout(Some(ATTENTION))?;
        let socket = Arc::new(socket);
        let end = Arc::new(AtomicBool::new(false));
        let outbound = Outbound {
            view: View::new(self.shared.clone()),
            epoll: self.epoll.clone(),
            wake: self.wake.clone(),
            end: end.clone(),
            outbox: Outbox::new(socket.clone(), configuration.port),
        };
        let inbound = Inbound {
            view: View::new(self.shared.clone()),
            socket: socket.clone(),
            end: end.clone(),
            events: self.events.clone(),
        };
        let threads = vec![
            spawn("outbound", move || or_abort(outbound.run()))?,
            spawn("inbound", move || or_abort(inbound.run()))?,
        ];
        Ok(Link {
            exchange: Exchange::new(PrivateKey(configuration.private), random_name),
            outbox: Outbox::new(socket.clone(), configuration.port),
            configuration,
            socket,
            end,
            threads,
        })
    }

    /// Ends the threads; nothing is sent or received from then on.
    fn unlink(&mut self) -> Option<(Configuration, Arc<UdpSocket>, Vec<Frozen>)> {
        let link = self.link.take()?;
        link.end.store(true, Ordering::Release);
        self.wake();
        for thread in link.threads {
            // One that failed has ended the process.
            let _ = thread.join();
        }
        Some((link.configuration, link.socket, link.exchange.freeze()))
    }

    fn set_network(
        &mut self,
        vni: u32,
        device: String,
        peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    ) -> io::Result<()> {
        // A device of that name may be another one by now.
        self.drop_dead_networks();
        let peers = Arc::new(peers);
        if let Some(carried) = self.networks.get_mut(&vni).filter(|carried| carried.device == device) {
            carried.network.peers = peers;
            return Ok(());
        }
        self.remove_network(vni);
        // To take hold of one that is not there would make it.
        if rustix::net::netdevice::name_to_index(&self.listener, &device).is_err() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no device {device}")));
        }
        let tap = sys::open_tap(&device)?;
        self.add_network(vni, device, Network { tap: Arc::new(tap), peers })
    }

    fn add_network(&mut self, vni: u32, device: String, network: Network) -> io::Result<()> {
        let data = epoll::EventData::new_u64(u64::from(vni));
        epoll::add(&*self.epoll, &*network.tap, data, epoll::EventFlags::IN)?;
        self.networks.insert(vni, Carried { device, network });
        Ok(())
    }

    fn change_network(
        &mut self,
        vni: u32,
        update: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> io::Result<()> {
        let carried = self.networks.get_mut(&vni);
        let carried = carried.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("network {vni} is not carried"))
        })?;
        let peers = Arc::make_mut(&mut carried.network.peers);
        for address in remove {
            peers.remove(address);
        }
        peers.extend(update);
        Ok(())
    }

    fn remove_network(&mut self, vni: u32) {
        if let Some(carried) = self.networks.remove(&vni) {
            // The threads may hold on to it for as long as a packet takes.
            let _ = epoll::delete(&*self.epoll, &*carried.network.tap);
        }
    }

    /// Forgets networks whose devices somebody has removed.
    fn drop_dead_networks(&mut self) {
        let is_dead = |carried: &Carried| {
            let mut nothing = [0; 0];
            rustix::io::read(&*carried.network.tap, &mut nothing) == Err(rustix::io::Errno::BADFD)
        };
        let dead: Vec<u32> =
            self.networks.iter().filter(|(_, carried)| is_dead(carried)).map(|(vni, _)| *vni).collect();
        for vni in &dead {
            self.remove_network(*vni);
        }
        if !dead.is_empty() {
            self.want();
            self.publish();
        }
    }

    fn want(&mut self) {
        let peers = self.networks.values().flat_map(|carried| carried.network.peers.values());
        let hosts: BTreeSet<Ipv4Addr> = peers.copied().collect();
        if let Some(link) = &mut self.link {
            link.exchange.want(&hosts);
            let output = link.exchange.tick(now());
            self.carry_out(output);
        }
    }

    /// Goes on as another program, in this process: descriptors stay open, so nothing that waits in them is lost.
    /// Returns only if that fails.
    fn become_program(&mut self, program: &Path) -> io::Result<()> {
        let link = self.unlink();
        let networks = self.networks.iter().map(|(vni, carried)| HandedNetwork {
            vni: *vni,
            device: carried.device.clone(),
            tap: carried.network.tap.as_raw_fd(),
            peers: (*carried.network.peers).clone(),
        });
        let handover = Handover {
            listener: self.listener.as_raw_fd(),
            networks: networks.collect(),
            link: link.as_ref().map(|(configuration, socket, sessions)| {
                (configuration.clone(), socket.as_raw_fd(), sessions.clone())
            }),
        };
        let kept = |keep: FdFlags| -> io::Result<()> {
            rustix::io::fcntl_setfd(&self.listener, keep)?;
            for carried in self.networks.values() {
                rustix::io::fcntl_setfd(&*carried.network.tap, keep)?;
            }
            if let Some((_, socket, _)) = &link {
                rustix::io::fcntl_setfd(&**socket, keep)?;
            }
            Ok(())
        };
        kept(FdFlags::empty())?;
        let failed = match handover.write() {
            Ok((file, number)) => {
                let failed =
                    Process::new(program).arg("tunnel").arg(crate::handover::WORD).arg(number).exec();
                drop(file);
                failed
            }
            Err(error) => error,
        };
        // As before, then, with the same sessions.
        kept(FdFlags::CLOEXEC)?;
        if let Some((configuration, socket, sessions)) = link {
            self.restore(configuration, socket.try_clone()?, sessions)?;
        }
        Err(failed)
    }

    fn restore(
        &mut self,
        configuration: Configuration,
        socket: UdpSocket,
        sessions: Vec<Frozen>,
    ) -> io::Result<()> {
        let mut link = self.start_link(socket, configuration)?;
        let hosts = link.configuration.hosts.iter().copied().collect();
        link.exchange.configure(link.configuration.keys.clone(), &hosts);
        link.exchange.thaw(sessions);
        self.link = Some(link);
        self.want();
        self.publish();
        Ok(())
    }

    fn take_over(&mut self, handover: Handover) -> io::Result<()> {
        for handed in handover.networks {
            let tap = sys::inherited(handed.tap);
            rustix::io::fcntl_setfd(&tap, FdFlags::CLOEXEC)?;
            let network = Network { tap: Arc::new(tap), peers: Arc::new(handed.peers) };
            self.add_network(handed.vni, handed.device, network)?;
        }
        rustix::io::fcntl_setfd(&self.listener, FdFlags::CLOEXEC)?;
        if let Some((configuration, socket, sessions)) = handover.link {
            let socket = sys::inherited(socket);
            rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            self.restore(configuration, UdpSocket::from(socket), sessions)?;
        }
        Ok(())
    }
}

/// A host behind a translating router lacks its own address, and is reached all the same.
fn bind(host: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind(SocketAddrV4::new(host, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
        }
        other => other,
    }
}

fn program() -> Answer {
    match Program::at(Path::new("/proc/self/exe")) {
        Ok(program) => Answer::Program(program),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work)
}

/// A process that carries in one direction only is worse than one that ended: the daemon starts that again.
fn or_abort(result: io::Result<()>) {
    if result.is_err() {
        std::process::abort();
    }
}
