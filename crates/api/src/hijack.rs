//! Connections that give up HTTP and become a container's streams.

use std::future::Future;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyStream;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::body::RequestBody;
use crate::detach::{DetachKeys, Typed};
use crate::error::ApiError;
use crate::http::{Answer, Body, full, streamed, with_type};
use crate::version::Version;

/// Bytes held for one direction of one stream. More waits in the kernel, and then at the writer.
const BUFFER_LEN: usize = 16 * 1024;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Clients older than this know only the name of the raw stream.
const MULTIPLEXED_SINCE: Version = Version { major: 1, minor: 42 };

/// The media type of a container's output.
pub fn stream_type(version: Version, tty: bool) -> &'static str {
    if tty || version < MULTIPLEXED_SINCE { RAW } else { MULTIPLEXED }
}

/// The head of Docker's frame around a piece of output: the stream's number, three zeros, a big-endian length.
pub fn frame_head(stream: u8, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// A container's streams, and how a client is to be joined to them.
pub struct Join {
    /// The container's end: bytes out are output, bytes in are standard input.
    pub stream: UnixStream,
    /// Of `stream`.
    pub media_type: &'static str,
    /// Whether what the client sends is standard input; else it is dropped.
    pub stdin: bool,
    /// The keys that leave a terminal; `None` without one.
    pub detach: Option<DetachKeys>,
}

/// Joins a client to a container's streams, for as long as either lives: by taking over the connection where
/// the client offered it (101), else with an ordinary answer whose body is the output, while the request's
/// body is the input.
pub fn join(join: Join, upgrade: Option<OnUpgrade>, body: Option<RequestBody>) -> Answer {
    let media_type = join.media_type;
    let Some(upgrade) = upgrade else { return Ok(plain(join, body)) };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => relay(TokioIo::new(connection), join).await,
            Err(error) => tracing::debug!("a client went away before it was attached: {error}"),
        }
    });
    Ok(upgraded(media_type))
}

/// How a client is joined to streams that do not exist yet.
pub struct JoinLater {
    /// Of the streams.
    pub media_type: &'static str,
    /// Whether they are a terminal.
    pub tty: bool,
    /// See [`Join::stdin`].
    pub stdin: bool,
    /// See [`Join::detach`].
    pub detach: Option<DetachKeys>,
}

/// Gives up HTTP first, and only then makes the streams; where that fails, the reason comes as output. As Docker:
/// docker-py reads the head through a buffer and the output past it, so that output which came in one piece with
/// the head would be lost to it.
pub fn join_later(
    upgrade: OnUpgrade,
    how: JoinLater,
    streams: impl Future<Output = Result<Option<UnixStream>, String>> + Send + 'static,
) -> Answer {
    let JoinLater { media_type, tty, stdin, detach } = how;
    tokio::spawn(async move {
        let connection = upgrade.await;
        // Also for a client that has left: it asked for this to happen.
        let streams = streams.await;
        let Ok(connection) = connection else { return };
        let mut connection = TokioIo::new(connection);
        // A client that left does not want to know.
        let _ = match streams {
            Ok(Some(stream)) => return relay(connection, Join { stream, media_type, stdin, detach }).await,
            Ok(None) => Ok(()),
            Err(text) => connection.write_all(&spoken(&text, tty)).await,
        };
        let _ = connection.shutdown().await;
    });
    Ok(upgraded(media_type))
}

/// Tells a client whose exec could not start why, on the stream that it expects, as Docker does: the client
/// then asks for the exit code.
pub fn say(text: &str, tty: bool, version: Version) -> Answer {
    Ok(with_type(StatusCode::OK, stream_type(version, tty), full(spoken(text, tty))))
}

/// A text as a container would have written it.
fn spoken(text: &str, tty: bool) -> Bytes {
    let line = format!("{text}\r\n");
    if tty { Bytes::from(line) } else { [&frame_head(1, line.len())[..], line.as_bytes()].concat().into() }
}

