//! Waiting for a container's clients before it is stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use super::sockets::{self, Socket, State};
use crate::{Engine, Result, blocking};

/// Between two looks. The kernel tells nobody when a connection ends.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest pause, for connections that take their time.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// Looks in a row that have to find nobody: what was sent just before the tables changed is on its way yet.
const EMPTY_LOOKS: u32 = 2;

impl Engine {
    /// Returns once no client from outside is connected to a container; when it no longer runs; or after `limit`.
    /// Meant for one that no new connections are sent to.
    ///
    /// # Errors
    /// 404.
    pub async fn drain(&self, name: &str, limit: Duration) -> Result<()> {
        let container = self.find(name)?;
        let looking = async {
            let (mut pause, mut empty) = (PAUSE, 0);
            while container.is_running() {
                let pid = container.state.borrow().pid;
                empty = if blocking(move || clients(&sockets::of(pid))).await? == 0 { empty + 1 } else { 0 };
                if empty == EMPTY_LOOKS {
                    break;
                }
                tokio::time::sleep(if empty > 0 { PAUSE } else { pause }).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok(())
        };
        // Who is connected still has had the time that there is.
        tokio::time::timeout(limit, looking).await.unwrap_or(Ok(()))
    }
}

/// How many connections others have made to what listens here. One that the container made to itself is nobody's.
fn clients(sockets: &[Socket]) -> usize {
    let listening = sockets.iter().filter(|socket| socket.state == State::Listens);
    let ports: BTreeSet<u16> = listening.map(|socket| socket.local.1).collect();
    let inbound = |socket: &&Socket| {
        let (address, port) = socket.local;
        let own = address.is_loopback() || address == socket.remote;
        socket.state == State::Open && ports.contains(&port) && !own
    };
    sockets.iter().filter(inbound).count()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn socket(local: ([u8; 4], u16), remote: [u8; 4], state: State) -> Socket {
        Socket { local: (IpAddr::from(local.0), local.1), remote: remote.into(), state }
    }

    #[test]
    fn clients_are_those_who_came_from_outside() {
        let (here, there) = ([10, 0, 0, 5], [10, 0, 0, 9]);
        let listens = socket(([0, 0, 0, 0], 80), [0, 0, 0, 0], State::Listens);
        assert_eq!(clients(&[listens]), 0);
        assert_eq!(clients(&[listens, socket((here, 80), there, State::Open)]), 1);
        assert_eq!(clients(&[listens, socket((here, 80), there, State::Other)]), 0, "it has ended");
        assert_eq!(clients(&[listens, socket((here, 40000), there, State::Open)]), 0, "the container's own");
        assert_eq!(clients(&[listens, socket((here, 80), here, State::Open)]), 0, "to itself");
        let loopback = socket(([127, 0, 0, 1], 80), [127, 0, 0, 1], State::Open);
        assert_eq!(clients(&[listens, loopback]), 0, "its health check");
    }

    #[test]
    fn a_connection_of_this_process_is_seen_until_it_ends() {
        let ours = |socket: &&Socket, port| socket.local.1 == port && socket.state == State::Open;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let client = std::net::TcpStream::connect(address).expect("it listens");
        let (server, _) = listener.accept().expect("somebody came");
        let count = || sockets::of(std::process::id()).iter().filter(|it| ours(it, address.port())).count();
        assert_eq!(count(), 1);
        drop(client);
        assert_eq!(count(), 1, "what it asked for may still be answered");
        drop(server);
        assert_eq!(count(), 0);
    }
}
