//! What the daemon and the tunnel process say to each other: JSON, each with its length in front, on a socket that only
//! root can open.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skep_types::tunnel::{NetworkKey, TunnelKey};

/// Longest message in bytes: a network of some hundred thousand addresses.
const MOST: u32 = 16 << 20;

/// From the daemon. Each is answered by one [`Answer`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Who are you?
    Greet,
    Configure(Configuration),
    SetNetwork {
        vni: u32,
        device: String,
        peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    },
    ChangeNetwork {
        vni: u32,
        update: BTreeMap<Ipv4Addr, Ipv4Addr>,
        remove: BTreeSet<Ipv4Addr>,
    },
    RemoveNetwork(u32),
    Tell,
    /// Go on as this program, with everything that there is.
    Become(PathBuf),
}

/// From the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Command::Greet`]: which program it is.
    Program(Program),
    Done,
    Failed(String),
    Told(Status),
}

/// What a program is known by: the place of its file on disk, and when that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    device: u64,
    inode: u64,
    written_s: i64,
    written_ns: i64,
}

impl Program {
    pub(crate) fn at(path: &std::path::Path) -> io::Result<Program> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path)?;
        Ok(Program {
            device: file.dev(),
            inode: file.ino(),
            written_s: file.mtime(),
            written_ns: file.mtime_nsec(),
        })
    }
}

/// [`crate::Settings`], and the private key. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    pub(crate) private: [u8; 32],
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) keys: Vec<NetworkKey>,
    pub(crate) hosts: Vec<(Ipv4Addr, TunnelKey)>,
}

impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Configuration({}:{})", self.host, self.port)
    }
}

/// What the tunnel process has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Networks that are carried.
    pub networks: Vec<u32>,
    /// Hosts that there is a session with, and how long it has been, in milliseconds.
    pub sessions: BTreeMap<Ipv4Addr, u64>,
    /// Packets sent since the process began.
    pub sent: u64,
    /// Packets received, of whatever kind.
    pub received: u64,
    /// Frames and packets that could not be sent: no host has the address, or there was no session in time.
    pub unsent: u64,
    /// Packets that had been received before, or were too old to know.
    pub replayed: u64,
    /// Packets of a session that its other end did not make so.
    pub forged: u64,
    /// Packets of no session and no handshake.
    pub unknown: u64,
}

/// Writes one message.
pub(crate) fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let len = u32::try_from(text.len()).ok().filter(|len| *len <= MOST);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a message of that length"))?;
    to.write_all(&[&len.to_be_bytes(), text.as_slice()].concat())
}

/// Reads one message; an end in place of one is an error.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of that length"));
    }
    let mut text = vec![0; len as usize];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