fn upgraded(media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
    response
}

fn plain(join: Join, body: Option<RequestBody>) -> Response<Body> {
    let Join { stream, media_type, stdin, detach: _ } = join;
    let (reader, writer) = stream.into_split();
    // Held by the answer's body, so that the input ends with it.
    let body = body.filter(|_| stdin);
    let input = match body {
        Some(body) => Input::Body { _feeding: AbortOnDrop(tokio::spawn(feed(body, writer))) },
        None => Input::Nothing { _writer: writer },
    };
    let parts = stream::unfold((reader, input), |(mut reader, input)| async move {
        let mut buffer = vec![0; BUFFER_LEN];
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(length) => {
                buffer.truncate(length);
                Some((Bytes::from(buffer), (reader, input)))
            }
        }
    });
    with_type(StatusCode::OK, media_type, streamed(parts))
}

/// What keeps a container's input as it is while its output is read.
enum Input {
    /// The request's body is copied to it.
    Body { _feeding: AbortOnDrop },
    /// Nobody writes: the half is held, since closing it would be the end of the input.
    Nothing { _writer: OwnedWriteHalf },
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn feed(body: RequestBody, mut writer: OwnedWriteHalf) {
    use futures_util::StreamExt;
    let mut parts = BodyStream::new(body);
    while let Some(Ok(part)) = parts.next().await {
        if let Ok(bytes) = part.into_data()
            && writer.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
    // The end of the body is the end of standard input; an error here means that the container ended first.
    let _ = writer.shutdown().await;
}

/// Copies in both directions until the container's output ends, the client is gone, or it detaches.
async fn relay(client: impl AsyncRead + AsyncWrite + Unpin, join: Join) {
    let Join { stream, media_type: _, stdin, detach } = join;
    let (output, input) = stream.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    {
        let forward = forward_input(&mut from_client, input, stdin, detach);
        let deliver = deliver_output(output, &mut to_client);
        tokio::pin!(forward, deliver);
        tokio::select! {
            () = &mut deliver => {}
            left = &mut forward => {
                if left == Client::StillListens {
                    deliver.await;
                }
            }
        }
    }
    // It may be gone already.
    let _ = to_client.shutdown().await;
}

/// What the end of a client's input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// It closed its writing half, and waits for the rest of the output.
    StillListens,
    /// It detached or broke off.
    Left,
}

async fn forward_input(
    from: &mut (impl AsyncRead + Unpin),
    mut to: OwnedWriteHalf,
    stdin: bool,
    mut detach: Option<DetachKeys>,
) -> Client {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut container_reads = stdin;
    loop {
        let typed = match from.read(&mut buffer).await {
            Err(_) => return Client::Left,
            Ok(0) => break,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
        };
        if !container_reads {
            continue;
        }
        let (bytes, leaves) = match &mut detach {
            None => (std::borrow::Cow::Borrowed(typed), false),
            Some(keys) => match keys.typed(typed) {
                Typed::Forward(bytes) => (bytes.into(), false),
                Typed::Detach(bytes) => (bytes.into(), true),
            },
        };
        // A container that closed its input may go on talking.
        container_reads = to.write_all(&bytes).await.is_ok();
        if leaves {
            return Client::Left;
        }
    }
    if container_reads {
        let _ = to.shutdown().await;
    } else if !stdin {
        // Without input there is nothing to end: hold the half until the output is through.
        to.forget();
    }
    Client::StillListens
}

async fn deliver_output(mut from: OwnedReadHalf, to: &mut (impl AsyncWrite + Unpin)) {
    let mut buffer = vec![0; BUFFER_LEN];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Reads the `detachKeys` parameter for a stream with or without a terminal.
pub fn detach_keys(text: &str, tty: bool) -> Result<Option<DetachKeys>, ApiError> {
    let keys = DetachKeys::parse(text).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(tty.then_some(keys))
}

#[cfg(test)]
mod tests;
