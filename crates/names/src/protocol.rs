//! What the daemon and the server say to each other: JSON in frames of a little-endian u32 length and as many bytes, as
//! the shim's.
//!
//! [`Request::Hello`], [`Request::HandOver`] and their answers are for ever: a daemon and a server of any two versions say them
//! to each other. The rest may change with [`VERSION`], since a daemon that finds a server of another version has its own take
//! over before it says more.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::tables::{Entry, View, ZoneConfig};

/// The version of what is said after the greeting.
pub(crate) const VERSION: u32 = 1;

/// The longest frame that either side accepts, in bytes.
pub(crate) const FRAME_LIMIT: usize = 16 << 20;

/// What is asked of a server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered by [`Response::Welcome`].
    Hello,
    /// A server that is to take over asks for everything that the old one holds; answered by [`Response::Sockets`] for each
    /// sandbox, then [`Response::Listener`]. The old one then answers what it has read, and ends.
    HandOver,
    /// A daemon begins to tell what there is. Answered by [`Response::Done`], as all that follow.
    Begin {
        /// The host's `resolv.conf`.
        resolv_conf: PathBuf,
    },
    /// What has changed.
    Change(Vec<Change>),
    /// Be the server, in place of one that there may be.
    Serve,
    /// All has been told once: what was not is gone.
    Complete,
    /// The daemon needs no server any more. It ends, unless it has sandboxes.
    Release,
}

/// A change. What is `None` is removed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Of a network as a whole; its entries stay, or go with it.
    Zone(String, Option<ZoneConfig>),
    /// Of what an owner contributes to a network.
    Entry(String, String, Option<Arc<Entry>>),
    /// Of a sandbox.
    Sandbox(String, Option<View>),
}

/// A server's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To [`Request::Hello`].
    Welcome {
        /// [`VERSION`] of the server.
        version: u32,
        /// What identifies the program that it was started from.
        build: String,
        /// Its process id.
        process: u32,
    },
    /// It is done, except for sandboxes that cannot be served, and why.
    Done(BTreeMap<String, String>),
    /// The sockets of a sandbox come with the first byte: UDP, TCP.
    Sockets {
        /// The sandbox.
        sandbox: String,
        /// Which network namespace they are in.
        namespace: NamespaceId,
    },
    /// The listening control socket comes with the first byte.
    Listener,
}

/// Tells network namespaces apart for as long as they exist: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct NamespaceId(pub(crate) u64, pub(crate) u64);

/// A frame with this value.
pub(crate) fn frame_of<T: Serialize>(value: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value).expect("our own messages have only string keys");
    let length = u32::try_from(frame.len() - 4).expect("frames are limited");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Reads a frame.
pub(crate) async fn read<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> io::Result<T> {
    let length = checked_length(stream.read_u32_le().await?)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Writes a frame.
pub(crate) async fn write<T: Serialize>(stream: &mut UnixStream, value: &T) -> io::Result<()> {
    stream.write_all(&frame_of(value)).await
}

/// The length of a frame, unless it is more than anybody may want.
pub(crate) fn checked_length(length: u32) -> io::Result<usize> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    if length > FRAME_LIMIT {
        return Err(io::Error::other("a frame is too long"));
    }
    Ok(length)
}
