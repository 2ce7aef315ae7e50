//! A blob on its way here, for code that reads it on a thread of its own.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, RANGE};
use hyper::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::RegistryError;
use crate::answer::text_of;
use crate::manifest::Descriptor;
use crate::session::{Ask, Session};

/// So many bytes make up for a failed attempt.
const PROGRESS: u64 = 1 << 20;
/// Most attempts in all, whatever progress there was.
const ATTEMPT_LIMIT: u32 = 100;

/// Called with the wait before a download goes on after a failure.
type OnPause = Box<dyn FnMut(Duration) + Send>;

/// A blob that is read as it comes; where it breaks off, it goes on from there. Not verified: that is up to who reads.
pub struct BlobReader {
    runtime: Handle,
    stream: Stream,
}

struct Stream {
    session: Session,
    blob: Descriptor,
    body: Option<Incoming>,
    current: Bytes,
    /// Bytes handed out or held.
    offset: u64,
    /// Bytes that come once more, as the registry cannot go on in the middle.
    skip: u64,
    attempts: u32,
    attempts_in_all: u32,
    /// Where the last failure was.
    failed_at: u64,
    cancelled: watch::Receiver<bool>,
    on_pause: OnPause,
}

impl Session {
    /// Begins to fetch a blob. To be read outside of the runtime; reading fails once `cancelled` says so or is gone.
    pub fn blob(
        &self,
        blob: Descriptor,
        cancelled: watch::Receiver<bool>,
        on_pause: impl FnMut(Duration) + Send + 'static,
    ) -> BlobReader {
        let stream = Stream {
            session: self.clone(),
            blob,
            body: None,
            current: Bytes::new(),
            offset: 0,
            skip: 0,
            attempts: 0,
            attempts_in_all: 0,
            failed_at: 0,
            cancelled,
            on_pause: Box::new(on_pause),
        };
        BlobReader { runtime: Handle::current(), stream }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.stream.current.has_remaining() && !self.runtime.block_on(self.stream.next())? {
            return Ok(0);
        }
        let length = buffer.len().min(self.stream.current.len());
        self.stream.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Stream {
    /// Waits for the next piece; `false` at the end.
    async fn next(&mut self) -> io::Result<bool> {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            // Whoever wanted it has gone, or says so.
            _ = cancelled.wait_for(|cancelled| *cancelled) => Err(io::Error::other("context canceled")),
            piece = self.persist() => piece,
        }
    }

    async fn persist(&mut self) -> io::Result<bool> {
        loop {
            let error = match self.piece().await {
                Ok(Some(piece)) => {
                    self.offset += piece.len() as u64;
                    self.current = piece;
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) => error,
            };
            self.body = None;
            if self.offset >= self.failed_at + PROGRESS {
                self.attempts = 0;
            }
            self.failed_at = self.offset;
            self.attempts += 1;
            self.attempts_in_all += 1;
            let settings = &self.session.client.settings;
            let is_last = self.attempts >= settings.attempts || self.attempts_in_all >= ATTEMPT_LIMIT;
            if !error.is_transient() || is_last {
                return Err(io::Error::other(error));
            }
            let pause =
                error.retry_after().unwrap_or_else(|| settings.pause * (1 << (self.attempts - 1).min(6)));
            tracing::debug!(
                "{}: {error}: going on at byte {} in {} ms",
                self.blob.digest,
                self.offset,
                pause.as_millis()
            );
            (self.on_pause)(pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// The next piece of one attempt.
    async fn piece(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.body.is_none() {
            if self.offset >= self.blob.size {
                return Ok(None);
            }
            self.body = Some(self.open().await?);
        }
        let cut = |problem: &str| RegistryError::Unreachable {
            request: format!("Get blob {}", self.blob.digest),
            problem: problem.to_owned(),
        };
        let patience = self.session.client.settings.patience;
        let body = self.body.as_mut().expect("it was opened above");
        loop {
            let frame = match tokio::time::timeout(patience, body.frame()).await {
                Err(_) => return Err(cut("timeout awaiting the body")),
                Ok(Some(Err(_))) => return Err(cut("unexpected EOF")),
                Ok(None) if self.offset < self.blob.size => return Err(cut("unexpected EOF")),
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let skipped = data.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            data.advance(skipped);
            self.skip -= skipped as u64;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    async fn open(&mut self) -> Result<Incoming, RegistryError> {
        let address = self.session.address(&format!("blobs/{}", self.blob.digest));
        let mut ask = Ask::new(Method::GET, address);
        if self.offset > 0 {
            ask = ask.header(RANGE, format!("bytes={}-", self.offset));
        }
        let response = self.session.ask(ask).await?;
        self.skip = 0;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = text_of(response.headers(), &CONTENT_RANGE);
            if !range.starts_with(&format!("bytes {}-", self.offset)) {
                return Err(RegistryError::Document(format!(
                    "the registry sent {range:?} of a blob, not what was asked for"
                )));
            }
        } else {
            self.skip = self.offset;
        }
        Ok(response.into_body())
    }
}
