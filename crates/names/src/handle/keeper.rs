//! Keeps a server running that knows what the handle's state says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::state::Reached;
use super::{Config, Shared};
use crate::protocol::{self, Request, Response};
use crate::server::{BUILD, SOCKET};
use crate::sys::ShortPath;

/// About how many records are told at once: some hundred kilobytes, which a server reads in a few milliseconds.
const RECORDS_AT_ONCE: usize = 2000;
/// How long a server that listens may take to greet. One that is dead does not listen.
const GREETING: Duration = Duration::from_secs(5);
/// How long a server without sandboxes is kept for the next one.
const REST: Duration = Duration::from_secs(10);
/// How long until a sandbox that could not be served is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A server that has lasted for so long does not fail for a reason that lasts.
const STEADY: Duration = Duration::from_secs(2);
/// The pauses before a server is looked for, or started, again. The first time it is at once.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(900)];

/// Why there is no conversation with a server.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("the server of names was lost")]
    Lost(#[source] io::Error),
}

/// How a conversation ended.
#[derive(Debug)]
enum End {
    /// No server is needed for now.
    Rest,
    /// The handle is closed.
    Closed,
    /// The state is complete, so one from our own program can take over.
    Outdated,
}

/// What was found at the socket.
#[derive(Debug)]
enum Found {
    Nobody,
    Server(UnixStream, Server),
    /// A server with which there is no talking.
    Incompatible,
    /// A server that was told everything, and is to be replaced now.
    Outdated,
}

/// Which server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// One that runs, from our program.
    Ours,
    /// One that runs, from another.
    Other,
    /// One that was just started.
    Started,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    config: Config,
    shared: Arc<Shared>,
    /// Our program as it was when the handle was opened, whatever is at its path later: a server that is started again must
    /// be one that we can talk to.
    program: io::Result<(File, String)>,
}

impl Keeper {
    pub(super) fn new(config: Config, shared: Arc<Shared>) -> Keeper {
        let program = open_program(&config.program);
        Keeper { config, shared, program }
    }

    /// Runs until the handle is closed.
    pub(super) async fn run(self) {
        // One of a predecessor's may run.
        let (mut wanted, mut failures, mut outdated) = (true, 0, false);
        loop {
            while !wanted {
                self.shared.changed.notified().await;
                let state = self.shared.state();
                if state.is_closing() {
                    return;
                }
                wanted = !state.is_idle();
            }
            let began = Instant::now();
            let ended = self.converse(outdated).await;
            outdated = matches!(ended, Ok(End::Outdated));
            match ended {
                Ok(End::Closed) => return,
                Ok(End::Outdated) => {}
                Ok(End::Rest) => (wanted, failures) = (false, 0),
                Err(error) => {
                    tracing::warn!("{}", chain(&error));
                    failures = if began.elapsed() > STEADY { 0 } else { failures };
                    sleep(PAUSES[failures]).await;
                    failures = (failures + 1).min(PAUSES.len() - 1);
                    if self.shared.state().is_closing() {
                        return;
                    }
                }
            }
        }
    }

    /// One conversation with one server.
    async fn converse(&self, outdated: bool) -> Result<End, KeeperError> {
        let found = if outdated { Found::Outdated } else { self.greet().await };
        let (mut stream, server) = match found {
            Found::Server(stream, server) => (stream, server),
            Found::Nobody if self.shared.state().is_idle() => return Ok(End::Rest),
            // It goes on with what it knows, until we know all that it has to.
            Found::Incompatible if !self.until_complete().await => return Ok(End::Closed),
            Found::Nobody | Found::Incompatible | Found::Outdated => (self.start()?, Server::Started),
        };
        self.tell(&mut stream, server).await.map_err(KeeperError::Lost)
    }

    /// Looks for a server that runs.
    async fn greet(&self) -> Found {
        let greeting = async {
            let path = ShortPath::of(&self.config.socket)?;
            let mut stream = UnixStream::connect(path.path()).await?;
            protocol::write(&mut stream, &Request::Hello).await?;
            let response: Response = protocol::read(&mut stream).await?;
            io::Result::Ok((stream, response))
        };
        let Ok(Ok((stream, Response::Welcome { version, build, .. }))) = timeout(GREETING, greeting).await
        else {
            return Found::Nobody;
        };
        let is_ours = self.program.as_ref().is_ok_and(|(_, ours)| *ours == build);
        if is_ours && version == protocol::VERSION {
            return Found::Server(stream, Server::Ours);
        }
        if version != protocol::VERSION {
            return Found::Incompatible;
        }
        Found::Server(stream, Server::Other)
    }

