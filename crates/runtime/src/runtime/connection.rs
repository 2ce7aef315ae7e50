//! A connection to a shim: frames out, with descriptors; frames in.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{ATTACHED_LIMIT, FRAME_LIMIT, Response, SOCKET_FILE};

/// How often, and how long apart, a shim with a full backlog is tried.
const CONNECT_TRIES: u32 = 1000;
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects to the shim whose folder this is.
    pub async fn open(folder: &Path) -> io::Result<Connection> {
        // By descriptor: a folder's path may be longer than a socket's address.
        let folder =
            rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", std::os::fd::AsRawFd::as_raw_fd(&folder));
        // A shim that hangs (on a dead disk, say) accepts nobody: the daemon's few threads must not wait in the kernel.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let address = SocketAddrUnix::new(path)?;
        for _ in 0..CONNECT_TRIES {
            match rustix::net::connect(&socket, &address) {
                // Its backlog is full, which no event tells the end of.
                Err(rustix::io::Errno::AGAIN) => tokio::time::sleep(CONNECT_PAUSE).await,
                connected => {
                    connected?;
                    return Connection::new(socket);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the shim does not answer"))
    }

    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Connection> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Connection { stream: UnixStream::from_std(socket.into())? })
    }

    /// Sends bytes; the descriptors go with the first.
    pub async fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = loop {
            self.stream.writable().await?;
            let attempt = self.stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHED_LIMIT))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let parts = [IoSlice::new(bytes)];
                Ok(rustix::net::sendmsg(self.stream.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL)?)
            });
            match attempt {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                attempt => break attempt?,
            }
        };
        self.stream.write_all(&bytes[sent..]).await
    }

    /// Receives an answer.
    pub async fn receive(&mut self) -> io::Result<Response> {
        let length = self.stream.read_u32_le().await? as usize;
        if length > FRAME_LIMIT {
            return Err(io::Error::other("a frame is too long"));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// The stream that the connection has become.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}
