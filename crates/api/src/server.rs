//! Listening, accepting, and serving each connection.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use skep_engine::Engine;
use skep_swarm::Swarm;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::context::{Context, Daemon};
use crate::routes;

/// Most connections at a time; the next ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Most bytes of a request's line and headers: a client sends credentials and long filters there.
const MAX_HEAD_LEN: usize = 256 * 1024;
/// How long a client may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connections may take to finish once the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP port, in clear.
    Tcp(TcpListener),
}

/// Serves the API on all of `listeners` until `shutdown` is done; then lets answers on their way finish, for a
/// second at most. Streams that have no end are cut.
pub async fn serve(
    listeners: Vec<Listener>,
    engine: Engine,
    swarm: Swarm,
    daemon: Arc<Daemon>,
    shutdown: impl Future<Output = ()>,
) {
    let context = Arc::new(Context { engine, swarm, daemon });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&context), Arc::clone(&places), stopped.clone()));
    }
    shutdown.await;
    // Nobody is left to hear it when there was no listener at all.
    let _ = stop.send(true);
    while accepting.join_next().await.is_some() {}
}

async fn accept(
    listener: Listener,
    context: Arc<Context>,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept_one(&listener, &places) => accepted,
        };
        match accepted {
            Ok((Connection::Unix(stream), place)) => {
                connections.spawn(serve_connection(stream, Arc::clone(&context), stopped.clone(), place));
            }
            Ok((Connection::Tcp(stream), place)) => {
                connections.spawn(serve_connection(stream, Arc::clone(&context), stopped.clone(), place));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What does not finish in time is cut by dropping the set.
    let _ =
        tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
}

enum Connection {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn accept_one(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(Connection, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let connection = match listener {
        Listener::Unix(listener) => Connection::Unix(listener.accept().await?.0),
        Listener::Tcp(listener) => Connection::Tcp(listener.accept().await?.0),
    };
    Ok((connection, place))
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    context: Arc<Context>,
    mut stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(routes::answer(&context, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // As Go writes them, for those who look for `Api-Version:` in curl's output.
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD_LEN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let stopping = async move {
        // The value that the wait gives holds a lock: it must not live on beside the connection.
        let _ = stopped.wait_for(|stopped| *stopped).await.is_ok();
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients leave in the middle of streams all the time.
        tracing::debug!("a connection ended early: {error}");
    }
}
