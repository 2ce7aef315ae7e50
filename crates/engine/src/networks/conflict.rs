//! Who has a port that could not be published: the message names the container, the service or the process.

use std::fs;
use std::io;
use std::path::Path;

use skep_network::{PublicationKey, PublishError};
use skep_types::ContainerId;
use skep_types::port::Protocol;

/// Hexadecimal `TCP_LISTEN` of the kernel's tables of sockets.
const LISTENING: &str = "0A";

/// The error's own words, which are Docker's, and who has the port. `service` gives the name of the service that a key
/// belongs to.
pub(crate) fn explain(error: &PublishError, service: impl Fn(&PublicationKey) -> Option<String>) -> String {
    let words = crate::error::chain(error);
    let holder = match error {
        PublishError::AlreadyAllocated { holder, .. } => {
            let container = || Some(format!("container {}", holder.0.parse::<ContainerId>().ok()?.short()));
            service(holder).map(|name| format!("service {name}")).or_else(container)
        }
        PublishError::Bind { cause, port, protocol, .. } if cause.kind() == io::ErrorKind::AddrInUse => {
            process_at(*protocol, *port)
        }
        _ => None,
    };
    holder.map_or(words.clone(), |holder| format!("{words} (by {holder})"))
}

/// The process that has a port of this machine, as `nginx, process 123`. One that cannot be found has no name.
fn process_at(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.into_iter().filter_map(|table| fs::read_to_string(table).ok());
    let socket = tables.filter_map(|table| socket_at(&table, protocol, port)).next()?;
    let socket = format!("socket:[{socket}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let process = processes
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()))
        .find(|path| has_open(path, &socket))?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{}, process {}", name.trim_end(), process.file_name()?.display()))
}

/// The inode of the socket that has the port, from a table such as `/proc/net/tcp`.
fn socket_at(table: &str, protocol: Protocol, port: u16) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, number) = local.rsplit_once(':')?;
        let is_server = protocol == Protocol::Udp || *state == LISTENING;
        (is_server && u16::from_str_radix(number, 16) == Ok(port)).then(|| (*inode).to_owned())
    })
}

fn has_open(process: &Path, file: &str) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == file))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn this_process_is_found_by_its_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = format!(", process {}", std::process::id());
        let tcp = process_at(Protocol::Tcp, listener.local_addr().unwrap().port()).unwrap();
        let udp = process_at(Protocol::Udp, socket.local_addr().unwrap().port()).unwrap();
        assert!(tcp.ends_with(&ours) && udp.ends_with(&ours), "{tcp} {udp}");
    }

    #[test]
    fn a_connection_is_no_server() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 7 1\n\
            1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 8 1\n";
        assert_eq!(socket_at(table, Protocol::Tcp, 8080).as_deref(), Some("8"));
        assert_eq!(socket_at(table, Protocol::Tcp, 80), None);
    }
}
