//! Which images an archive holds that is to be written, and where their layers are.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Pins, Store, resolve};
use crate::error::{ExportError, FindError, RebuildError};
use crate::reference::DEFAULT_TAG;
use crate::save::{self, Saved};
use crate::state::{Layer, State};
use crate::{DiffId, Digest, ImageId, Reference};

/// Images that are to be saved. Their layers stay in the store as long as this does.
pub struct Export {
    store: Store,
    images: Vec<Saved>,
    layers: BTreeMap<DiffId, Layer>,
    _pins: Pins,
}

impl Store {
    /// What is to be saved by these names: a tag, all tags of a repository, or an image by its id, without a tag.
    ///
    /// # Errors
    /// One of them is nothing; the disk is at fault.
    pub fn export(&self, names: &[&str]) -> Result<Export, ExportError> {
        let mut pins = Pins::new(self);
        let mut layers = BTreeMap::new();
        let chosen = {
            let mut shared = self.lock();
            let chosen = choose(&shared.state, names)?;
            for (id, _) in &chosen {
                for layer in &shared.state.images[id].layers {
                    layers.insert(layer.diff_id, layer.clone());
                }
            }
            let folders = layers.values().map(|layer: &Layer| layer.folder.clone()).collect();
            pins.add(&mut shared, folders);
            chosen
        };
        let mut images = Vec::with_capacity(chosen.len());
        for (id, references) in chosen {
            let config = self.raw_config(&id)?;
            let layers = super::layers_of(&config)
                .map_err(|problem| crate::StoreError::Damaged { path: self.config_path(id), problem })?;
            images.push(Saved { id, config, references, layers });
        }
        Ok(Export { store: self.clone(), images, layers, _pins: pins })
    }
}

impl Export {
    /// The images.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        self.images.iter().map(|image| image.id)
    }

    /// Writes the archive, front to back. Memory does not grow with it.
    ///
    /// # Errors
    /// A layer cannot be had again as it was; `out` is closed.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let open = |diff_id: DiffId| {
            let missing = || io::Error::other(format!("layer {diff_id} is none of the image's"));
            let layer = self.layers.get(&diff_id).ok_or_else(missing)?;
            let size = self.store.archive_size(layer).map_err(other)?;
            let archive = self.store.open_archive(layer, Pins::new(&self.store)).map_err(other)?;
            Ok((archive, size))
        };
        save::write(&self.images, &open, out)
    }
}

fn other(error: RebuildError) -> io::Error {
    io::Error::other(error)
}

/// The images that are meant, in the order of their names, each with the tags that are meant (moby's `parseNames`).
fn choose(state: &State, names: &[&str]) -> Result<Vec<(ImageId, Vec<Reference>)>, FindError> {
    let mut chosen: Vec<(ImageId, Vec<Reference>)> = Vec::new();
    let mut add = |id: ImageId, reference: Option<&Reference>| {
        let at = chosen.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            chosen.push((id, Vec::new()));
            chosen.len() - 1
        });
        let references = &mut chosen[at].1;
        references.extend(reference.filter(|one| one.tag().is_some() && !references.contains(one)).cloned());
    };
    for name in names {
        if Digest::from_hex(name).is_some() || name.parse::<Digest>().is_ok() {
            add(resolve(state, name)?, None);
            continue;
        }
        let reference: Reference = name.parse()?;
        // Without a tag, all of the repository are meant.
        let is_whole = reference.tag() == Some(DEFAULT_TAG) && !name.ends_with(&format!(":{DEFAULT_TAG}"));
        let is_meant = |known: &Reference| match is_whole {
            true => known.tag().is_some() && known.repository() == reference.repository(),
            false => *known == reference,
        };
        let mut meant = state.references.iter().filter(|(known, _)| is_meant(known)).peekable();
        if meant.peek().is_none() {
            add(resolve(state, name)?, None);
        }
        meant.for_each(|(known, id)| add(*id, Some(known)));
    }
    Ok(chosen)
}
