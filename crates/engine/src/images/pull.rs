//! Pulling: what a registry has by a name becomes an image here.
//!
//! Layers stream: what comes from the registry is decompressed, verified and unpacked as it comes, several layers at a
//! time. So nothing is written twice, and memory does not grow with a layer.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_images::{DiffId, ImageId, Intake, NewLayer, Reference, Target};
pub use skep_registry::{Credentials, Platform};
use skep_registry::{Descriptor, Manifest, Session};
use skep_types::events::EventKind;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::transfer::{self, PROGRESS_STEP, Report, Step, digest, place, refused, repository};
use crate::error::chain;
use crate::events::attributes;
use crate::{Engine, Error, Result, blocking};

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The name.
    pub reference: Reference,
    /// Whether all tags of the repository are meant, whatever the name's own.
    pub all_tags: bool,
    /// For which platform; `None` is this machine's.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

/// A layer that is to be had.
#[derive(Clone)]
struct Wanted {
    /// As clients see it.
    name: String,
    layer: NewLayer,
    blob: Descriptor,
}

impl Engine {
    /// Pulls an image, telling `report` in Docker's words. Ends early once the other end of `report` has gone.
    ///
    /// # Errors
    /// 404 for what the registry does not have or does not give away; internal for one that cannot be reached, or that
    /// gives something else than it announced.
    pub async fn pull_image(&self, pull: Pull, report: mpsc::Sender<Step>) -> Result<()> {
        let report = Report(report);
        let gone = report.clone();
        tokio::select! {
            pulled = self.pull(&pull, &report) => pulled,
            () = gone.0.closed() => Err(Error::internal("context canceled")),
        }
    }

    async fn pull(&self, pull: &Pull, report: &Report) -> Result<()> {
        let mut is_new = false;
        let name = if pull.all_tags {
            let named = &pull.reference;
            let tags = self.shared.registries.tags(&repository(named), pull.credentials.as_ref()).await;
            for tag in tags.map_err(|error| refused(&error, named))? {
                // The registry may say anything.
                let text = format!("{}:{tag}", named.repository());
                let reference = text.parse().map_err(|_| {
                    Error::internal(format!("the registry names a tag that is none: {tag:?}"))
                })?;
                is_new |= self.pull_one(pull, &reference, report).await?;
            }
            pull.reference.familiar_repository()
        } else {
            is_new = self.pull_one(pull, &pull.reference, report).await?;
            pull.reference.familiar()
        };
        let status = if is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        report.say("", format!("Status: {status} {name}")).await;
        Ok(())
    }

    /// Pulls one tag, or one digest; whether it was not here.
    async fn pull_one(&self, pull: &Pull, reference: &Reference, report: &Report) -> Result<bool> {
        let (target, tag_or_digest) = match reference.target() {
            Target::Tag(tag) => (tag.clone(), tag.clone()),
            Target::Digest(digest) => (digest.to_string(), digest.to_string()),
        };
        let failed = |error| refused(&error, reference);
        let client = &self.shared.registries;
        let (session, fetched) = client
            .resolve(&repository(reference), &target, pull.credentials.as_ref())
            .await
            .map_err(failed)?;
        report.say(&tag_or_digest, format!("Pulling from {}", reference.path())).await;
        let named = digest(&fetched.descriptor.digest);
        let platform = pull.platform.clone().unwrap_or_else(own_platform);
        let manifest = session.image(fetched, &platform).await.map_err(failed)?;
        let by_digest = reference.with(Target::Digest(named));
        let mut names = vec![by_digest.clone()];
        if reference.tag().is_some() {
            names.push(reference.clone());
        }
        let id = ImageId(digest(&manifest.config.digest));
        let is_new = !names.iter().all(|name| self.shared.images.image_named(name) == Some(id));
        if is_new {
            self.fetch(&session, &manifest, names, report).await?;
        }
        report.say("", format!("Digest: {named}")).await;
        let name = attributes([("name", reference.familiar_repository())]);
        self.shared.events.emit(EventKind::Image, "pull", reference.familiar(), name);
        Ok(is_new)
    }

