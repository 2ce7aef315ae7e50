//! Answering other nodes: the listener and its connections.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use skep_identity::{Credentials, Role, handshake_failure, peer_identity};
use skep_types::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::Answers;
use super::gate::Gate;
use super::places::{Place, Places};

/// How long a caller may take to show who it is.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a caller without a certificate may stay: as long as an authority outside may take to sign.
const STRANGER_LIMIT: Duration = Duration::from_secs(30);
/// How long one whose handshake failed may take to read why.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long calls under way may take when the listener stops.
const DRAIN: Duration = Duration::from_secs(1);
/// Wait after the system gave no connection: it lacks file descriptors, and trying at once would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silence after which a caller is asked whether it is there. Agents' beats and the callers' own questions find a
/// dead peer sooner; this only gives back what its connection holds.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);
/// Calls under way on one connection: of a node, and of a stranger, who joins.
const NODE_STREAMS: u32 = 256;
const STRANGER_STREAMS: u32 = 2;
/// Bytes on the way to us on one connection that we have not read.
const NODE_WINDOW: u32 = 4 * 1024 * 1024;
const STRANGER_WINDOW: u32 = 64 * 1024;
/// Headers of one call.
const HEADER_LIMIT: u32 = 16 * 1024;
/// Connections of one node: one or two for each kind of call, and those that are being replaced.
const CONNECTIONS_OF_ONE_NODE: usize = 32;

/// Listens for other nodes. Dropping it cuts all connections; [`Listener::stop`] lets calls end first.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    registry: Registry,
    stopping: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
}

impl Listener {
    /// Listens on `address`, port 0 for any. New connections are made with what `credentials` holds at that time.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn start<A: Answers>(
        address: SocketAddr,
        credentials: Credentials,
        answers: Arc<A>,
    ) -> io::Result<Listener> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let registry = Registry::default();
        let (stopping, stopped) = watch::channel(false);
        let house = House { credentials, answers, registry: registry.clone(), stopping: stopped };
        let task = tokio::spawn(accept(listener, Arc::new(house)));
        Ok(Listener { address, registry, stopping, task })
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the connections of a node that was removed, or whose role changed: it comes again with what it has.
    pub(crate) fn disconnect(&self, node: NodeId) {
        self.registry.lock().retain(|_, connection| connection.node != node);
    }

    /// Takes no more connections and no more calls, gives those under way a moment to end, then cuts them.
    pub(crate) async fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            warn!(%error, "the listener did not end well");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connections of nodes. Dropping an entry cuts its connection.
#[derive(Clone, Debug, Default)]
struct Registry {
    connections: Arc<Mutex<HashMap<u64, Registered>>>,
}

#[derive(Debug)]
struct Registered {
    node: NodeId,
    _cut: oneshot::Sender<()>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Registered>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a node's connection; `None` when the node has too many.
    fn enter(&self, number: u64, node: NodeId) -> Option<Entry> {
        let (cut, cutting) = oneshot::channel();
        let mut connections = self.lock();
        let count = connections.values().filter(|connection| connection.node == node).count();
        if count >= CONNECTIONS_OF_ONE_NODE {
            return None;
        }
        connections.insert(number, Registered { node, _cut: cut });
        drop(connections);
        Some(Entry { registry: self.clone(), number, cutting })
    }
}

/// A connection's entry, given back when dropped.
struct Entry {
    registry: Registry,
    number: u64,
    /// Ends when the connection is to be cut.
    cutting: oneshot::Receiver<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.number);
    }
}

/// What all connections share.
struct House<A> {
    credentials: Credentials,
    answers: Arc<A>,
    registry: Registry,
    stopping: watch::Receiver<bool>,
}

/// Waits for the listener to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A listener that is gone has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn accept<A: Answers>(listener: TcpListener, house: Arc<House<A>>) {
    let places = Places::default();
    let mut stopping = house.stopping.clone();
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    number += 1;
                    // Whoever finds no place is cut at once, and comes again.
                    if let Some(place) = places.take(from.ip()) {
                        connections.spawn(connection(Arc::clone(&house), stream, from, place, number));
                    }
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection, from its handshake to its end.
async fn connection<A: Answers>(
    house: Arc<House<A>>,
    stream: TcpStream,
    from: SocketAddr,
    place: Place,
    number: u64,
) {
    let Some(stream) = handshake(&house, stream, from).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let caller = match certificate.map(|certificate| caller(certificate)) {
        None => None,
        Some(Ok(caller)) => Some(caller),
        Some(Err(reason)) => {
            debug!(%from, reason, "a caller's certificate names no node");
            return;
        }
    };
    let gate = Gate::new(Arc::clone(&house.answers), from, caller);
    let stopping = house.stopping.clone();
    match caller {
        None => serve(stream, gate, stopping, async { sleep(STRANGER_LIMIT).await }, None).await,
        Some((node, _)) => {
            let Some(mut entry) = house.registry.enter(number, node) else {
                debug!(%from, %node, "a node has too many connections");
                return;
            };
            drop(place);
            // It ends by being dropped: nothing is ever sent.
            let cut = async { drop((&mut entry.cutting).await) };
            serve(stream, gate, stopping, cut, Some(node)).await;
        }
    }
}

async fn handshake<A>(house: &House<A>, stream: TcpStream, from: SocketAddr) -> Option<TlsStream<TcpStream>> {
    // Small answers must not wait for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%from, %error, "a caller was gone before it was spoken to");
        return None;
    }
    let acceptor = TlsAcceptor::from(house.credentials.server_config());
    let mut stopping = house.stopping.clone();
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream).into_fallible()) => shaken,
        () = stopped(&mut stopping) => return None,
    };
    match shaken {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err((error, stream))) => {
            debug!(%from, error = handshake_failure(&error), "a caller's handshake failed");
            // Closing over unread bytes would reset the connection before the caller has read why.
            let _ = timeout(FAREWELL, farewell(stream)).await;
            None
        }
        Err(_) => {
            debug!(%from, "a caller took too long to show who it is");
            None
        }
    }
}

async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

/// Whom a verified certificate names.
fn caller(certificate: &[u8]) -> Result<(NodeId, Role), String> {
    let identity = peer_identity(certificate).map_err(|error| error.to_string())?;
    let node = identity.node.parse().map_err(|_| format!("{} is no node's id", identity.node))?;
    Ok((node, identity.role))
}

/// Answers calls until the caller goes, `cut` ends, or the listener stops.
async fn serve<A: Answers>(
    stream: TlsStream<TcpStream>,
    gate: Gate<A>,
    mut stopping: watch::Receiver<bool>,
    cut: impl Future<Output = ()>,
    node: Option<NodeId>,
) {
    let (streams, window) = match node {
        Some(_) => (NODE_STREAMS, NODE_WINDOW),
        None => (STRANGER_STREAMS, STRANGER_WINDOW),
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_connection_window_size(window)
        .initial_stream_window_size(window)
        .max_header_list_size(HEADER_LIMIT)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_LIMIT);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), gate));
    let mut cut = pin!(cut);
    tokio::select! {
        ended = serving.as_mut() => {
            if let Err(error) = ended {
                debug!(?error, "a connection broke");
            }
            return;
        }
        () = cut.as_mut() => return,
        () = stopped(&mut stopping) => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = timeout(DRAIN, serving) => {}
        () = cut => {}
    }
}
