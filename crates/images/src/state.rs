//! What `store.json` holds: all images and references. Its replacement is what commits a change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use skep_types::Time;

use crate::error::StoreError;
use crate::{DiffId, Digest, ImageId, OpenError, Reference};

/// The format that this version writes.
const FORMAT: u32 = 1;

/// Everything that the store knows, but for the configurations, which have files of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    pub(crate) images: BTreeMap<ImageId, Record>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    /// Where layers are known to be, in compressed form.
    #[serde(default)]
    pub(crate) blobs: BTreeMap<DiffId, Vec<Blob>>,
}

/// Most places that are remembered of a layer. Docker remembers 50.
const BLOB_LIMIT: usize = 20;

/// A layer as it lies in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Digest of its compressed form.
    pub digest: Digest,
    /// Bytes of its compressed form.
    pub size: u64,
    /// Media type of its compressed form.
    pub media_type: String,
    /// Full name of the repository.
    pub repository: String,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
    /// When a tag was last set on it.
    #[serde(default)]
    pub(crate) tagged_at: Option<Time>,
    /// The image that it was made from here.
    #[serde(default)]
    pub(crate) parent: Option<ImageId>,
    /// What the step that made it depends on; see `Store::cached`.
    #[serde(default)]
    pub(crate) step: Option<Digest>,
    /// When it was made here.
    #[serde(default)]
    pub(crate) made_at: Option<Time>,
}

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) diff_id: DiffId,
    /// Name of its folder in `layers/`.
    pub(crate) folder: String,
    /// Bytes of its files, and of what its symbolic links say.
    pub(crate) size: u64,
}

impl Record {
    /// Bytes of the files in all layers.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size))
    }
}

impl State {
    /// Reads the state of the store in `root`; an empty one if there is none yet.
    pub(crate) fn read(root: &Path) -> Result<State, OpenError> {
        let path = root.join("store.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(StoreError::at("reading", &path)(error).into()),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged =
            |error: serde_json::Error| StoreError::Damaged { path: path.clone(), problem: error.to_string() };
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(OpenError::Format { path: root.to_owned(), found: format, known: FORMAT });
        }
        Ok(serde_json::from_slice(&bytes).map_err(damaged)?)
    }

    /// Replaces the state of the store in `root`. When it returns, the change is on the disk.
    pub(crate) fn write(&mut self, root: &Path) -> Result<(), StoreError> {
        self.format = FORMAT;
        let bytes =
            serde_json::to_vec(self).expect("maps with text for keys, lists and numbers are valid JSON");
        replace_file(root, "store.json", &bytes)?;
        sync_folder(root)
    }

    /// Remembers where a layer is; the latest places last.
    pub(crate) fn add_blob(&mut self, layer: DiffId, blob: Blob) {
        let blobs = self.blobs.entry(layer).or_default();
        blobs.retain(|known| *known != blob);
        if blobs.len() >= BLOB_LIMIT {
            blobs.remove(0);
        }
        blobs.push(blob);
    }

    /// Forgets what is known of layers that are no image's.
    pub(crate) fn forget_blobs(&mut self) {
        let diff_ids: BTreeSet<DiffId> = self.layers().map(|layer| layer.diff_id).collect();
        self.blobs.retain(|layer, _| diff_ids.contains(layer));
    }

    /// Names of the folders in `layers/` that images need.
    pub(crate) fn folders(&self) -> BTreeSet<&str> {
        self.layers().map(|layer| layer.folder.as_str()).collect()
    }

    /// The layers of all images, repeatedly where images share them.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.images.values().flat_map(|record| &record.layers)
    }

    /// Whether another image was made from this one.
    pub(crate) fn has_children(&self, id: ImageId) -> bool {
        self.images.values().any(|record| record.parent == Some(id))
    }

    /// The references to an image, in order.
    pub(crate) fn references_to(&self, id: ImageId) -> Vec<Reference> {
        self.references
            .iter()
            .filter(|(_, target)| **target == id)
            .map(|(reference, _)| reference.clone())
            .collect()
    }
}

/// Writes a file under a temporary name, makes its content durable, then gives it its name. The name is
/// durable only after [`sync_folder`].
pub(crate) fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = folder.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let written = write().map_err(StoreError::at("writing", &temporary));
    crate::fault::point("file written");
    if let Err(error) = written {
        // Best effort: it holds nothing that anyone reads.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    std::fs::rename(&temporary, folder.join(name)).map_err(StoreError::at("renaming", &temporary))?;
    crate::fault::point("file renamed");
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::at("syncing", folder))
}

/// Docker's name for a layer on top of others: a digest over all of them.
pub(crate) fn chain_ids(layers: &[DiffId]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        let next = match chain.last() {
            None => layer.0,
            Some(below) => Digest::of(format!("{below} {layer}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}