    /// Takes in an image by the names `names`, the first of which is by digest.
    async fn fetch(
        &self,
        session: &Session,
        manifest: &Manifest,
        names: Vec<Reference>,
        report: &Report,
    ) -> Result<()> {
        let reference = names[0].clone();
        let config = session.config(&manifest.config).await.map_err(|error| refused(&error, &reference))?;
        let diff_ids = skep_images::layers_of(&config)
            .map_err(|problem| Error::internal(format!("invalid image configuration: {problem}")))?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::internal("invalid manifest: its layers are not those of the configuration"));
        }
        let store = self.shared.images.clone();
        let intake =
            Arc::new(blocking(move || store.intake()).await?.map_err(|error| super::from_store(&error))?);
        self.fetch_layers(session, wanted(manifest, &diff_ids), &intake, report).await?;
        let blobs =
            diff_ids.iter().zip(&manifest.layers).map(|(layer, found)| place(*layer, found, &reference));
        let blobs = blobs.collect();
        let intake = Arc::into_inner(intake).expect("all who fetched have ended");
        blocking(move || intake.commit(config, names, blobs))
            .await?
            .map_err(|error| Error::internal(chain(&error)))?;
        Ok(())
    }

    async fn fetch_layers(
        &self,
        session: &Session,
        wanted: Vec<Wanted>,
        intake: &Arc<Intake>,
        report: &Report,
    ) -> Result<()> {
        let downloads = self.shared.registries.settings().downloads;
        let mut missing = Vec::new();
        for layer in wanted {
            if intake.has(&layer.layer) {
                report.say(&layer.name, "Already exists").await;
            } else {
                report.say(&layer.name, "Pulling fs layer").await;
                missing.push(layer);
            }
        }
        for layer in missing.iter().skip(downloads) {
            report.say(&layer.name, "Waiting").await;
        }
        // Dropped with this future: then all downloads end.
        let (_going_on, cancelled) = watch::channel(false);
        let room = Arc::new(Semaphore::new(downloads));
        let mut fetching = JoinSet::new();
        for layer in missing {
            let (engine, session, intake) = (self.clone(), session.clone(), Arc::clone(intake));
            let (report, cancelled, room) = (report.clone(), cancelled.clone(), Arc::clone(&room));
            fetching.spawn(async move {
                let _room = room.acquire_owned().await.expect("it is never closed");
                engine.fetch_layer(&session, layer, intake, report, cancelled).await
            });
        }
        while let Some(fetched) = fetching.join_next().await {
            fetched.map_err(|error| Error::failed("pulling a layer failed", &error))??;
        }
        Ok(())
    }

    async fn fetch_layer(
        &self,
        session: &Session,
        wanted: Wanted,
        intake: Arc<Intake>,
        report: Report,
        cancelled: watch::Receiver<bool>,
    ) -> Result<()> {
        let Wanted { name, layer, blob } = wanted;
        let turn = self.shared.turns.of(layer.blob);
        // Another pull may fetch the same layer: then it is here when that is done.
        let _turn = turn.lock_owned().await;
        if intake.has(&layer) {
            report.say(&name, "Download complete").await;
            report.say(&name, "Pull complete").await;
            return Ok(());
        }
        let _room = self.shared.downloads.acquire().await.expect("it is never closed");
        let (id, paused) = (name.clone(), report.clone());
        let mut reader = session.blob(blob, cancelled, move |pause| {
            let seconds = pause.as_secs().max(1);
            let unit = if seconds == 1 { "second" } else { "seconds" };
            let _ = paused.0.try_send(Step {
                id: id.clone(),
                status: format!("Retrying in {seconds} {unit}"),
                progress: None,
                pushed: None,
            });
        });
        blocking(move || {
            let (mut told, mut all_came, total) = (0, false, layer.size);
            let mut passed = |done: u64| {
                if done >= told + PROGRESS_STEP || (done == total && !all_came) {
                    told = done;
                    report.progress(&name, "Downloading", done, total);
                }
                if done == total && !all_came {
                    all_came = true;
                    report.say_blocking(&name, "Verifying Checksum");
                }
            };
            intake.receive(&layer, &mut reader, &mut passed)?;
            report.say_blocking(&name, "Download complete");
            report.progress(&name, "Extracting", total, total);
            report.say_blocking(&name, "Pull complete");
            Ok(())
        })
        .await?
        .map_err(|error: skep_images::LoadError| not_received(&error))
    }
}

/// Why a layer did not come, in Docker's words where it has some.
fn not_received(error: &skep_images::LoadError) -> Error {
    use skep_images::{ArchiveError, LoadError};
    match error {
        LoadError::Archive(ArchiveError::Digest { expected, .. }) => {
            Error::internal(format!("filesystem layer verification failed for digest {expected}"))
        }
        LoadError::Archive(error) => Error::internal(format!("failed to register layer: {error}")),
        LoadError::Read(error) => Error::internal(error.to_string()),
        LoadError::Store(_) => Error::internal(format!("failed to register layer: {}", chain(error))),
    }
}

/// Each layer once: an image may have the same several times.
fn wanted(manifest: &Manifest, diff_ids: &[DiffId]) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    let layers = manifest.layers.iter().zip(diff_ids).filter(|(_, diff_id)| seen.insert(**diff_id));
    layers
        .map(|(blob, diff_id)| {
            let layer = NewLayer { diff_id: *diff_id, blob: digest(&blob.digest), size: blob.size };
            Wanted { name: layer.blob.short(), layer, blob: blob.clone() }
        })
        .collect()
}

/// This machine's platform.
pub fn own_platform() -> Platform {
    let architecture = skep_images::architecture().to_owned();
    Platform { architecture, os: "linux".to_owned(), variant: String::new() }
}

impl Engine {
    /// What a registry has by a name: its manifest's descriptor, and the platforms that it is for.
    ///
    /// # Errors
    /// As [`Engine::pull_image`].
    pub async fn inspect_remote(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<(Descriptor, Vec<Platform>)> {
        let target = match reference.target() {
            Target::Tag(tag) => tag.clone(),
            Target::Digest(digest) => digest.to_string(),
        };
        let failed = |error| transfer::refused(&error, reference);
        let found = self.shared.registries.resolve(&repository(reference), &target, credentials).await;
        let (session, fetched) = found.map_err(failed)?;
        let descriptor = fetched.descriptor.clone();
        let platforms = match fetched.document {
            skep_registry::Document::Index(entries) => {
                entries.into_iter().filter_map(|entry| entry.platform).collect()
            }
            skep_registry::Document::Image(manifest) => {
                let config = session.config(&manifest.config).await.map_err(failed)?;
                serde_json::from_slice::<Platform>(&config).into_iter().collect()
            }
        };
        Ok((descriptor, platforms))
    }

    /// Asks a registry whether credentials are good; the identity token that it gives for them, or nothing.
    ///
    /// # Errors
    /// 401 if they are not; internal if it cannot be reached.
    pub async fn log_in(&self, registry: &str, credentials: &Credentials) -> Result<String> {
        let checked = self.shared.registries.login(registry, credentials).await;
        checked.map_err(|error| {
            if error.is_denied() {
                return Error::new(crate::ErrorKind::Unauthorized, error.to_string());
            }
            Error::internal(error.to_string())
        })
    }
}
