//! The server: `skep names`, one process a daemon, on one thread (and one that visits namespaces).
//!
//! It is told everything by a daemon and remembers nothing on disk. It does not end with that daemon; the next one finds it by
//! its socket. It ends when a daemon releases it, or when nobody has been connected for a while, in either case only without
//! sandboxes.

mod descriptors;
mod forward;
mod known;
mod namespace;
mod resolvers;
mod sandbox;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::protocol::{self, Change, NamespaceId, Request, Response};
use crate::sys::{self, ShortPath};
use crate::tables::View;
use known::Known;
use namespace::{Namespace, Sockets, Visitor};
use sandbox::{Sandbox, Service};

/// The argument before the path of the socket.
pub(crate) const SOCKET: &str = "--socket";
/// The argument before what identifies the program.
pub(crate) const BUILD: &str = "--build";

/// How little the server likes to be killed for want of memory, as the shims.
const OOM_SCORE_ADJ: &str = "-999";
/// How long a predecessor may take to answer.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// How long answers that are under way may take once another process has taken over.
const LINGER: Duration = Duration::from_secs(6);
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a server without sandboxes waits for a daemon.
const ALONE: Duration = Duration::from_secs(30);
/// How long after an error a connection is accepted again: it is the lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The body of `skep names`, with the arguments after that word; its standard input is a socket to the daemon that starts it.
/// Nobody types it.
pub fn names_main(arguments: &[OsString]) -> ! {
    let [socket_word, socket, build_word, build] = arguments else { refuse() };
    if socket_word != SOCKET || build_word != BUILD {
        refuse();
    }
    settle();
    let code = match serve(Path::new(socket), &build.to_string_lossy()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("skep names: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn refuse() -> ! {
    eprintln!("skep names is started by skep daemon only");
    std::process::exit(2)
}

/// Parts from the daemon.
fn settle() {
    let _ = rustix::process::setsid();
    // What the daemon inherited from whoever started it would be held open for as long as there are containers.
    let _ = sys::close_from(3);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let _ = rustix::thread::set_name(c"skep-names");
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Refused without the capability: no reason not to run.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = rustix::process::chdir("/");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

fn serve(socket: &Path, build: &str) -> io::Result<()> {
    // A socket to the daemon that has started this process.
    let daemon: OwnedFd = rustix::io::dup(rustix::stdio::stdin())?;
    rustix::io::fcntl_setfd(&daemon, rustix::io::FdFlags::CLOEXEC)?;
    rustix::stdio::dup2_stdin(File::options().read(true).write(true).open("/dev/null")?)?;
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let visitor = Visitor::start()?;
        let server = Rc::new(Server::new(socket, build, visitor, u64::from_ne_bytes(seed)));
        rustix::io::ioctl_fionbio(&daemon, true)?;
        let daemon = UnixStream::from_std(daemon.into())?;
        server.converse(daemon);
        server.until_unneeded().await;
        Ok(())
    })
}

/// All that the process is.
struct Server {
    socket: PathBuf,
    build: String,
    visitor: Visitor,
    service: Service,
    over: watch::Sender<bool>,
    /// What each sandbox is to see, and in which session of the daemon's that was said last.
    views: RefCell<BTreeMap<String, (u64, Rc<View>)>>,
    sandboxes: RefCell<BTreeMap<String, Sandbox>>,
    /// Whether it listens, or another does.
    listener: RefCell<Option<Rc<UnixListener>>>,
    session: Cell<u64>,
    connections: Cell<usize>,
    released: Notify,
    /// Sandboxes are opened and closed by one conversation at a time.
    applying: tokio::sync::Mutex<()>,
}

impl Server {
    fn new(socket: &Path, build: &str, visitor: Visitor, seed: u64) -> Server {
        let (over, watched) = watch::channel(false);
        let known = Rc::new(Known::new(visitor.clone(), seed));
        Server {
            socket: socket.to_owned(),
            build: build.to_owned(),
            visitor,
            service: Service { known, over: watched, busy: Rc::default() },
            over,
            views: RefCell::default(),
            sandboxes: RefCell::default(),
            listener: RefCell::default(),
            session: Cell::new(0),
            connections: Cell::new(0),
            released: Notify::new(),
            applying: tokio::sync::Mutex::default(),
        }
    }

    /// Returns when the process may end.
    async fn until_unneeded(&self) {
        tokio::select! {
            () = self.released.notified() => {}
            () = self.until_alone() => {}
            () = self.until_over() => {}
        }
        // Otherwise it is another's.
        if self.is_serving() {
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    async fn until_alone(&self) {
        let mut alone = Duration::ZERO;
        while alone < ALONE {
            sleep(ALONE / 6).await;
            let is_needed =
                self.connections.get() > 0 || !self.views.borrow().is_empty() || *self.over.borrow();
            alone = if is_needed { Duration::ZERO } else { alone + ALONE / 6 };
        }
    }

    async fn until_over(&self) {
        // The sender is this server's own.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
        let answered = async {
            while self.service.busy.get() > 0 {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(LINGER, answered).await;
    }

    /// Serves a connection in a task of its own.
    fn converse(self: &Rc<Server>, mut stream: UnixStream) {
        let server = Rc::clone(self);
        tokio::task::spawn_local(async move {
            server.connections.set(server.connections.get() + 1);
            // Whatever ended the conversation, the other side sees it.
            let _ = server.answer_all(&mut stream).await;
            server.connections.set(server.connections.get() - 1);
            // Its daemon was gone before it began, or does not want it: it has nothing that anybody could miss.
            if server.connections.get() == 0 && !server.is_serving() && !*server.over.borrow() {
                server.released.notify_one();
            }
        });
    }

    async fn answer_all(self: &Rc<Server>, stream: &mut UnixStream) -> io::Result<()> {
        loop {
            let request = protocol::read(stream).await?;
            let applying = self.applying.lock().await;
            let failed = match request {
                Request::Hello => {
                    let (version, process) = (protocol::VERSION, std::process::id());
                    let welcome = Response::Welcome { version, build: self.build.clone(), process };
                    protocol::write(stream, &welcome).await?;
                    continue;
                }
                Request::HandOver => return self.hand_over(stream).await,
                Request::Begin { resolv_conf } => {
                    self.session.set(self.session.get() + 1);
                    self.service.known.begin();
                    self.service.known.host.read_from(resolv_conf);
                    BTreeMap::new()
                }
                Request::Change(changes) => self.change(changes).await,
                Request::Serve => self.take_over().await?,
                Request::Complete => {
                    self.sweep();
                    BTreeMap::new()
                }
                Request::Release => {
                    if self.views.borrow().is_empty() {
                        self.released.notify_one();
                    }
                    BTreeMap::new()
                }
            };
            drop(applying);
            protocol::write(stream, &Response::Done(failed)).await?;
        }
    }

    async fn change(&self, changes: Vec<Change>) -> BTreeMap<String, String> {
        let mut failed = BTreeMap::new();
        for change in changes {
            let (sandbox, view) = match change {
                Change::Sandbox(sandbox, view) => (sandbox, view),
                change => {
                    self.service.known.change(change);
                    continue;
                }
            };
            let Some(view) = view else {
                self.views.borrow_mut().remove(&sandbox);
                self.sandboxes.borrow_mut().remove(&sandbox);
                continue;
            };
            let view = Rc::new(view);
            self.views.borrow_mut().insert(sandbox.clone(), (self.session.get(), Rc::clone(&view)));
            // Before, a predecessor may have the sandbox's sockets.
            if self.is_serving()
                && let Err(error) = self.serve_sandbox(&sandbox, view, &mut HashMap::new()).await
            {
                failed.insert(sandbox, error.to_string());
            }
        }
        failed
    }

    /// Serves a sandbox by its view, through sockets that it has, that were given, or that are opened.
    async fn serve_sandbox(&self, sandbox: &str, view: Rc<View>, given: &mut Given) -> io::Result<()> {
        let opened = self.open_sandbox(sandbox, view, given).await;
        if opened.is_err() {
            // Its old namespace is not its own any more.
            self.sandboxes.borrow_mut().remove(sandbox);
        }
        opened
    }

    async fn open_sandbox(&self, sandbox: &str, view: Rc<View>, given: &mut Given) -> io::Result<()> {
        let namespace = Namespace::open(&view.netns)?;
        if let Some(served) = self.sandboxes.borrow().get(sandbox)
            && served.asker.namespace.id == namespace.id
        {
            served.asker.view.replace(view);
            return Ok(());
        }
        let sockets = match given.remove(sandbox) {
            Some((id, sockets)) if id == namespace.id => sockets,
            _ => self.visitor.listen(&namespace).await?,
        };
        let served = Sandbox::serve(&self.service, view, namespace, sockets)?;
        self.sandboxes.borrow_mut().insert(sandbox.to_owned(), served);
        Ok(())
    }

    /// Forgets what this session has not told of.
    fn sweep(&self) {
        self.service.known.sweep();
        let (mut views, session) = (self.views.borrow_mut(), self.session.get());
        views.retain(|_, (last, _)| *last == session);
        self.sandboxes.borrow_mut().retain(|sandbox, _| views.contains_key(sandbox));
    }

    fn is_serving(&self) -> bool {
        self.listener.borrow().is_some()
    }

    /// Becomes the one server at its socket, with what its predecessor holds, if there is one.
    async fn take_over(self: &Rc<Server>) -> io::Result<BTreeMap<String, String>> {
        if self.is_serving() {
            return Ok(BTreeMap::new());
        }
        // One that does not answer, or not to the end, has nothing to give: it is dead, or will be.
        let (listener, mut given) = match receive_all(&self.socket) {
            Ok(received) => received,
            Err(_) => (bind(&self.socket)?, Given::new()),
        };
        listener.set_nonblocking(true)?;
        let listener = Rc::new(UnixListener::from_std(listener)?);
        *self.listener.borrow_mut() = Some(Rc::clone(&listener));
        let views = self.views.borrow().clone();
        let mut failed = BTreeMap::new();
        for (sandbox, (_, view)) in views {
            if let Err(error) = self.serve_sandbox(&sandbox, view, &mut given).await {
                failed.insert(sandbox, error.to_string());
            }
        }
        let server = Rc::clone(self);
        tokio::task::spawn_local(async move { server.listen(listener).await });
        Ok(failed)
    }

    async fn listen(self: &Rc<Server>, listener: Rc<UnixListener>) {
        let mut over = self.over.subscribe();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.converse(stream),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                _ = over.wait_for(|over| *over) => return,
            }
        }
    }

    /// Gives everything to a successor. From the first line on, nothing more is read here.
    async fn hand_over(&self, stream: &mut UnixStream) -> io::Result<()> {
        let Some(listener) = self.listener.borrow_mut().take() else {
            return Err(io::Error::other("it has been handed over before"));
        };
        self.over.send_replace(true);
        let mut given = Vec::new();
        for (sandbox, served) in std::mem::take(&mut *self.sandboxes.borrow_mut()) {
            let namespace = served.asker.namespace.id;
            given.push((Response::Sockets { sandbox, namespace }, served.give()?));
        }
        for (response, sockets) in given {
            descriptors::send(stream, &response, &sockets).await?;
        }
        let listener = [rustix::io::dup(&*listener)?];
        descriptors::send(stream, &Response::Listener, &listener).await
    }
}

/// Sockets that a predecessor gave, by sandbox.
type Given = HashMap<String, (NamespaceId, Sockets)>;

/// Asks whoever listens at `socket` for all it has; waits for it.
fn receive_all(socket: &Path) -> io::Result<(std::os::unix::net::UnixListener, Given)> {
    let stream = std::os::unix::net::UnixStream::connect(ShortPath::of(socket)?.path())?;
    stream.set_read_timeout(Some(PREDECESSOR))?;
    stream.set_write_timeout(Some(PREDECESSOR))?;
    io::Write::write_all(&mut &stream, &protocol::frame_of(&Request::HandOver))?;
    let mut given = Given::new();
    loop {
        let (response, mut descriptors) = descriptors::receive(&stream)?;
        match (response, descriptors.pop(), descriptors.pop()) {
            (Response::Sockets { sandbox, namespace }, Some(tcp), Some(udp)) => {
                given.insert(sandbox, (namespace, Sockets { udp: udp.into(), tcp: tcp.into() }));
            }
            (Response::Listener, Some(listener), None) => return Ok((listener.into(), given)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not hand over")),
        }
    }
}

/// Listens at `socket`, in the place of one who is dead.
fn bind(socket: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = ShortPath::of(socket)?;
    std::os::unix::net::UnixListener::bind(socket.path())
}