    /// Waits until the state is complete; `false` when the handle is closed before.
    async fn until_complete(&self) -> bool {
        loop {
            {
                let state = self.shared.state();
                if state.is_complete() || state.is_closing() {
                    return state.is_complete();
                }
            }
            self.shared.changed.notified().await;
        }
    }

    fn start(&self) -> Result<UnixStream, KeeperError> {
        let failed =
            |source| KeeperError::Start { program: self.config.program.display().to_string(), source };
        let (program, build) = match &self.program {
            Ok(program) => program,
            Err(error) => return Err(failed(io::Error::new(error.kind(), error.to_string()))),
        };
        let start = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, servers) =
                rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            // When it ends while we live, the runtime reaps it.
            tokio::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
                .arg0("skep")
                .args(["names", SOCKET])
                .arg(&self.config.socket)
                .args([BUILD, build])
                .env_clear()
                // One arena and no thread caches: the heap stays small.
                .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0")
                .stdin(Stdio::from(servers))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir("/")
                .spawn()?;
            UnixStream::from_std(OwnedFd::into(ours))
        };
        start().map_err(failed)
    }

    /// Tells a server everything, then what changes.
    async fn tell(&self, stream: &mut UnixStream, server: Server) -> io::Result<End> {
        let resolv_conf = self.config.resolv_conf.clone();
        request(stream, &Request::Begin { resolv_conf }).await?;
        self.shared.state().touch_all();
        let (mut is_serving, mut is_complete) = (server != Server::Started, false);
        let mut unserved = Unserved::default();
        loop {
            let reached = self.flush(stream, &mut unserved).await?;
            if !is_serving {
                unserved.add(request(stream, &Request::Serve).await?);
                is_serving = true;
            }
            if reached.is_complete && server == Server::Other && !reached.is_closing {
                return Ok(End::Outdated);
            }
            if reached.is_complete && !is_complete {
                request(stream, &Request::Complete).await?;
                is_complete = true;
            }
            self.shared
                .told
                .send_if_modified(|told| std::mem::replace(told, reached.version) != reached.version);
            let is_needless = is_complete && reached.is_idle;
            if reached.is_closing {
                if is_needless {
                    request(stream, &Request::Release).await?;
                }
                return Ok(End::Closed);
            }
            tokio::select! {
                error = lost(stream) => return Err(error),
                () = self.shared.changed.notified() => {}
                () = unserved.due() => self.retry(&mut unserved),
                () = sleep(REST), if is_needless => {
                    request(stream, &Request::Release).await?;
                    return Ok(End::Rest);
                }
            }
        }
    }

    /// Tells all that has not been told.
    async fn flush(&self, stream: &mut UnixStream, unserved: &mut Unserved) -> io::Result<Reached> {
        loop {
            let (changes, reached) = self.shared.state().take(RECORDS_AT_ONCE);
            if !changes.is_empty() {
                unserved.add(request(stream, &Request::Change(changes)).await?);
            }
            if let Some(reached) = reached {
                return Ok(reached);
            }
        }
    }

    /// Has sandboxes told again that are not served, and says why they were not.
    fn retry(&self, unserved: &mut Unserved) {
        let mut state = self.shared.state();
        for (sandbox, why) in std::mem::take(unserved).why {
            tracing::warn!("questions from sandbox {sandbox} cannot be answered: {why}");
            state.retry(&sandbox);
        }
    }
}

/// Sandboxes that a server could not serve.
#[derive(Debug, Default)]
struct Unserved {
    why: BTreeMap<String, String>,
    retry_at: Option<Instant>,
}

impl Unserved {
    fn add(&mut self, why: BTreeMap<String, String>) {
        self.why.extend(why);
        if !self.why.is_empty() {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
    }

    /// Returns when they are to be tried again.
    async fn due(&self) {
        match self.retry_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Asks a server to do something; answered by what could not be done.
async fn request(stream: &mut UnixStream, request: &Request) -> io::Result<BTreeMap<String, String>> {
    protocol::write(stream, request).await?;
    match protocol::read(stream).await? {
        Response::Done(failed) => Ok(failed),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to something else")),
    }
}

/// Returns when the server is gone: it says nothing unasked.
async fn lost(stream: &mut UnixStream) -> io::Error {
    match stream.read_u8().await {
        Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "it says something unasked"),
        Err(error) => error,
    }
}

/// Our program, and what tells it from any other.
fn open_program(path: &Path) -> io::Result<(File, String)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Ok((file, format!("{device}:{inode}:{size}:{seconds}.{nanoseconds}")))
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
