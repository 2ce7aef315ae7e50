//! The TCP sockets of a container's network namespace, as proc(5) shows them.

use std::net::{IpAddr, Ipv6Addr};

/// What a socket is doing, as far as anyone here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for connections.
    Listens,
    /// A connection on which something may still be said or is on its way: from its opening until all that was said
    /// is acknowledged in both directions. One whose client said its last word still waits for the answer.
    Open,
    /// Neither.
    Other,
}

/// A line of /proc/net/tcp or tcp6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// Its own end.
    pub local: (IpAddr, u16),
    /// The other end.
    pub remote: IpAddr,
    pub state: State,
}

impl Socket {
    fn parse(line: &str) -> Option<Socket> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (end(fields.next()?)?, end(fields.next()?)?);
        // The numbers of the kernel's tcp_states.h.
        let state = match fields.next()? {
            "0A" => State::Listens,
            // SYN_RECV, ESTABLISHED; FIN_WAIT1 and LAST_ACK have said what is not acknowledged yet; CLOSE_WAIT.
            "03" | "01" | "04" | "09" | "08" => State::Open,
            _ => State::Other,
        };
        Some(Socket { local, remote: remote.0, state })
    }
}

/// The TCP sockets of the network namespace of process `pid`; none once it has ended.
pub(super) fn of(pid: u32) -> Vec<Socket> {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    tables.iter().flatten().flat_map(|table| table.lines().skip(1).filter_map(Socket::parse)).collect()
}

/// Addresses are words in the machine's order.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let word = |place: usize| u32::from_str_radix(address.get(8 * place..8 * place + 8)?, 16).ok();
    let address: IpAddr = match address.len() {
        8 => word(0)?.to_ne_bytes().into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].map(u32::to_ne_bytes);
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(local: &str, remote: &str, state: &str) -> Option<Socket> {
        Socket::parse(&format!("   0: {local} {remote} {state} 00000000:00000000 00:0"))
    }

    #[test]
    fn lines_are_read_whatever_their_family() {
        let given = socket("0500000A:0050", "0100007F:1F90", "01");
        let local = ([10, 0, 0, 5].into(), 80);
        assert_eq!(given, Some(Socket { local, remote: [127, 0, 0, 1].into(), state: State::Open }));
        let mapped =
            socket("0000000000000000FFFF00000500000A:0050", "00000000000000000000000001000000:1F90", "0A");
        let remote = Ipv6Addr::LOCALHOST.into();
        assert_eq!(mapped, Some(Socket { local, remote, state: State::Listens }));
        assert_eq!(socket("0500000A:0050", "0100007F:1F90", "06").map(|it| it.state), Some(State::Other));
        assert_eq!(Socket::parse("nonsense"), None);
        assert_eq!(socket("0500:0050", "0100007F:1F90", "01"), None);
    }
}
