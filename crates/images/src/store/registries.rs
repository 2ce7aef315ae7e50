//! What pushing needs: layers as archives again, and what is known of where they are.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::GzEncoder;

use super::{Pins, Store};
use crate::diff;
use crate::digest::Hasher;
use crate::error::{RebuildError, StoreError, TagError};
use crate::recipe::Rebuilt;
use crate::state::{Blob, Layer, State};
use crate::{DiffId, FindError, ImageId, Reference};

/// Bytes that are handed on at once.
const BUFFER: usize = 256 * 1024;

/// A layer's archive, put together as it is read; reading fails at the end if it is not what it was. The layer stays in
/// the store as long as this does.
pub struct LayerArchive {
    input: Box<dyn Read + Send>,
    hasher: Option<Hasher>,
    expected: DiffId,
    _pins: Pins,
}

impl LayerArchive {
    /// The archive as gzip, which registries hold layers in.
    pub fn compressed(self) -> impl Read + Send {
        GzEncoder::new(self, Compression::default())
    }
}

impl Read for LayerArchive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
            return Ok(count);
        }
        match self.hasher.take().map(|hasher| DiffId(hasher.finish())) {
            Some(actual) if actual != self.expected => {
                let expected = self.expected;
                Err(io::Error::other(format!(
                    "the archive of layer {expected} cannot be had again: it is {actual} now"
                )))
            }
            _ => Ok(0),
        }
    }
}

/// The archive of a layer that was written here. A thread makes it, as fast as it is read.
fn written(folder: PathBuf) -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    std::thread::Builder::new().name("layer archive".to_owned()).spawn(move || {
        let mut out = BufWriter::with_capacity(BUFFER, writer);
        // What is missing after a failure shows in the digest; a reader that has gone wants no more.
        let _ = diff::write(&folder, &mut out).and_then(|_| out.flush());
    })?;
    Ok(reader)
}

impl Store {
    /// The archive of one layer of an image, counted from the lowest.
    pub fn layer_archive(&self, id: &ImageId, index: usize) -> Result<LayerArchive, RebuildError> {
        let mut pins = Pins::new(self);
        let layer = self.pin_image_layer(*id, index, &mut pins)?;
        self.open_archive(&layer, pins)
    }

    /// The archive of a layer that stays as long as `pins` does, or something else keeps it.
    pub(super) fn open_archive(&self, layer: &Layer, pins: Pins) -> Result<LayerArchive, RebuildError> {
        let (recipe, folder) = (self.recipe_path(&layer.folder), self.layer_path(&layer.folder));
        let input: Box<dyn Read + Send> = if recipe.exists() {
            Box::new(Rebuilt::open(&recipe, &folder).map_err(StoreError::at("opening", &recipe))?)
        } else {
            // What was made here is a function of its folder. So may be what an older version unpacked; the digest tells.
            Box::new(written(folder.clone()).map_err(StoreError::at("reading", &folder))?)
        };
        Ok(LayerArchive { input, hasher: Some(Hasher::default()), expected: layer.diff_id, _pins: pins })
    }

    /// The bytes of a layer's archive.
    pub(super) fn archive_size(&self, layer: &Layer) -> Result<u64, RebuildError> {
        let (recipe, folder) = (self.recipe_path(&layer.folder), self.layer_path(&layer.folder));
        let size = if recipe.exists() { Rebuilt::measure(&recipe, &folder) } else { diff::measure(&folder) };
        Ok(size.map_err(StoreError::at("reading", &folder))?)
    }

    /// Where a layer is known to be; the latest places last.
    pub fn blobs(&self, layer: DiffId) -> Vec<Blob> {
        self.lock().state.blobs.get(&layer).cloned().unwrap_or_default()
    }

    /// Remembers that an image was found in a registry, or brought there: its name by digest, and where its layers are.
    pub fn add_digest(
        &self,
        id: ImageId,
        reference: &Reference,
        blobs: Vec<(DiffId, Blob)>,
    ) -> Result<(), TagError> {
        self.change(id, |state| {
            state.references.insert(reference.clone(), id);
            for (layer, blob) in blobs {
                state.add_blob(layer, blob);
            }
        })
    }

    fn change(&self, id: ImageId, change: impl FnOnce(&mut State)) -> Result<(), TagError> {
        let mut shared = self.lock();
        if !shared.state.images.contains_key(&id) {
            return Err(FindError::NotFound(id.to_string()).into());
        }
        let mut state = shared.state.clone();
        change(&mut state);
        state.write(&self.inner.root)?;
        shared.state = state;
        Ok(())
    }

    /// The image that has exactly this name, tag or digest; ids do not count.
    pub fn image_named(&self, reference: &Reference) -> Option<ImageId> {
        self.lock().state.references.get(reference).copied()
    }

    /// All tags of a repository, and what they name.
    pub fn tags_of(&self, repository: &str) -> Vec<Reference> {
        let shared = self.lock();
        let of_it =
            |reference: &&Reference| reference.tag().is_some() && reference.repository() == repository;
        shared.state.references.keys().filter(of_it).cloned().collect()
    }
}
