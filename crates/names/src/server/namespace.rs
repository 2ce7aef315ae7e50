//! Opens sockets inside network namespaces, by one helper thread.
//!
//! A thread's namespace is its own: the helper visits one for each socket and comes home again, so the server's only other
//! thread is always in the host's.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use rustix::thread::LinkNameSpaceType;
use tokio::sync::oneshot;

use crate::protocol::NamespaceId;
use crate::{ADDRESS, PORT};

/// The namespace of the thread that looks.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// What `statfs` says of a namespace's file.
const NAMESPACE_FILE_SYSTEM: rustix::fs::FsWord = 0x6e73_6673;
/// The helper opens sockets and nothing else.
const STACK: usize = 64 << 10;

/// How much may wait to be read in a sandbox, in bytes as the kernel counts them: over a thousand questions.
const QUEUE: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, which exists for as long as this does.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    file: Arc<OwnedFd>,
    pub(crate) id: NamespaceId,
}

/// The sockets that questions come by.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

/// The helper.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    jobs: Rc<mpsc::Sender<Job>>,
}

impl Namespace {
    /// The one that `path` is bound to.
    pub(crate) fn open(path: &Path) -> io::Result<Namespace> {
        let file = File::open(path)?;
        if rustix::fs::fstatfs(&file)?.f_type != NAMESPACE_FILE_SYSTEM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no network namespace"));
        }
        let metadata = file.metadata()?;
        let id = NamespaceId(metadata.dev(), metadata.ino());
        Ok(Namespace { file: Arc::new(file.into()), id })
    }
}

impl Visitor {
    /// Starts the helper, which ends with the last clone of this.
    pub(crate) fn start() -> io::Result<Visitor> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("skep-names-ns".to_owned())
            .stack_size(STACK)
            .spawn(move || inbox.into_iter().for_each(|job| job()))?;
        Ok(Visitor { jobs: Rc::new(jobs) })
    }

    /// Opens the sockets that a sandbox's questions come by.
    pub(crate) async fn listen(&self, namespace: &Namespace) -> io::Result<Sockets> {
        self.inside(namespace, || {
            let udp = UdpSocket::bind((ADDRESS, PORT))?;
            udp.set_nonblocking(true)?;
            // Memory is taken by what waits only. Refused without the capability: then less can wait.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, QUEUE);
            let tcp = TcpListener::bind((ADDRESS, PORT))?;
            tcp.set_nonblocking(true)?;
            Ok(Sockets { udp, tcp })
        })
        .await
    }

    /// Makes a socket to ask a resolver from; it is not connected yet.
    pub(crate) async fn socket(
        &self,
        namespace: Option<&Namespace>,
        resolver: SocketAddr,
        kind: SocketType,
    ) -> io::Result<OwnedFd> {
        let family = if resolver.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = if kind == SocketType::DGRAM { ipproto::UDP } else { ipproto::TCP };
        let open = move || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::socket_with(family, kind, flags, Some(protocol))?)
        };
        match namespace {
            None => open(),
            Some(namespace) => self.inside(namespace, open).await,
        }
    }

    async fn inside<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the namespace helper thread has ended");
        let (answer, answered) = oneshot::channel();
        let file = Arc::clone(&namespace.file);
        let job = Box::new(move || {
            let result = visit(&file, work);
            // Whoever asked may have lost interest.
            let _ = answer.send(result);
        });
        self.jobs.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn visit<T>(namespace: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let enter = |namespace: &OwnedFd| {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
    };
    let home: OwnedFd = File::open(OWN_NAMESPACE)?.into();
    enter(namespace)?;
    let result = work();
    // A helper that cannot come home would open its next socket in a stranger's network.
    enter(&home).expect("the namespace that a thread came from takes it back");
    result
}
