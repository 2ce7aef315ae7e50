//! Asking an authority outside the cluster to sign, in cfssl's protocol over HTTPS. As SwarmKit's ca/external.go.
//!
//! One short request a certificate: plain sockets, which block, and HTTP/1.0, whose answers need no assembling.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use crate::authority::host_names;
use crate::certificate::{Certificate, chain, common_name};
use crate::tls::private_key;
use crate::trust::provider;
use crate::{IdentityError, NodeCertificate, Role, RootCa, Trust};

/// SwarmKit's `ExternalRequestTimeout`, for each address that is tried.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// SwarmKit's `CertificateMaxSize`, in bytes.
const MAX_ANSWER: u64 = 256 << 10;
/// SwarmKit's `ExternalCrossSignProfile`.
const CROSS_SIGN_PROFILE: &str = "CA";
/// `basicConstraints`, and its value for an authority: `SEQUENCE { BOOLEAN TRUE }`.
const BASIC_CONSTRAINTS: (&str, &str) = ("2.5.29.19", "30030101ff");

/// An authority outside the cluster did not sign.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// SwarmKit's words.
    #[error("no external CA URLs")]
    NoUrls,
    /// An address that is no `https://host[:port]/path`.
    #[error("invalid external CA URL {0:?}")]
    Url(String),
    /// Nobody there, or not whom the roots name, or too slow.
    #[error("unable to perform certificate signing request")]
    Unreachable(#[source] io::Error),
    /// It answered otherwise than the protocol says. SwarmKit's words.
    #[error("unexpected status code in CSR response: {status} - {body}")]
    Status {
        /// HTTP's code; 0 when the answer is no HTTP.
        status: u16,
        /// What came.
        body: String,
    },
    /// It answered, and refused.
    #[error("{0}")]
    Refused(String),
    /// Our own credentials cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What is asked: cfssl's `signer.SignRequest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignRequest {
    hosts: Vec<String>,
    certificate_request: String,
    subject: Subject,
    profile: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Name {
    #[serde(rename = "O")]
    organization: String,
    #[serde(rename = "OU")]
    unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Extension {
    id: &'static str,
    critical: bool,
    /// Hexadecimal.
    value: &'static str,
}

impl SignRequest {
    /// For a node's certificate: the names are the cluster's, not those in the request.
    pub fn node(csr_pem: &str, node: &str, role: Role, cluster: &str) -> SignRequest {
        let name = Name { organization: cluster.to_owned(), unit: role.unit().to_owned() };
        SignRequest {
            hosts: host_names(node, role).into_iter().map(str::to_owned).collect(),
            certificate_request: csr_pem.to_owned(),
            subject: Subject { common_name: node.to_owned(), names: vec![name] },
            profile: "",
            extensions: Vec::new(),
        }
    }

    /// For a certificate of the root that is to take the place of the one outside.
    ///
    /// # Errors
    /// As [`RootCa::csr`].
    pub fn cross_sign(new: &RootCa) -> Result<SignRequest, IdentityError> {
        let ders = chain(new.certificate_pem())?;
        let common_name = common_name(&Certificate::parse(&ders[0])?);
        let (id, value) = BASIC_CONSTRAINTS;
        Ok(SignRequest {
            hosts: Vec::new(),
            certificate_request: new.csr()?,
            subject: Subject { common_name, names: Vec::new() },
            profile: CROSS_SIGN_PROFILE,
            extensions: vec![Extension { id, critical: true, value }],
        })
    }
}

/// cfssl's `api.Response`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    result: Option<Signed>,
    #[serde(default)]
    errors: Vec<Message>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// An authority outside the cluster, at one address or several.
#[derive(Clone, Debug)]
pub struct ExternalCa {
    urls: Vec<String>,
    config: Arc<ClientConfig>,
}

impl ExternalCa {
    /// The authority at `urls`, which stands on one of the roots in `trust` itself and is shown `node`'s
    /// certificate.
    ///
    /// # Errors
    /// When the certificate and key cannot be used.
    pub fn new(
        urls: Vec<String>,
        trust: &Trust,
        node: &NodeCertificate,
    ) -> Result<ExternalCa, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| IdentityError::Unreadable { what: "the version of TLS" })?
            .with_root_certificates(trust.roots.clone())
            .with_client_auth_cert(chain(&node.chain_pem)?, private_key(node)?)
            .map_err(|_| IdentityError::KeyMismatch)?;
        config.resumption = Resumption::disabled();
        Ok(ExternalCa { urls, config: Arc::new(config) })
    }

    /// Has a certificate signed by the first address that does. Gives PEM. Blocks for up to 5 s an address.
    ///
    /// # Errors
    /// What the last address said.
    pub fn sign(&self, request: &SignRequest) -> Result<String, ExternalError> {
        let body = serde_json::to_vec(request).expect("texts and lists can be written");
        let mut last = ExternalError::NoUrls;
        for url in &self.urls {
            match Url::parse(url).and_then(|url| self.ask(&url, &body)) {
                Ok(certificate) => return Ok(certificate),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether one of the addresses answers, and stands on the right root. Blocks for up to 5 s an address.
    pub fn is_reachable(&self) -> bool {
        let reached = |url: &String| -> Result<(), ExternalError> {
            let (url, deadline) = (Url::parse(url)?, Instant::now() + TIME_LIMIT);
            let mut stream = self.connect(&url, deadline).map_err(ExternalError::Unreachable)?;
            while stream.conn.is_handshaking() {
                limit(&stream.sock, deadline).map_err(ExternalError::Unreachable)?;
                stream.conn.complete_io(&mut stream.sock).map_err(ExternalError::Unreachable)?;
            }
            Ok(())
        };
        self.urls.iter().any(|url| reached(url).is_ok())
    }

    fn connect(
        &self,
        url: &Url<'_>,
        deadline: Instant,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(url.host.to_owned()).map_err(io::Error::other)?;
        let mut last = io::Error::other("the host has no address");
        for address in (url.host, url.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(socket) => {
                    let connection =
                        ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
                    return Ok(StreamOwned::new(connection, socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask(&self, url: &Url<'_>, body: &[u8]) -> Result<String, ExternalError> {
        let deadline = Instant::now() + TIME_LIMIT;
        let exchange = || -> io::Result<Vec<u8>> {
            let mut stream = self.connect(url, deadline)?;
            limit(&stream.sock, deadline)?;
            let head = format!(
                "POST {} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                url.path,
                url.authority,
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            read_answer(&mut stream, deadline)
        };
        understand(&exchange().map_err(ExternalError::Unreachable)?)
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn limit(socket: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = remaining(deadline)?;
    socket.set_read_timeout(Some(left))?;
    socket.set_write_timeout(Some(left))
}

/// Reads until the answer is whole or too long. A server may cut the connection without TLS's farewell: whether
/// all has come is told by what has come.
fn read_answer(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        limit(&stream.sock, deadline)?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answer),
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > MAX_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// The certificate in an answer.
fn understand(answer: &[u8]) -> Result<String, ExternalError> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut words = head.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = words.next().filter(|_| is_http).and_then(|code| code.parse().ok()).unwrap_or(0);
    let other = || ExternalError::Status { status, body: body.trim_end().to_owned() };
    if status != 200 {
        return Err(other());
    }
    let answer: Answer = serde_json::from_str(body).map_err(|_| other())?;
    match answer.result.filter(|_| answer.success) {
        Some(signed) => Ok(signed.certificate),
        None if answer.errors.is_empty() => {
            Err(ExternalError::Refused("certificate signing request failed".to_owned()))
        }
        None => {
            let errors: Vec<String> =
                answer.errors.iter().map(|error| format!("{{{} {}}}", error.code, error.message)).collect();
            Err(ExternalError::Refused(format!("response errors: [{}]", errors.join(" "))))
        }
    }
}

/// The parts of `https://host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl Url<'_> {
    fn parse(text: &str) -> Result<Url<'_>, ExternalError> {
        let invalid = || ExternalError::Url(text.to_owned());
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let rest = text.strip_prefix("https://").filter(|_| clean).ok_or_else(invalid)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let bracketed = authority.strip_prefix('[').and_then(|inner| inner.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(invalid)?)),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(443), str::parse).map_err(|_| invalid())?;
        if host.is_empty() || host.contains(['@', '?']) {
            return Err(invalid());
        }
        Ok(Url { authority, host, port, path })
    }
}

#[cfg(test)]
mod tests;
