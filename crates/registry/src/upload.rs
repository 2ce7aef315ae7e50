//! What is brought to a registry: blobs, and the manifest that names them.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::answer::{accept, drain, go_request, text_of};
use crate::session::{Ask, Session, Unreachable};
use crate::{Digest, RegistryError};

/// Bytes that are sent at once.
const PIECE: usize = 256 * 1024;
/// Pieces that wait to be sent.
const QUEUE: usize = 4;
/// How long one blob may take to be sent and stored.
const UPLOAD_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// What was brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// What became of the wish to mount a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It is there now.
    Yes,
    /// It has to be brought.
    No,
}

impl Session {
    /// Whether the repository has a blob; its bytes.
    ///
    /// # Errors
    /// Those of the registry, but for 404.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let address = self.address(&format!("blobs/{digest}"));
        let mut attempts = self.attempts(Unreachable::IsTriedAgain);
        loop {
            let answer = match self.try_ask(Ask::new(Method::HEAD, address.clone())).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(response) => accept(response).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => return Ok(text_of(response.headers(), &CONTENT_LENGTH).parse().ok()),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    /// Asks the registry to take a blob from another repository of its own, which it may or may not do.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, RegistryError> {
        self.also_read(from);
        let address =
            self.address(&format!("blobs/uploads/?mount={digest}&from={}", crate::auth::escape(from)));
        let response = self.try_ask(Ask::new(Method::POST, address.clone())).await?;
        match response.status() {
            StatusCode::CREATED => {
                drain(response).await;
                Ok(Mounted::Yes)
            }
            StatusCode::ACCEPTED => {
                // It began an upload instead, which nobody goes on with.
                let location = text_of(response.headers(), &LOCATION);
                drain(response).await;
                if let Ok(upload) = self.absolute(&address, &location) {
                    drain(self.try_ask(Ask::new(Method::DELETE, upload)).await?).await;
                }
                Ok(Mounted::No)
            }
            _ => accept(response).await.map(|_| Mounted::No),
        }
    }

    /// Brings a small blob.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn upload_bytes(&self, bytes: &[u8]) -> Result<Uploaded, RegistryError> {
        let digest = Digest::of(bytes);
        let mut attempts = self.attempts(Unreachable::IsTriedAgain);
        while let Err(error) = self.upload_once(&digest, bytes).await {
            attempts.again(error).await?;
        }
        Ok(Uploaded { digest, size: bytes.len() as u64 })
    }

    async fn upload_once(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let location = self.begin_upload().await?;
        let ask = Ask::new(Method::PUT, with_digest(&location, digest))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Bytes::copy_from_slice(bytes));
        drain(self.ask(ask).await?).await;
        Ok(())
    }

    /// Brings a blob of a length that nobody knows before. One attempt; `passed` is told how many bytes were taken out of
    /// `input`, which is read on a thread of its own.
    ///
    /// # Errors
    /// Those of the registry; [`RegistryError::Source`] if `input` fails.
    pub async fn upload(
        &self,
        input: impl Read + Send + 'static,
        mut passed: impl FnMut(u64) + Send + 'static,
    ) -> Result<Uploaded, RegistryError> {
        let location = self.begin_upload().await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reading = tokio::task::spawn_blocking(move || pump(input, &sender, &mut passed));
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let piece: io::Result<Bytes> = receiver.recv().await?;
            Some((piece.map(Frame::data), receiver))
        });
        let ask = Ask::new(Method::PATCH, location.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let sent = self.send_stream(ask, StreamBody::new(frames).boxed_unsync(), UPLOAD_LIMIT).await;
        let read = reading.await.map_err(|error| RegistryError::Source(error.to_string()))?;
        let (digest, size) = match (read, &sent) {
            (Ok(Some(measured)), _) => measured,
            (Err(error), _) => return Err(RegistryError::Source(error.to_string())),
            // The registry hung up in the middle; its own words say more.
            (Ok(None), Err(error)) => return Err(error.clone()),
            (Ok(None), Ok(_)) => {
                return Err(RegistryError::Unreachable {
                    request: go_request(&Method::PATCH, &location),
                    problem: "the registry did not take all of the blob".to_owned(),
                });
            }
        };
        let response = sent?;
        let next = text_of(response.headers(), &LOCATION);
        drain(response).await;
        let next = if next.is_empty() { location } else { self.absolute(&location, &next)? };
        let ask = Ask::new(Method::PUT, with_digest(&next, &digest));
        drain(self.ask(ask.header(CONTENT_LENGTH, "0")).await?).await;
        Ok(Uploaded { digest, size })
    }

    async fn begin_upload(&self) -> Result<String, RegistryError> {
        let address = self.address("blobs/uploads/");
        let response = self.ask(Ask::new(Method::POST, address.clone()).header(CONTENT_LENGTH, "0")).await?;
        let location = text_of(response.headers(), &LOCATION);
        drain(response).await;
        self.absolute(&address, &location)
    }

    /// Names a manifest by a tag or a digest.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn put_manifest(
        &self,
        target: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let address = self.address(&format!("manifests/{target}"));
        let ask = Ask::new(Method::PUT, address)
            .header(CONTENT_TYPE, media_type)
            .body(Bytes::copy_from_slice(bytes));
        let mut attempts = self.attempts(Unreachable::IsTriedAgain);
        loop {
            match self.ask(ask.clone()).await {
                Ok(response) => {
                    drain(response).await;
                    return Ok(Digest::of(bytes));
                }
                Err(error) => attempts.again(error).await?,
            }
        }
    }
}

/// Adds the digest to the address of an upload.
fn with_digest(location: &str, digest: &Digest) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

/// Reads `input` to its end; digest and length, or nothing if nobody takes the pieces any more.
fn pump(
    mut input: impl Read,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    passed: &mut dyn FnMut(u64),
) -> io::Result<Option<(Digest, u64)>> {
    let (mut hasher, mut size) = (Sha256::new(), 0u64);
    loop {
        let mut piece = vec![0; PIECE];
        let mut filled = 0;
        while filled < PIECE {
            match input.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The request must not look as if it had ended well.
                    let _ = pieces.blocking_send(Err(io::Error::other("the blob cannot be read")));
                    return Err(error);
                }
            }
        }
        piece.truncate(filled);
        hasher.update(&piece);
        size += filled as u64;
        let at_end = filled < PIECE;
        if filled > 0 && pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(None);
        }
        passed(size);
        if at_end {
            return Ok(Some((Digest::finish(hasher), size)));
        }
    }
}
