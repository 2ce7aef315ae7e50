//! Pushing: an image of this machine becomes one of a registry.
//!
//! Layers are put together again from their folders as they are sent. One that the registry has is not sent: known
//! places are asked first, then other repositories of the same registry are asked to lend it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_images::{Blob, DiffId, ImageId, Reference, Target};
use skep_registry::{
    Access, Credentials, Descriptor, Mounted, RegistryError, Session, docker_manifest, media,
};
use skep_types::events::EventKind;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::transfer::{PROGRESS_STEP, Pushed, Report, Step, digest, repository};
use crate::error::chain;
use crate::events::attributes;
use crate::{Engine, Error, ErrorKind, Result, blocking};

/// Known places that are asked for a layer.
const PLACES: usize = 4;

/// A layer that is to be brought.
#[derive(Clone, Copy)]
struct Bringing {
    image: ImageId,
    /// Which layer of the image, from the lowest.
    index: usize,
    diff_id: DiffId,
}

impl Engine {
    /// Pushes a tag, or all tags of a repository where `tag` is `None`, telling `report` in Docker's words. Ends early
    /// once the other end of `report` has gone.
    ///
    /// # Errors
    /// Internal, with the registry's words.
    pub async fn push_image(
        &self,
        name: Reference,
        all_tags: bool,
        credentials: Option<Credentials>,
        report: mpsc::Sender<Step>,
    ) -> Result<()> {
        let report = Report(report);
        let gone = report.clone();
        tokio::select! {
            pushed = self.push(&name, all_tags, credentials, &report) => pushed,
            () = gone.0.closed() => Err(Error::internal("context canceled")),
        }
    }

    async fn push(
        &self,
        name: &Reference,
        all_tags: bool,
        credentials: Option<Credentials>,
        report: &Report,
    ) -> Result<()> {
        report.say("", format!("The push refers to repository [{}]", name.repository())).await;
        let known = self.shared.images.tags_of(&name.repository());
        if known.is_empty() {
            let name = name.familiar_repository();
            return Err(Error::internal(format!("An image does not exist locally with the tag: {name}")));
        }
        let references = if all_tags { known } else { vec![name.clone()] };
        let mut images = Vec::new();
        for reference in references {
            let id = self.shared.images.image_named(&reference);
            let missing = || Error::internal(format!("tag does not exist: {}", reference.familiar()));
            images.push((id.ok_or_else(missing)?, reference));
        }
        let hold = self.shared.images.hold();
        if let Some((_, gone)) = images.iter().find(|(id, _)| !hold.add(*id)) {
            return Err(Error::internal(format!("tag does not exist: {}", gone.familiar())));
        }
        let client = &self.shared.registries;
        let session = client
            .open(&repository(name), Access::Push, credentials.as_ref())
            .await
            .map_err(|error| Error::internal(error.to_string()))?;
        for (id, reference) in images {
            self.push_one(&session, id, &reference, report).await?;
        }
        Ok(())
    }

    async fn push_one(
        &self,
        session: &Session,
        id: ImageId,
        reference: &Reference,
        report: &Report,
    ) -> Result<()> {
        let failed = |error: RegistryError| Error::new(ErrorKind::Remote, error.to_string());
        let (store, find) = (self.shared.images.clone(), id);
        let config = blocking(move || store.raw_config(&find)).await?.map_err(super::from_find)?;
        let diff_ids = skep_images::layers_of(&config).map_err(Error::internal)?;
        let blobs = self.push_layers(session, id, &diff_ids, reference, report).await?;
        let config_digest = skep_registry::Digest::of(&config);
        if session.has_blob(&config_digest).await.map_err(failed)?.is_none() {
            session.upload_bytes(&config).await.map_err(failed)?;
        }
        let descriptor = Descriptor {
            media_type: media::DOCKER_CONFIG.to_owned(),
            size: config.len() as u64,
            digest: config_digest,
        };
        let layers = diff_ids.iter().map(|diff_id| describe(&blobs[diff_id])).collect();
        let manifest = docker_manifest(descriptor, layers);
        let tag = reference.tag().unwrap_or_default();
        let named = session.put_manifest(tag, media::DOCKER_MANIFEST, &manifest).await.map_err(failed)?;
        let (store, by_digest) = (self.shared.images.clone(), reference.with(Target::Digest(digest(&named))));
        blocking(move || store.add_digest(id, &by_digest, blobs.into_iter().collect()))
            .await?
            .map_err(|error| Error::internal(chain(&error)))?;
        let size = manifest.len() as u64;
        let pushed = Some(Pushed { tag: tag.to_owned(), digest: named.to_string(), size });
        let status = format!("{tag}: digest: {named} size: {size}");
        let _ = report.0.send(Step { id: String::new(), status, progress: None, pushed }).await;
        let name = attributes([("name", reference.familiar_repository())]);
        self.shared.events.emit(EventKind::Image, "push", reference.familiar(), name);
        Ok(())
    }

