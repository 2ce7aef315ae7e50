//! One connection to another node, as tonic's clients use it.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use skep_identity::handshake_failure;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::{CallError, VERSION, VERSION_HEADER, status};

/// How long it may take to connect, handshakes included.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Silence after which the other node is asked whether it is there, and how long it may take to answer: a dead one
/// is noticed after three seconds. A leader's beats break the silence, so that its agents do not ask.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(1);
/// Bytes on the way to us that we have not read.
const WINDOW: u32 = 4 * 1024 * 1024;
/// How long the reason for a connection's end is waited for, once it is known to have ended.
const REASON_LIMIT: Duration = Duration::from_millis(100);

/// Why a connection ended, once it has; `None` inside for no reason of interest.
type Ended = Option<Option<CallError>>;

/// A connection. Clones share it; it is closed when all are dropped.
#[derive(Clone)]
pub(super) struct Channel {
    requests: SendRequest<Body>,
    config: Arc<ClientConfig>,
    ended: watch::Receiver<Ended>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

impl Channel {
    /// Connects to `address`, `host:port`.
    ///
    /// # Errors
    /// [`CallError::Unreachable`], and [`CallError::Unauthenticated`] for what is no manager of the cluster.
    pub(super) async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<Channel, CallError> {
        let attempt = Channel::connect_patiently(address, config);
        timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| {
            Err(CallError::Unreachable(format!("cannot connect to {address}: it does not answer")))
        })
    }

    async fn connect_patiently(address: &str, config: Arc<ClientConfig>) -> Result<Channel, CallError> {
        let unreachable = |why: &dyn std::fmt::Display| {
            CallError::Unreachable(format!("cannot connect to {address}: {why}"))
        };
        let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        // Nodes are verified by their role and cluster, not by a host's name.
        let name = ServerName::try_from("swarm-manager").expect("it is a name");
        let connector = TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let why = handshake_failure(&error);
            match tls_error(&error) {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    CallError::Unauthenticated(format!("cannot connect to {address}: {why}"))
                }
                _ => unreachable(&why),
            }
        })?;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let (ending, ended) = watch::channel(None);
        tokio::spawn(async move {
            let reason = connection.await.err().and_then(|error| refusal(&error));
            ending.send_replace(Some(reason));
        });
        Ok(Channel { requests, config, ended })
    }

    /// Whether new calls can be made here by a node that would connect with `config` now.
    pub(super) fn is_usable(&self, config: &Arc<ClientConfig>) -> bool {
        !self.requests.is_closed() && Arc::ptr_eq(&self.config, config)
    }

    /// What a call on this connection failed of.
    pub(super) async fn explain(&self, failure: Status) -> CallError {
        if let Some(error) = status::answered(&failure) {
            return error;
        }
        let transport = chain(&failure).find_map(|error| error.downcast_ref::<hyper::Error>());
        let Some(transport) = transport else {
            return CallError::Lost(format!("the call failed: {}", failure.message()));
        };
        let mut ended = self.ended.clone();
        // In TLS 1.3 the other side judges our certificate when we take the connection for made already.
        if let Ok(Ok(ended)) = timeout(REASON_LIMIT, ended.wait_for(Option::is_some)).await
            && let Some(Some(reason)) = &*ended
        {
            return reason.clone();
        }
        if let Some(reason) = refusal(transport) {
            return reason;
        }
        let why = chain(transport).last().map(ToString::to_string).unwrap_or_default();
        if transport.is_canceled() {
            return CallError::Unreachable(format!("the connection ended before the call was sent: {why}"));
        }
        CallError::Lost(format!("the connection broke before an answer came: {why}"))
    }
}

/// An error and what it comes from.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| <dyn Error>::source(*error))
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// The other side's refusal of this node's certificate, where that is what ended a connection.
fn refusal(error: &hyper::Error) -> Option<CallError> {
    // h2 keeps only the text of what rustls told.
    let text = chain(error).last()?.to_string();
    let alert = text.strip_prefix("received fatal alert: ")?;
    Some(CallError::Unauthenticated(format!("the manager refuses this node's certificate: {alert}")))
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(VERSION_HEADER, HeaderValue::from(VERSION));
        Box::pin(self.requests.send_request(request))
    }
}

/// What calls are addressed to inside a connection; the name means nothing.
pub(super) fn origin() -> Uri {
    Uri::from_static("https://swarm-manager")
}
