//! The host's resolvers and search domains: what the host's `resolv.conf` says, now.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::name::Name;

/// Where resolvers listen.
pub(crate) const PORT: u16 = 53;
/// More resolvers than that are asked by nobody (as the C library's).
const LIMIT: usize = 3;
/// How long a look at the file holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Knows the resolvers of the host, and looks again when its file changes: a laptop moves while its containers run.
#[derive(Debug, Default)]
pub(crate) struct HostResolvers {
    held: RefCell<Held>,
}

#[derive(Debug, Default)]
struct Held {
    path: PathBuf,
    looked: Option<Instant>,
    seen: Option<Stamp>,
    said: Said,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Whom to ask.
    pub(crate) resolvers: Rc<[SocketAddr]>,
    /// What names are also looked for below.
    pub(crate) search: Rc<[Name]>,
}

/// Which state of which file: device, inode, size, time of change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl HostResolvers {
    /// Reads this file from now on.
    pub(crate) fn read_from(&self, path: PathBuf) {
        let mut held = self.held.borrow_mut();
        if held.path != path {
            *held = Held { path, ..Held::default() };
        }
    }

    /// What it says.
    pub(crate) fn now(&self) -> Said {
        let mut held = self.held.borrow_mut();
        if held.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            held.look();
        }
        held.said.clone()
    }
}

impl Held {
    fn look(&mut self) {
        self.looked = Some(Instant::now());
        // A file that is being replaced is missing for a moment: what it said holds until it is back.
        let Ok(metadata) = std::fs::metadata(&self.path) else { return };
        let stamp = (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if self.seen == Some(stamp) {
            return;
        }
        if let Ok(text) = std::fs::read_to_string(&self.path) {
            self.seen = Some(stamp);
            self.said = Said { resolvers: resolvers(&text).into(), search: search(&text).into() };
        }
    }
}

/// The resolvers that a `resolv.conf` names; its own machine when it names none, as the manual has it.
fn resolvers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(str::split_ascii_whitespace);
    let named = words.filter_map(|mut words| {
        (words.next() == Some("nameserver")).then(|| words.next().and_then(address)).flatten()
    });
    let named: Vec<SocketAddr> = named.take(LIMIT).collect();
    if named.is_empty() { vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)] } else { named }
}

/// The search domains that a `resolv.conf` names: by the last line that does.
fn search(text: &str) -> Vec<Name> {
    let words = text.lines().rev().map(str::split_ascii_whitespace);
    let named = words
        .map(|mut words| (words.next(), words))
        .find(|(keyword, _)| matches!(keyword, Some("search" | "domain")));
    named.into_iter().flat_map(|(_, words)| words.filter_map(Name::new)).collect()
}

/// An address, which for IPv6 may name an interface.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(SocketAddr::new(address, PORT));
    }
    let (address, interface) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
    Some(SocketAddrV6::new(address, PORT, 0, index.trim().parse().ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        resolvers(text).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn takes_the_first_three_and_skips_what_it_cannot_read() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver\t127.0.0.53 # stub\nnameserver x\nnameserver fd00::1\n\
                    options ndots:2\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n";
        assert_eq!(named(text), ["127.0.0.53:53", "[fd00::1]:53", "10.0.0.1:53"]);
    }

    #[test]
    fn is_the_machine_itself_when_none_is_named() {
        assert_eq!(named(""), ["127.0.0.1:53"]);
    }

    #[test]
    fn the_last_search_line_counts() {
        let searched = |text: &str| search(text).iter().map(Name::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(searched("domain a\nsearch Corp.Example b.\nnameserver 10.0.0.1\n"), "corp.example b");
        assert_eq!(searched("search .\n"), "");
        assert_eq!(searched(""), "");
    }

    #[test]
    fn reads_an_interface() {
        assert_eq!(named("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
        assert_eq!(named("nameserver fe80::1%../x"), ["127.0.0.1:53"]);
    }

    #[test]
    fn follows_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").expect("written");
        let resolvers = HostResolvers::default();
        resolvers.read_from(path.clone());
        assert_eq!(resolvers.now().resolvers[0].to_string(), "10.0.0.1:53");
        std::fs::write(&path, "nameserver 10.0.0.22\n").expect("written");
        assert_eq!(resolvers.now().resolvers[0].to_string(), "10.0.0.1:53", "a look holds for a while");
        resolvers.held.borrow_mut().looked = None;
        assert_eq!(resolvers.now().resolvers[0].to_string(), "10.0.0.22:53");
        std::fs::remove_file(&path).expect("removed");
        resolvers.held.borrow_mut().looked = None;
        assert_eq!(resolvers.now().resolvers[0].to_string(), "10.0.0.22:53");
    }
}
