//! Whether a container's program listens yet.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{Engine, Result, blocking};

/// Between two looks. The kernel tells nobody when a socket begins to listen.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause, for programs that take their time.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Returns once something in a container listens on each of these TCP ports, on an address that others can
    /// reach; when it no longer runs; or after `limit`.
    ///
    /// # Errors
    /// 404.
    pub async fn await_listening(&self, name: &str, ports: &[u16], limit: Duration) -> Result<()> {
        let container = self.find(name)?;
        let ports: BTreeSet<u16> = ports.iter().copied().collect();
        let looking = async {
            let mut pause = PAUSE;
            while container.is_running() {
                let (pid, wanted) = (container.state.borrow().pid, ports.clone());
                if blocking(move || wanted.is_subset(&listening(pid))).await? {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok(())
        };
        // That nobody listened in time is for the caller to live with.
        tokio::time::timeout(limit, looking).await.unwrap_or(Ok(()))
    }
}

/// The TCP ports on which the network namespace of process `pid` listens for others.
fn listening(pid: u32) -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let tables = tables.iter().flatten();
    tables.flat_map(|table| table.lines().skip(1).filter_map(listening_port)).collect()
}

/// The port of a line of /proc/net/tcp or tcp6 (proc(5)) that is a listening socket, not bound to loopback.
fn listening_port(line: &str) -> Option<u16> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.rsplit_once(':')?;
    // Addresses are words in the machine's order; 127.0.0.0/8 is told by its first byte.
    let loopback = match address.len() {
        8 => u32::from_str_radix(address, 16).ok()?.to_ne_bytes()[0] == 127,
        _ => address == "00000000000000000000000001000000",
    };
    if loopback || fields.nth(1)? != LISTEN {
        return None;
    }
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let line = |address: &str, state: &str| {
            format!("   0: {address} 00000000:0000 {state} 00000000:00000000 00:0")
        };
        assert_eq!(listening_port(&line("00000000:1F90", "0A")), Some(8080));
        assert_eq!(listening_port(&line("00000000000000000000000000000000:0050", "0A")), Some(80));
        assert_eq!(listening_port(&line("00000000:1F90", "01")), None, "a connection");
        assert_eq!(listening_port(&line("0100007F:1F90", "0A")), None, "loopback");
        assert_eq!(listening_port(&line("00000000000000000000000001000000:0050", "0A")), None, "loopback");
        assert_eq!(listening_port("nonsense"), None);
    }

    #[test]
    fn a_socket_of_this_process_is_seen() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        assert!(listening(std::process::id()).contains(&port));
        drop(socket);
        assert!(!listening(std::process::id()).contains(&port));
    }
}
