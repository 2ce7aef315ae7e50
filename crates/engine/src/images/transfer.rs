//! What pulling and pushing share: how a client follows them, and how a registry's refusals are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use skep_images::{Blob, DiffId, Digest, Reference};
use skep_registry::{RegistryError, Repository, media};
use tokio::sync::mpsc;

use crate::{Error, ErrorKind};

/// Layers that are pulled at the same time in all: each holds a thread.
pub(crate) const DOWNLOAD_LIMIT: usize = 8;
/// Layers that are pushed at the same time in all.
pub(crate) const PUSH_LIMIT: usize = 5;
/// Bytes between two messages of progress.
pub(super) const PROGRESS_STEP: u64 = 512 * 1024;

/// A message to the client that waits for a pull or a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The layer, or the tag; empty for what is said of the whole.
    pub id: String,
    /// What happens, in Docker's words.
    pub status: String,
    /// Bytes done, and bytes in all.
    pub progress: Option<(u64, u64)>,
    /// Said at the end of a push.
    pub pushed: Option<Pushed>,
}

/// What a push brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of the manifest.
    pub size: u64,
}

/// Where messages go. A client that has gone ends the transfer.
#[derive(Clone, Debug)]
pub(super) struct Report(pub(super) mpsc::Sender<Step>);

impl Report {
    /// Says something, waiting for the client if need be.
    pub(super) async fn say(&self, id: &str, status: impl Into<String>) {
        let _ = self.0.send(step(id, status.into())).await;
    }

    /// As [`Report::say`], from a thread of its own.
    pub(super) fn say_blocking(&self, id: &str, status: &str) {
        let _ = self.0.blocking_send(step(id, status.to_owned()));
    }

    /// Says how far something is, unless the client is slow.
    pub(super) fn progress(&self, id: &str, status: &str, done: u64, total: u64) {
        let progress = Some((done, total));
        let _ = self.0.try_send(Step { progress, ..step(id, status.to_owned()) });
    }
}

fn step(id: &str, status: String) -> Step {
    Step { id: id.to_owned(), status, progress: None, pushed: None }
}

/// Locks by name: of those who want the same layer, one fetches it.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(super) fn of(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(digest, Arc::downgrade(&turn));
        turn
    }
}

pub(super) fn repository(reference: &Reference) -> Repository {
    Repository { registry: reference.registry().to_owned(), path: reference.path().to_owned() }
}

/// A registry's digest as the store has it.
pub(super) fn digest(digest: &skep_registry::Digest) -> Digest {
    digest.as_str().parse().expect("both are SHA-256 in the same form")
}

pub(super) fn place(
    layer: DiffId,
    found: &skep_registry::Descriptor,
    reference: &Reference,
) -> (DiffId, Blob) {
    let media_type =
        if found.media_type.is_empty() { media::DOCKER_LAYER.to_owned() } else { found.media_type.clone() };
    let blob = Blob {
        digest: digest(&found.digest),
        size: found.size,
        media_type,
        repository: reference.repository(),
    };
    (layer, blob)
}

/// What a registry refused, in the words and with the status of Docker's `translatePullError`.
pub(super) fn refused(error: &RegistryError, reference: &Reference) -> Error {
    let text = error.to_string();
    if let RegistryError::Refused { code, .. } = error {
        match code.as_str() {
            "MANIFEST_UNKNOWN" => {
                return Error::not_found(format!("manifest for {} not found: {text}", reference.familiar()));
            }
            "NAME_UNKNOWN" => {
                return Error::not_found(format!(
                    "repository {} not found: {text}",
                    reference.familiar_repository()
                ));
            }
            _ => {}
        }
    }
    if error.is_denied() {
        let name = reference.familiar_repository();
        return Error::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {text}"
        ));
    }
    if error.is_not_found() {
        return Error::not_found(format!("manifest for {} not found: {text}", reference.familiar()));
    }
    match error {
        RegistryError::Platform(_) => Error::not_found(text),
        _ => Error::new(ErrorKind::Remote, text),
    }
}
