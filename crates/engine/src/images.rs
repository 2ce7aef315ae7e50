//! Images: the store of the images room, off the async threads, with Docker's events.

mod prune;
mod pull;
mod push;
mod transfer;

use std::io::{Read, Write};
use std::path::PathBuf;

pub use pull::{Credentials, Platform, Pull, own_platform};
use skep_images::{Export, ExportError, FindError, ImportError, LoadError, StoreError, TagError};
pub use skep_images::{
    History, Image, ImageConfig, ImageId, Import, LoadedImage, LoadedReference, ParseReferenceError,
    Progress, Prune, Reference, Removed, Usage,
};
use skep_images::{InUse, RemoveError};
use skep_types::events::EventKind;

pub(crate) use transfer::{DOWNLOAD_LIMIT, PUSH_LIMIT, Turns};
pub use transfer::{Pushed, Step};

use crate::error::chain;
use crate::events::attributes;
use crate::{Engine, Error, Result, blocking};

/// Archives that are read at the same time. Each holds a thread for as long as its client takes to send it, and clients
/// that send nothing must not hold them all: without a thread no container starts.
pub(crate) const UPLOAD_LIMIT: usize = 8;

impl Engine {
    /// Adds the images of an archive, which is read once from front to back. `progress` is told about each layer.
    ///
    /// # Errors
    /// 400 for an archive at fault; internal for a disk at fault.
    pub async fn load_images(
        &self,
        mut input: impl Read + Send + 'static,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Vec<LoadedImage>> {
        let _room = self.shared.uploads.acquire().await.expect("it is never closed");
        let store = self.shared.images.clone();
        let loaded = blocking(move || store.load(&mut input, &mut progress)).await?;
        let loaded = loaded.map_err(|error| match error {
            LoadError::Archive(_) | LoadError::Read(_) => Error::invalid(chain(&error)),
            LoadError::Store(error) => from_store(&error),
        })?;
        for image in &loaded {
            self.image_event("load", image.id, image.id.to_string());
        }
        Ok(loaded)
    }

