//! HTTP/1.1 connections to registries, kept for the next request.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Settings, host_of};
use crate::tls;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Most connections that are kept of one server.
const IDLE_LIMIT: usize = 6;
/// What this client calls itself.
const AGENT: &str = concat!("skep/", env!("CARGO_PKG_VERSION"));

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is sent.
pub(crate) enum Payload {
    Bytes(Bytes),
    /// Cannot be sent twice.
    Stream(Body),
}

/// A server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) tls: bool,
    pub(crate) verify: bool,
    pub(crate) authority: String,
}

/// The connections of one client.
pub(crate) struct Connections {
    settings: Arc<Settings>,
    idle: Mutex<HashMap<Server, Vec<SendRequest<Body>>>>,
}

impl Connections {
    pub(crate) fn new(settings: Arc<Settings>) -> Connections {
        Connections { settings, idle: Mutex::default() }
    }

    /// Sends a request and waits for the head of the answer. The address of `request` is without host.
    ///
    /// # Errors
    /// In words that follow the request's own.
    pub(crate) async fn send(
        &self,
        server: &Server,
        request: Request<()>,
        payload: Payload,
        limit: Duration,
    ) -> Result<Response<Incoming>, String> {
        let again = match &payload {
            Payload::Bytes(bytes) => Some(bytes.clone()),
            Payload::Stream(_) => None,
        };
        let body = match payload {
            Payload::Bytes(bytes) => whole(bytes),
            Payload::Stream(body) => body,
        };
        if let Some(bytes) = again
            && let Some(mut sender) = self.take_idle(server)
        {
            let copied = copy(&request);
            let answer =
                tokio::time::timeout(limit, sender.send_request(with(request, server, whole(bytes)))).await;
            match answer {
                Ok(Ok(response)) => {
                    self.keep(server, sender);
                    return Ok(response);
                }
                Err(_) => return Err("timeout awaiting response headers".to_owned()),
                // The server had closed it: a new connection tells whether it still is there.
                Ok(Err(_)) => return self.send_anew(server, with(copied, server, body), limit).await,
            }
        }
        self.send_anew(server, with(request, server, body), limit).await
    }

    async fn send_anew(
        &self,
        server: &Server,
        request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, String> {
        let connected = tokio::time::timeout(CONNECT_LIMIT, self.connect(server)).await;
        let mut sender = connected.map_err(|_| "i/o timeout".to_owned())??;
        let answer = tokio::time::timeout(limit, sender.send_request(request)).await;
        let response = answer.map_err(|_| "timeout awaiting response headers".to_owned())?.map_err(
            |error| match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None if error.is_incomplete_message() => "EOF".to_owned(),
                None => error.to_string(),
            },
        )?;
        self.keep(server, sender);
        Ok(response)
    }

    async fn connect(&self, server: &Server) -> Result<SendRequest<Body>, String> {
        let host = host_of(&server.authority);
        let port = port_of(server);
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| format!("dial tcp {}:{port}: {}", bracketed(host), words(&error)))?;
        // A request's head and its body go out as they are.
        let _ = stream.set_nodelay(true);
        if !server.tls {
            return handshake(TokioIo::new(stream)).await;
        }
        let own = self.settings.certificates.join(&server.authority);
        let connector = TlsConnector::from(Arc::new(tls::config(server.verify, &own)));
        let name = rustls::pki_types::ServerName::try_from(host.to_owned())
            .map_err(|_| format!("tls: {host:?} is no name of a server"))?;
        let stream = connector.connect(name, stream).await.map_err(|error| match error.get_ref() {
            // As Go says what most often is behind it.
            Some(cause) if cause.to_string().contains("corrupt message") => {
                "http: server gave HTTP response to HTTPS client".to_owned()
            }
            _ => format!("tls: {error}"),
        })?;
        handshake(TokioIo::new(stream)).await
    }

    fn take_idle(&self, server: &Server) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle.get_mut(server)?;
        known.retain(|sender| !sender.is_closed());
        let ready = known.iter().position(SendRequest::is_ready)?;
        Some(known.swap_remove(ready))
    }

    /// A connection is ready again when the body of its answer was read.
    fn keep(&self, server: &Server, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle.entry(server.clone()).or_default();
        if known.len() < IDLE_LIMIT {
            known.push(sender);
        }
    }
}

async fn handshake<T>(stream: TokioIo<T>) -> Result<SendRequest<Body>, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    // It ends when the sender is dropped; whoever reads an answer hears of its errors.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn whole(bytes: Bytes) -> Body {
    if bytes.is_empty() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn copy(request: &Request<()>) -> Request<()> {
    let mut copied = Request::new(());
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    *copied.headers_mut() = request.headers().clone();
    copied
}

fn with(request: Request<()>, server: &Server, body: Body) -> Request<Body> {
    let mut request = request.map(|()| body);
    let headers = request.headers_mut();
    if let Ok(host) = server.authority.parse() {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, hyper::header::HeaderValue::from_static(AGENT));
    request
}

fn port_of(server: &Server) -> u16 {
    let after = server.authority.rsplit_once(']').map_or(server.authority.as_str(), |(_, after)| after);
    let port = after.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.unwrap_or(if server.tls { 443 } else { 80 })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The kernel's words as Go's client has them.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    }
}
