//! Descriptors that go from one server to the next, with the first byte of a frame.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::io::{AsyncWriteExt, Interest};

use crate::protocol::{self, Response};

/// The most descriptors with one frame: a sandbox's two.
const LIMIT: usize = 2;

/// Sends a frame with descriptors.
pub(crate) async fn send(
    stream: &mut tokio::net::UnixStream,
    response: &Response,
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let frame = protocol::frame_of(response);
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LIMIT))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(rustix::net::sendmsg(&*stream, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    stream.write_all(&frame[sent..]).await
}

/// Receives a frame with descriptors; waits for it.
pub(crate) fn receive(stream: &UnixStream) -> io::Result<(Response, Vec<OwnedFd>)> {
    let (mut length, mut descriptors) = ([0; 4], Vec::new());
    fill(stream, &mut length, &mut descriptors)?;
    let mut body = vec![0; protocol::checked_length(u32::from_le_bytes(length))?];
    fill(stream, &mut body, &mut descriptors)?;
    Ok((serde_json::from_slice(&body)?, descriptors))
}

fn fill(stream: &UnixStream, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LIMIT))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes[filled..])];
        let received = match rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += received.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
    }
    Ok(())
}
