//! An image that comes layer by layer, in any order and at the same time: from a registry.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::{Pins, Staging, Store};
use crate::config::ConfigFile;
use crate::error::{ArchiveError, LoadError, StoreError};
use crate::load::{Contents, LayerFile, Origin, Planned};
use crate::pipeline::{self, Unpacked};
use crate::state::Blob;
use crate::{DiffId, Digest, ImageId, Reference};

/// A layer that is to come, as its manifest and its configuration announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// Digest of its archive, uncompressed.
    pub diff_id: DiffId,
    /// Digest of its archive as it comes.
    pub blob: Digest,
    /// Bytes of its archive as it comes.
    pub size: u64,
}

/// An image on its way in. Nothing of it is visible before [`Intake::commit`]; what came goes when it is dropped.
pub struct Intake {
    store: Store,
    staging: Staging,
    pins: Mutex<Pins>,
    layers: Mutex<BTreeMap<DiffId, LayerFile>>,
}

impl Store {
    /// Begins to take in an image.
    pub fn intake(&self) -> Result<Intake, StoreError> {
        Ok(Intake {
            store: self.clone(),
            staging: Staging::new(self)?,
            pins: Mutex::new(Pins::new(self)),
            layers: Mutex::default(),
        })
    }
}

impl Intake {
    /// Whether a layer need not come, as the store has it; then it stays there until this is dropped.
    pub fn has(&self, layer: &NewLayer) -> bool {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(size) = self.store.pin_layer(layer.diff_id, &mut pins) else { return false };
        self.keep(layer, Origin::Known { size });
        true
    }

    /// Unpacks a layer that is not here. Tells `passed` how many bytes of `input` were read. Calls at the same time are fine.
    ///
    /// # Errors
    /// What comes is not what was announced, or no archive; the disk is at fault.
    pub fn receive(
        &self,
        layer: &NewLayer,
        input: &mut dyn Read,
        passed: &mut dyn FnMut(u64),
    ) -> Result<(), LoadError> {
        let folder = self.staging.make_folder()?;
        // One byte more than announced is enough to know.
        let mut bounded = input.take(layer.size.saturating_add(1));
        let Unpacked { blob, blob_size, diff_id, summary } = pipeline::unpack(&mut bounded, &folder, passed)?;
        let name = format!("layer {}", layer.blob);
        if blob_size != layer.size {
            return Err(ArchiveError::Size { name, actual: blob_size, expected: layer.size }.into());
        }
        for (actual, expected) in [(blob, layer.blob), (diff_id.0, layer.diff_id.0)] {
            if actual != expected {
                return Err(ArchiveError::Digest { name, actual, expected }.into());
            }
        }
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = if self.store.place_loose(diff_id, &folder, &summary, &mut pins)? {
            Origin::Known { size: summary.size }
        } else {
            Origin::Staged { folder, summary }
        };
        self.keep(layer, origin);
        Ok(())
    }

    /// Makes the image visible, and durable, once all of its layers are here.
    ///
    /// # Errors
    /// The configuration is none, or names layers that did not come; the disk is at fault.
    pub fn commit(
        self,
        config: Vec<u8>,
        references: Vec<Reference>,
        blobs: Vec<(DiffId, Blob)>,
    ) -> Result<ImageId, LoadError> {
        let id = ImageId(Digest::of(&config));
        let refuse = |problem| ArchiveError::Config { name: id.to_string(), problem };
        let expected = ConfigFile::parse(&config).map_err(refuse)?.rootfs.diff_ids;
        let layers = self.layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let layers = layers.into_iter().map(|(diff_id, layer)| (diff_id.to_string(), layer));
        let mut contents = Contents::of_layers(layers);
        let layers = expected.iter().map(ToString::to_string).collect();
        let planned = Planned { id, config, references, layers };
        self.store.commit_with(vec![planned], &mut contents, &self.staging, blobs)?;
        Ok(id)
    }

    fn keep(&self, layer: &NewLayer, origin: Origin) {
        let file = LayerFile::new(layer.diff_id, (layer.blob, layer.size), origin);
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.diff_id, file);
    }
}

/// The layers that an image's configuration names, lowest first; the message says what is wrong with it.
pub fn layers_of(config: &[u8]) -> Result<Vec<DiffId>, String> {
    Ok(ConfigFile::parse(config)?.rootfs.diff_ids)
}
