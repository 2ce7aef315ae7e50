//! The store: what it holds and how it changes.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_types::Time;

use crate::{
    FindError, Image, ImageConfig, ImageId, ImportError, LoadError, OpenError, Reference, RemoveError,
    StoreError, TagError,
};

/// The images of one machine. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {}

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Short name of the layer that is being unpacked.
    pub layer: String,
    /// Bytes of it read.
    pub current: u64,
    /// Bytes of it in all.
    pub total: u64,
}

/// An image that an archive held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its id.
    pub id: ImageId,
    /// The names that the archive gave it.
    pub references: Vec<LoadedReference>,
}

/// A name that an archive gave to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedReference {
    /// The name.
    pub reference: Reference,
    /// The image that had the name before.
    pub replaced: Option<ImageId>,
}

impl LoadedImage {
    /// What `docker load` prints, line by line, without line ends.
    pub fn lines(&self) -> Vec<String> {
        if self.references.is_empty() {
            return vec![format!("Loaded image ID: {}", self.id)];
        }
        let mut lines = Vec::new();
        for LoadedReference { reference, replaced } in &self.references {
            let name = reference.familiar();
            if let Some(old) = replaced {
                lines.push(format!(
                    "The image {name} already exists, renaming the old one with ID {old} to empty string"
                ));
            }
            lines.push(format!("Loaded image: {name}"));
        }
        lines
    }
}

/// How a root file system becomes an image.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Its name.
    pub reference: Option<Reference>,
    /// The image's comment.
    pub message: String,
    /// When it is made.
    pub created: Time,
    /// What its containers start with.
    pub config: ImageConfig,
    /// Its processor in Go's words; empty is this machine's.
    pub architecture: String,
}

/// A container that needs an image. Where several do, a running one counts before a stopped one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Short id of the container.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A reference, in its familiar form.
    Untagged(String),
    /// An image or a layer, by id.
    Deleted(String),
}

/// What the store takes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of images.
    pub images: usize,
    /// Number of layers.
    pub layers: usize,
    /// Bytes of the files in all layers, each counted once.
    pub size: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in the folder `root`, or founds one. Removes what a crash left half done, and checks
    /// that overlayfs works there.
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        let _ = root;
        todo!()
    }

    /// What opening had to repair beyond leftovers of a crash: images dropped because their files are gone.
    pub fn repairs(&self) -> &[String] {
        todo!()
    }

    /// Adds the images of an archive made by `docker save`, or in OCI layout: plain, gzip or zstd. Reads
    /// `input` once, from front to back, and tells `progress` about each layer. All or nothing.
    pub fn load(
        &self,
        input: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let _ = (input, progress);
        todo!()
    }

    /// Makes an image of one layer from an archive of a root file system: plain, gzip or zstd.
    pub fn import(&self, input: &mut dyn Read, import: Import) -> Result<ImageId, ImportError> {
        let _ = (input, import);
        todo!()
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        todo!()
    }

    /// The image that is meant by `name`: a reference, `sha256:` and an id, or a prefix of an id, in this
    /// order.
    pub fn find(&self, name: &str) -> Result<Image, FindError> {
        let _ = name;
        todo!()
    }

    /// The id of the image that is meant by `name`; see [`Store::find`].
    pub fn resolve(&self, name: &str) -> Result<ImageId, FindError> {
        let _ = name;
        todo!()
    }

    /// The bytes of an image's configuration, as they arrived.
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, FindError> {
        let _ = id;
        todo!()
    }

    /// Gives the image that is meant by `source` another name, which may be another image's so far.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), TagError> {
        let _ = (source, target);
        todo!()
    }

    /// Removes a name, and the image with its layers where that was the last one; by Docker's rules.
    ///
    /// `in_use` tells whether a container needs an image. It is called while the store is locked, and must
    /// not call the store.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Option<InUse>,
    ) -> Result<Vec<Removed>, RemoveError> {
        let _ = (name, force, in_use);
        todo!()
    }

    /// The folders of an image's layers for overlayfs, topmost first; never none. The paths are short and
    /// free of symbolic links, commas and colons as far as `root` is.
    pub fn layer_paths(&self, id: &ImageId) -> Result<Vec<PathBuf>, FindError> {
        let _ = id;
        todo!()
    }

    /// What the store takes of the disk.
    pub fn usage(&self) -> Usage {
        todo!()
    }
}
