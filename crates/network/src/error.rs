//! What can go wrong, an enum for each operation.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use skep_types::port::Protocol;

use crate::model::PublicationKey;

/// Why a request to the kernel was refused or could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct KernelError {
    /// What was tried, and on what.
    pub action: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Why [`crate::Network::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The instance is empty, too long, or has characters that no table name may have.
    #[error("{0:?} cannot name an instance: use 1 to 64 letters, digits, hyphens and underscores")]
    Instance(String),
    /// A directory could not be made ready.
    #[error("cannot prepare directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A netlink socket, a kernel setting or the first rules were refused.
    #[error("cannot prepare the host's network")]
    Kernel(#[from] KernelError),
}

/// Why a bridge, a sandbox or an interface could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name is no interface name.
    #[error("{0:?} cannot name an interface: use 1 to 15 bytes without slash, colon or space")]
    InterfaceName(String),
    /// The name is no sandbox name.
    #[error("{0:?} cannot name a sandbox: use 1 to 200 letters, digits, hyphens, underscores and dots")]
    SandboxName(String),
    /// An address length above 32 bits.
    #[error("{0} is not a prefix length: use 0 to 32")]
    Prefix(u8),
    /// Something else has the bridge's name.
    #[error("interface {0} exists and is not a bridge")]
    NotABridge(String),
    /// There is no such bridge.
    #[error("there is no bridge {0}")]
    NoBridge(String),
    /// The bridge has no part in a network that spans machines, or there is none of that name.
    #[error("there is no bridge {0} that reaches other nodes")]
    NoOverlay(String),
    /// There is no such sandbox.
    #[error("there is no network sandbox {0}")]
    NoSandbox(String),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Why ports could not be published. The texts are Docker's, which puts in front of them
/// `driver failed programming external connectivity on endpoint NAME (ID): `.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another publication has the port.
    #[error("Bind for {} failed: port is already allocated", SocketAddr::new(*address, *port))]
    AlreadyAllocated {
        /// The address that was asked for; 0.0.0.0 for all, or ::.
        address: IpAddr,
        /// The port.
        port: u16,
        /// Who has it.
        holder: PublicationKey,
    },
    /// The host refused the port, commonly because a process has it or the address is not the host's.
    #[error("failed to bind host port for {}{}/{protocol}: {}", SocketAddr::new(*address, *port), backend_text(*backend), reason(cause))]
    Bind {
        /// The address that was asked for; 0.0.0.0 for all, or ::.
        address: IpAddr,
        /// The port; 0 if any would have done.
        port: u16,
        /// The first of those that were to answer.
        backend: Option<(IpAddr, u16)>,
        /// Transport.
        protocol: Protocol,
        /// The kernel's answer. Not a source: the message has it already, as Docker words it.
        cause: io::Error,
    },
    /// An IPv6 address of the host, and nobody who could answer there: addresses of the two families cannot be rewritten
    /// to each other.
    #[error("cannot publish on {0}: who is to answer has no IPv6 address")]
    NobodyOverIpv6(IpAddr),
    /// A container port of 0.
    #[error("cannot publish to port 0 of {0}")]
    BackendPort(IpAddr),
    /// The kernel refused the rules.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The change is made, but a UDP client that was there before may keep talking to nobody.
    #[error("ports are changed, but some UDP clients may not notice")]
    StaleFlows(#[source] KernelError),
}

/// `:172.17.0.2:80`, as Docker shows the inner half of a binding.
fn backend_text(backend: Option<(IpAddr, u16)>) -> String {
    backend.map_or_else(String::new, |backend| format!(":{}", SocketAddr::from(backend)))
}

/// The reason as Go's syscall package words it, which Docker's clients may look for.
fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => cause.to_string(),
    }
}