    /// Brings an image's layers; where each is then.
    async fn push_layers(
        &self,
        session: &Session,
        image: ImageId,
        diff_ids: &[DiffId],
        reference: &Reference,
        report: &Report,
    ) -> Result<BTreeMap<DiffId, Blob>> {
        let uploads = self.shared.registries.settings().uploads;
        let mut once = BTreeMap::new();
        for (index, diff_id) in diff_ids.iter().enumerate() {
            once.entry(*diff_id).or_insert(Bringing { image, index, diff_id: *diff_id });
        }
        let mut bringing: Vec<Bringing> = once.into_values().collect();
        // As Docker: the topmost first.
        bringing.sort_by_key(|layer| std::cmp::Reverse(layer.index));
        for layer in &bringing {
            report.say(&layer.diff_id.short(), "Preparing").await;
        }
        for layer in bringing.iter().skip(uploads) {
            report.say(&layer.diff_id.short(), "Waiting").await;
        }
        let room = Arc::new(Semaphore::new(uploads));
        let mut pushing = JoinSet::new();
        for layer in bringing {
            let (engine, session, reference) = (self.clone(), session.clone(), reference.clone());
            let (report, room) = (report.clone(), Arc::clone(&room));
            pushing.spawn(async move {
                let _room = room.acquire_owned().await.expect("it is never closed");
                engine
                    .push_layer(&session, layer, &reference, &report)
                    .await
                    .map(|blob| (layer.diff_id, blob))
            });
        }
        let mut blobs = BTreeMap::new();
        while let Some(pushed) = pushing.join_next().await {
            let (diff_id, blob) =
                pushed.map_err(|error| Error::failed("pushing a layer failed", &error))??;
            blobs.insert(diff_id, blob);
        }
        Ok(blobs)
    }

    async fn push_layer(
        &self,
        session: &Session,
        layer: Bringing,
        reference: &Reference,
        report: &Report,
    ) -> Result<Blob> {
        let failed = |error: RegistryError| Error::new(ErrorKind::Remote, error.to_string());
        let name = layer.diff_id.short();
        if let Some(blob) = self.find_blob(session, layer.diff_id, reference, report).await.map_err(failed)? {
            return Ok(blob);
        }
        let _room = self.shared.pushes.acquire().await.expect("it is never closed");
        let image = self.inspect_image(&layer.image.to_string()).await?;
        // Docker counts bytes of files too, of which the compressed form is some part.
        let total = image.size;
        let settings = self.shared.registries.settings();
        let mut attempt = 0;
        loop {
            let store = self.shared.images.clone();
            let archive = blocking(move || store.layer_archive(&layer.image, layer.index)).await?;
            let archive = archive.map_err(|error| Error::internal(chain(&error)))?;
            let (to_client, id, mut told) = (report.clone(), name.clone(), 0);
            let passed = move |done: u64| {
                if done >= told + PROGRESS_STEP {
                    told = done;
                    to_client.progress(&id, "Pushing", done, total.max(done));
                }
            };
            match session.upload(archive.compressed(), passed).await {
                Ok(uploaded) => {
                    report.say(&name, "Pushed").await;
                    return Ok(Blob {
                        digest: digest(&uploaded.digest),
                        size: uploaded.size,
                        media_type: media::DOCKER_LAYER.to_owned(),
                        repository: reference.repository(),
                    });
                }
                Err(error) if error.is_transient() && attempt + 1 < settings.attempts => {
                    let pause = settings.pause * (1 << attempt.min(6));
                    attempt += 1;
                    let seconds = pause.as_secs().max(1);
                    let unit = if seconds == 1 { "second" } else { "seconds" };
                    report.say(&name, format!("Retrying in {seconds} {unit}")).await;
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Finds a layer in the registry, in this repository or in another one that lends it.
    async fn find_blob(
        &self,
        session: &Session,
        diff_id: DiffId,
        reference: &Reference,
        report: &Report,
    ) -> Result<Option<Blob>, RegistryError> {
        let name = diff_id.short();
        let own = reference.repository();
        let mut known = self.shared.images.blobs(diff_id);
        // Docker's manifests know no other compression.
        known.retain(|blob| matches!(blob.media_type.as_str(), media::DOCKER_LAYER | media::OCI_LAYER));
        // The latest first, and this repository before others.
        known.reverse();
        known.sort_by_key(|blob| blob.repository != own);
        let registry = format!("{}/", reference.registry());
        for blob in known.into_iter().take(PLACES) {
            let wanted: skep_registry::Digest =
                blob.digest.to_string().parse().expect("both are SHA-256 in the same form");
            let here =
                Blob { repository: own.clone(), media_type: media::DOCKER_LAYER.to_owned(), ..blob.clone() };
            if session.has_blob(&wanted).await?.is_some() {
                report.say(&name, "Layer already exists").await;
                return Ok(Some(here));
            }
            let lender = blob.repository.strip_prefix(&registry).filter(|_| blob.repository != own);
            if let Some(lender) = lender {
                match session.mount(&wanted, lender).await {
                    Ok(Mounted::Yes) => {
                        report.say(&name, format!("Mounted from {lender}")).await;
                        return Ok(Some(here));
                    }
                    // To lend is a favour: without it the layer is sent.
                    Ok(Mounted::No) => {}
                    Err(error) => tracing::debug!("mounting {wanted} from {lender}: {error}"),
                }
            }
        }
        Ok(None)
    }
}

fn describe(blob: &Blob) -> Descriptor {
    Descriptor {
        media_type: media::DOCKER_LAYER.to_owned(),
        size: blob.size,
        digest: blob.digest.to_string().parse().expect("both are SHA-256 in the same form"),
    }
}
