//! What goes into the store's operations and comes out.

use skep_types::Time;

use crate::{Digest, ImageConfig, ImageId, Reference};

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
    /// A name.
    Untagged {
        /// It, in its familiar form.
        name: String,
        /// What it named.
        image: ImageId,
    },
    /// An image.
    Deleted(ImageId),
    /// A layer, by Docker's name for it.
    Layer(Digest),
}

/// Which images are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Those without a tag.
    Dangling,
    /// Those that nobody needs.
    Unused,
    /// What builds made and nobody named: their cache.
    Steps,
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
