//! Serves the questions of one sandbox.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::forward::with_length;
use super::known::{Asker, Known};
use super::namespace::{Namespace, Sockets};
use crate::tables::View;
use crate::wire::{self, DATAGRAM_LIMIT, Question, Received, Transport};

/// How many connections a sandbox has at most; more are closed at once.
const CONNECTIONS_LIMIT: usize = 32;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// How long it may say nothing once it would be better to connect anew.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How many datagrams are read before other sandboxes have their turn.
const TURN: usize = 32;
/// How long after an error a connection is accepted again: it is the lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// Where datagrams are read: one for all sandboxes, since none is kept.
    static BUFFER: RefCell<[u8; DATAGRAM_LIMIT]> = const { RefCell::new([0; DATAGRAM_LIMIT]) };
}

/// A sandbox that is served. When it is dropped, so are its sockets.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) asker: Rc<Asker>,
    udp: Rc<UdpSocket>,
    tcp: Rc<TcpListener>,
    tasks: Tasks,
}

/// The tasks that read questions; they end with this.
#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What all sandboxes have in common.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) known: Rc<Known>,
    /// Becomes true when another process reads the questions from now on.
    pub(crate) over: watch::Receiver<bool>,
    /// How many questions have been read and not answered, and connections not been closed.
    pub(crate) busy: Rc<Cell<usize>>,
}

/// Counts as busy while it lives.
struct Busy(Rc<Cell<usize>>);

impl Busy {
    fn new(count: &Rc<Cell<usize>>) -> Busy {
        count.set(count.get() + 1);
        Busy(Rc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Sandbox {
    /// Begins to serve.
    pub(crate) fn serve(
        service: &Service,
        view: Rc<View>,
        namespace: Namespace,
        sockets: Sockets,
    ) -> io::Result<Sandbox> {
        let udp = Rc::new(UdpSocket::from_std(sockets.udp)?);
        let tcp = Rc::new(TcpListener::from_std(sockets.tcp)?);
        let asker = Rc::new(Asker::new(view, namespace));
        let tasks = Tasks(vec![
            tokio::task::spawn_local(by_datagrams(service.clone(), Rc::clone(&asker), Rc::clone(&udp))),
            tokio::task::spawn_local(by_connections(service.clone(), Rc::clone(&asker), Rc::clone(&tcp))),
        ]);
        Ok(Sandbox { asker, udp, tcp, tasks })
    }

    /// Reads no more questions, and gives the sockets away. What has been read will be answered.
    pub(crate) fn give(self) -> io::Result<[OwnedFd; 2]> {
        let sockets = [self.udp.as_fd().try_clone_to_owned()?, self.tcp.as_fd().try_clone_to_owned()?];
        // The first reads no further; the second keeps its connections until they notice.
        self.tasks.0[0].abort();
        self.tasks.0[1].abort();
        Ok(sockets)
    }
}

async fn by_datagrams(service: Service, asker: Rc<Asker>, socket: Rc<UdpSocket>) {
    loop {
        if socket.readable().await.is_err() {
            // The runtime is about to end.
            return;
        }
        if (0..TURN).all(|_| read_datagram(&service, &asker, &socket)) {
            tokio::task::yield_now().await;
        }
    }
}

/// What becomes of a packet.
enum Next {
    Nothing,
    Answer(Vec<u8>),
    Forward(Question),
}

fn consider(known: &Known, asker: &Asker, packet: &[u8], transport: Transport) -> Next {
    match wire::receive(packet, transport) {
        Received::Question(question) => match known.answer(asker, &question) {
            Some(answer) => Next::Answer(answer),
            None => Next::Forward(question),
        },
        Received::Refused(answer) => Next::Answer(answer),
        Received::Noise => Next::Nothing,
    }
}

/// Reads and answers one datagram; `false` when there is none.
fn read_datagram(service: &Service, asker: &Rc<Asker>, socket: &Rc<UdpSocket>) -> bool {
    let received = BUFFER.with_borrow_mut(|buffer| {
        let (length, client) = socket.try_recv_from(buffer)?;
        // A bug that a packet finds must not cost more than that packet.
        let read = AssertUnwindSafe(|| consider(&service.known, asker, &buffer[..length], Transport::Udp));
        io::Result::Ok((catch_unwind(read).unwrap_or(Next::Nothing), client))
    });
    let (question, client) = match received {
        Ok((Next::Forward(question), client)) => (question, client),
        Ok((Next::Answer(packet), client)) => {
            reply(socket, &packet, client);
            return true;
        }
        Ok((Next::Nothing, _)) => return true,
        Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
    };
    let (known, busy) = (Rc::clone(&service.known), Busy::new(&service.busy));
    let (asker, socket) = (Rc::clone(asker), Rc::clone(socket));
    tokio::task::spawn_local(async move {
        let _busy = busy;
        let packet = known.forward(&asker, &question, Transport::Udp).await;
        reply(&socket, &packet, client);
    });
    true
}

/// Sends an answer. Who does not read them gets none, as with any datagram.
fn reply(socket: &UdpSocket, packet: &[u8], client: SocketAddr) {
    let _ = socket.try_send_to(packet, client);
}

async fn by_connections(service: Service, asker: Rc<Asker>, listener: Rc<TcpListener>) {
    // They outlive this task when another process goes on listening, and end with the sandbox otherwise.
    let mut connections = Connections(JoinSet::new(), service.over.clone());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.0.try_join_next().is_some() {}
                if connections.0.len() < CONNECTIONS_LIMIT {
                    let busy = Busy::new(&service.busy);
                    let (service, asker) = (service.clone(), Rc::clone(&asker));
                    connections.0.spawn_local(async move {
                        let _busy = busy;
                        // Whatever ended the connection, its client sees it.
                        let _ = serve_connection(service, asker, stream).await;
                    });
                }
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

struct Connections(JoinSet<()>, watch::Receiver<bool>);

impl Drop for Connections {
    fn drop(&mut self) {
        if *self.1.borrow() {
            self.0.detach_all();
        }
    }
}

/// Answers one question after the other.
async fn serve_connection(mut service: Service, asker: Rc<Asker>, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let packet = {
            let mut next = pin!(read_message(&mut stream));
            tokio::select! {
                packet = timeout(IDLE, &mut next) => packet??,
                // Another process takes the next connection; on this one a question may be under way.
                _ = service.over.wait_for(|over| *over) => timeout(LAST_WORDS, next).await??,
            }
        };
        let answer = match consider(&service.known, &asker, &packet, Transport::Tcp) {
            Next::Answer(answer) => answer,
            Next::Forward(question) => service.known.forward(&asker, &question, Transport::Tcp).await,
            Next::Nothing => return Ok(()),
        };
        timeout(IDLE, stream.write_all(&with_length(&answer))).await??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}