    /// Chooses the images that an archive is to hold; see [`skep_images::Store::export`].
    ///
    /// # Errors
    /// 404 `No such image: x`; 400 for what is no name.
    pub async fn export_images(&self, names: Vec<String>) -> Result<Saving> {
        let store = self.shared.images.clone();
        let chosen = blocking(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            store.export(&names)
        });
        let export = chosen.await?.map_err(|error| match error {
            ExportError::Find(error) => from_find(error),
            ExportError::Store(error) => from_store(&error),
        })?;
        Ok(Saving { engine: self.clone(), export })
    }

    /// Makes an image of one layer from an archive of a root file system.
    ///
    /// # Errors
    /// 400 for an archive at fault; internal for a disk at fault.
    pub async fn import_image(
        &self,
        mut input: impl Read + Send + 'static,
        import: Import,
    ) -> Result<ImageId> {
        let name = import.reference.as_ref().map(Reference::familiar);
        let _room = self.shared.uploads.acquire().await.expect("it is never closed");
        let store = self.shared.images.clone();
        let imported = blocking(move || store.import(&mut input, import)).await?;
        let id = imported.map_err(|error| match error {
            ImportError::Archive(_) | ImportError::Read(_) | ImportError::DigestReference => {
                Error::invalid(chain(&error))
            }
            ImportError::Store(error) => from_store(&error),
        })?;
        self.image_event("import", id, name.unwrap_or_else(|| id.to_string()));
        Ok(id)
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// Internal, when the store cannot be read.
    pub async fn images(&self) -> Result<Vec<Image>> {
        let store = self.shared.images.clone();
        blocking(move || store.list()).await?.map_err(|error| from_store(&error))
    }

    /// The image that is meant by a reference, an id, or a prefix of an id.
    ///
    /// # Errors
    /// 404 `No such image: x`.
    pub async fn inspect_image(&self, name: &str) -> Result<Image> {
        let (store, name) = (self.shared.images.clone(), name.to_owned());
        blocking(move || store.find(&name)).await?.map_err(from_find)
    }

    /// Whether there is an image by a reference, an id, or a prefix of an id.
    pub fn has_image(&self, name: &str) -> bool {
        self.shared.images.resolve(name).is_ok()
    }

    /// The folders of an image's layers, topmost first.
    ///
    /// # Errors
    /// 404 `No such image: x`.
    pub async fn image_layers(&self, id: ImageId) -> Result<Vec<PathBuf>> {
        let store = self.shared.images.clone();
        blocking(move || store.layer_paths(&id)).await?.map_err(from_find)
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// 404 `No such image: x`; 400 for a target that is no tag.
    pub async fn tag_image(&self, source: &str, target: Reference) -> Result<()> {
        let (store, source, name) = (self.shared.images.clone(), source.to_owned(), target.familiar());
        let familiar = name.clone();
        let tagged = blocking(move || {
            store.tag(&source, &target)?;
            store.resolve(&familiar).map_err(TagError::from)
        });
        let id = tagged.await?.map_err(|error| match error {
            TagError::Find(error) => from_find(error),
            TagError::DigestReference => Error::invalid(error.to_string()),
            TagError::Store(error) => from_store(&error),
        })?;
        self.image_event("tag", id, name);
        Ok(())
    }

    /// Removes a name, and the image where that was its last one, by Docker's rules.
    ///
    /// # Errors
    /// 404 `No such image: x`; 409 for an image in use.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        let removed = blocking(move || {
            let in_use = |id: &ImageId| engine.image_user(*id);
            engine.shared.images.remove(&name, force, &in_use)
        });
        let removed = removed.await?.map_err(|error| match error {
            RemoveError::Find(error) => from_find(error),
            RemoveError::Store(error) => from_store(&error),
            conflict => Error::conflict(conflict.to_string()),
        })?;
        self.removal_events(&removed);
        Ok(removed)
    }

    fn removal_events(&self, removed: &[Removed]) {
        for step in removed {
            match step {
                Removed::Untagged { image, .. } => self.image_event("untag", *image, image.to_string()),
                Removed::Deleted(image) => self.image_event("delete", *image, image.to_string()),
                Removed::Layer(_) => {}
            }
        }
    }

    /// What the images take of the disk.
    pub fn image_usage(&self) -> Usage {
        self.shared.images.usage()
    }

    /// The container that most stands in the way of removing an image: a running one before a stopped one.
    pub(crate) fn image_user(&self, id: ImageId) -> Option<InUse> {
        let users =
            self.shared.containers.all().into_iter().filter(|container| container.record.image_id == id);
        users
            .map(|container| InUse { container: container.id().short(), running: container.is_running() })
            .max_by_key(|user| user.running)
    }

    fn image_event(&self, action: &str, id: ImageId, name: String) {
        self.shared.events.emit(EventKind::Image, action, id.to_string(), attributes([("name", name)]));
    }
}

/// Images that are about to be saved; they stay until this has gone.
pub struct Saving {
    engine: Engine,
    export: Export,
}

impl Saving {
    /// Writes the archive, as fast as it is read. Waits while many others are written.
    ///
    /// # Errors
    /// A layer is not what it was; nobody reads any more.
    pub async fn write(self, mut out: impl Write + Send + 'static) -> std::io::Result<()> {
        let Saving { engine, export } = self;
        let _room = engine.shared.saves.acquire().await.expect("it is never closed");
        let ids: Vec<ImageId> = export.images().collect();
        let written = blocking(move || export.write(&mut out)).await;
        written.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
        for id in ids {
            engine.image_event("save", id, id.to_string());
        }
        Ok(())
    }
}

/// A failed search in the client's words.
pub(crate) fn from_find(error: FindError) -> Error {
    match error {
        FindError::NotFound(_) => Error::not_found(error.to_string()),
        FindError::Ambiguous(_) | FindError::Name(_) => Error::invalid(error.to_string()),
        FindError::Store(error) => from_store(&error),
    }
}

fn from_store(error: &StoreError) -> Error {
    Error::internal(chain(error))
}
