//! Whether a container's program listens yet.

use std::collections::BTreeSet;
use std::time::Duration;

use super::sockets::{self, Socket, State};
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
    let sockets = sockets::of(pid).into_iter();
    let listens = |socket: &Socket| socket.state == State::Listens && !socket.local.0.is_loopback();
    sockets.filter(listens).map(|socket| socket.local.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_process_is_seen() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        assert!(listening(std::process::id()).contains(&port));
        let inside = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let hidden = inside.local_addr().expect("it is bound").port();
        assert!(!listening(std::process::id()).contains(&hidden), "loopback");
        drop(socket);
        assert!(!listening(std::process::id()).contains(&port));
    }
}
