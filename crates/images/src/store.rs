//! The store: what it holds and how it changes.
//!
//! ```text
//! <root>/store.json       images and references; replaced atomically
//! <root>/configs/<hex>    an image's configuration, byte for byte
//! <root>/layers/<folder>  an unpacked layer, a lower directory for overlayfs
//! <root>/recipes/<folder> how the layer is made an archive again
//! <root>/empty            the lower directory of images without layers
//! <root>/tmp/             whatever is being unpacked or removed
//! <root>/lock             held by the process that has the store open
//! <root>/ballast          room to write `store.json` when the disk is full
//! ```
//!
//! A layer's folder is named by the start of its diff id, so that images share it. Only one whose folders
//! take attributes from the layers below is named by its chain.

mod build;
mod commit;
mod draft;
mod export;
mod hold;
mod intake;
mod open;
mod registries;
mod removal;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use skep_types::Time;

use crate::config::ConfigFile;
use crate::error::StoreError;
use crate::fault;
use crate::load::{Contents, LayerFile, Origin, Planned, Source};
use crate::pipeline::{self, Unpacked};
use crate::state::{Layer, Record, State};
use crate::{
    Digest, FindError, Image, ImageId, ImportError, LoadError, OpenError, Reference, RemoveError, TagError,
};
pub use build::{Above, NewImage, Tidy};
pub(crate) use commit::{Pins, Staging};
pub use draft::Draft;
pub use export::Export;
pub use hold::Hold;
pub use intake::{Intake, NewLayer, layers_of};
pub use registries::LayerArchive;
use removal::{Step, Users};
pub use types::{Import, InUse, LoadedImage, LoadedReference, Progress, Prune, Removed, Usage};

/// The images of one machine. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    repairs: Vec<String>,
    shared: Mutex<Shared>,
    /// Names things in `tmp/`.
    counter: AtomicU64,
}

struct Shared {
    /// What `store.json` says.
    state: State,
    /// Layers that an operation counts on, and how many operations do, by folder.
    pins: BTreeMap<String, usize>,
    /// Whole layers that no image names yet, by folder: each is pinned.
    loose: BTreeMap<String, Layer>,
    /// Images that somebody works with, and how many do.
    held: BTreeMap<ImageId, usize>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in the folder `root`, or founds one. Removes what a crash left half done, and checks
    /// that overlayfs works there.
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        open::open(root)
    }

    /// What opening had to repair beyond leftovers of a crash: images dropped because their files are gone.
    pub fn repairs(&self) -> &[String] {
        &self.inner.repairs
    }

    /// Adds the images of an archive made by `docker save`, or in OCI layout: plain, gzip or zstd. Reads
    /// `input` once, from front to back, and tells `progress` about each layer. All or nothing.
    pub fn load(
        &self,
        input: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let staging = Staging::new(self)?;
        let mut pins = Pins::new(self);
        let mut source = Source { store: self, staging: &staging, pins: &mut pins, progress };
        let mut contents = Contents::collect(input, &mut source)?;
        let planned = crate::load::plan(&contents)?;
        Ok(self.commit(planned, &mut contents, &staging)?)
    }

    /// Makes an image of one layer from an archive of a root file system: plain, gzip or zstd.
    pub fn import(&self, input: &mut dyn Read, import: Import) -> Result<ImageId, ImportError> {
        if matches!(&import.reference, Some(reference) if reference.digest().is_some()) {
            return Err(ImportError::DigestReference);
        }
        let staging = Staging::new(self)?;
        let folder = staging.make_folder()?;
        let Unpacked { blob, blob_size, diff_id, summary } = pipeline::unpack(input, &folder, &mut |_| {})?;
        let config = serde_json::to_vec(&ConfigFile::imported(diff_id, &import))
            .expect("text, lists and maps with text for keys are valid JSON");
        let id = ImageId(Digest::of(&config));
        let path = "layer".to_owned();
        let references = import.reference.into_iter().collect();
        let planned = Planned { id, config, references, layers: vec![path.clone()] };
        let origin = Origin::Staged { folder, summary };
        let mut contents = Contents::of_layers([(path, LayerFile::new(diff_id, (blob, blob_size), origin))]);
        self.commit(vec![planned], &mut contents, &staging)?;
        Ok(id)
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let state = self.lock().state.clone();
        let mut images = Vec::with_capacity(state.images.len());
        for (id, record) in &state.images {
            match self.read_image(*id, record, &state.references_to(*id)) {
                Ok(image) => images.push(image),
                // Removed since.
                Err(FindError::NotFound(_)) => {}
                Err(FindError::Store(error)) => return Err(error),
                Err(FindError::Ambiguous(_) | FindError::Name(_)) => unreachable!("an id is no name"),
            }
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    /// The image that is meant by `name`: a reference, `sha256:` and an id, or a prefix of an id, in this
    /// order.
    pub fn find(&self, name: &str) -> Result<Image, FindError> {
        let (id, record, references) = {
            let shared = self.lock();
            let id = resolve(&shared.state, name)?;
            (id, shared.state.images[&id].clone(), shared.state.references_to(id))
        };
        self.read_image(id, &record, &references)
    }

    /// The id of the image that is meant by `name`; see [`Store::find`].
    pub fn resolve(&self, name: &str) -> Result<ImageId, FindError> {
        resolve(&self.lock().state, name)
    }

    /// The bytes of an image's configuration, as they arrived.
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, FindError> {
        let path = self.config_path(*id);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(FindError::NotFound(id.to_string()))
            }
            read => Ok(read.map_err(StoreError::at("reading", &path))?),
        }
    }

    /// Gives the image that is meant by `source` another name, which may be another image's so far.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), TagError> {
        if target.digest().is_some() {
            return Err(TagError::DigestReference);
        }
        let mut shared = self.lock();
        let id = resolve(&shared.state, source)?;
        let mut state = shared.state.clone();
        state.references.insert(target.clone(), id);
        state.images.entry(id).and_modify(|record| record.tagged_at = Some(now()));
        state.write(&self.inner.root)?;
        shared.state = state;
        Ok(())
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
        let shared = self.lock();
        let id = resolve(&shared.state, name)?;
        let mut state = shared.state.clone();
        let users = Users { containers: in_use, held: &shared.held };
        let steps = removal::plan(&mut state, id, name, force, &users)?;
        Ok(self.take_away(shared, state, steps)?.0)
    }

    /// Removes those of `candidates` that `which` means and nobody needs: no container, no build and no other work, and no
    /// image that was made from them and stays. All in one step. What was removed, and the bytes of files that went.
    ///
    /// `in_use` as for [`Store::remove`].
    ///
    /// # Errors
    /// The disk is at fault.
    pub fn prune(
        &self,
        candidates: &BTreeSet<ImageId>,
        which: Prune,
        in_use: &dyn Fn(&ImageId) -> Option<InUse>,
    ) -> Result<(Vec<Removed>, u64), StoreError> {
        let shared = self.lock();
        let mut state = shared.state.clone();
        let users = Users { containers: in_use, held: &shared.held };
        let steps = removal::prune(&mut state, candidates, which, &users);
        self.take_away(shared, state, steps)
    }

    /// Replaces the state by one that lacks what `steps` took, durably, then removes the files.
    fn take_away(
        &self,
        mut shared: MutexGuard<'_, Shared>,
        mut state: State,
        steps: Vec<Step>,
    ) -> Result<(Vec<Removed>, u64), StoreError> {
        if steps.is_empty() {
            return Ok((Vec::new(), 0));
        }
        state.forget_blobs();
        self.write_with_ballast(&mut state)?;
        fault::point("removal committed");
        let told = removal::tell(&shared, steps);
        shared.state = state;
        let trash = self.sweep(&shared);
        drop(shared);
        commit::empty_trash(&trash?)?;
        self.restore_ballast();
        Ok(told)
    }

    /// The folders of an image's layers for overlayfs, topmost first; never none. The paths are short and
    /// free of symbolic links, commas and colons as far as `root` is.
    pub fn layer_paths(&self, id: &ImageId) -> Result<Vec<PathBuf>, FindError> {
        let shared = self.lock();
        let record = shared.state.images.get(id).ok_or_else(|| FindError::NotFound(id.to_string()))?;
        let mut paths: Vec<PathBuf> = Vec::with_capacity(record.layers.len().max(1));
        for layer in record.layers.iter().rev() {
            let path = self.layer_path(&layer.folder);
            // Overlayfs refuses the same folder twice. The upper one hides all of the lower one.
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            paths.push(self.inner.root.join("empty"));
        }
        Ok(paths)
    }

    /// What the store takes of the disk.
    pub fn usage(&self) -> Usage {
        let shared = self.lock();
        let sizes: BTreeMap<&str, u64> =
            shared.state.layers().map(|layer| (layer.folder.as_str(), layer.size)).collect();
        let size = sizes.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        Usage { images: shared.state.images.len(), layers: sizes.len(), size }
    }

    /// Of each of these images, the bytes of the files in layers that another one of them has too.
    pub fn shared_sizes(&self, images: &[ImageId]) -> Vec<u64> {
        let shared = self.lock();
        let layers = |id: &ImageId| shared.state.images.get(id).map(|record| record.layers.as_slice());
        let mut users: BTreeMap<&str, BTreeSet<ImageId>> = BTreeMap::new();
        for id in images {
            for layer in layers(id).unwrap_or_default() {
                users.entry(&layer.folder).or_default().insert(*id);
            }
        }
        let is_shared = |layer: &&Layer| users[layer.folder.as_str()].len() > 1;
        let size = |id| layers(id).unwrap_or_default().iter().filter(is_shared).map(|layer| layer.size).sum();
        images.iter().map(size).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The state is replaced whole, so that a panic elsewhere cannot have left half of a change.
        self.inner.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn config_path(&self, id: ImageId) -> PathBuf {
        self.inner.root.join("configs").join(id.0.hex())
    }

    fn layer_path(&self, folder: &str) -> PathBuf {
        self.inner.root.join("layers").join(folder)
    }

    fn recipe_path(&self, folder: &str) -> PathBuf {
        self.inner.root.join("recipes").join(folder)
    }

    fn read_image(&self, id: ImageId, record: &Record, references: &[Reference]) -> Result<Image, FindError> {
        let bytes = self.raw_config(&id)?;
        let damaged = |problem| StoreError::Damaged { path: self.config_path(id), problem };
        let config = ConfigFile::parse(&bytes).map_err(damaged)?;
        let (tags, digests): (Vec<_>, Vec<_>) =
            references.iter().partition(|reference| reference.tag().is_some());
        let familiar = |references: Vec<&Reference>| {
            let mut names: Vec<String> = references.into_iter().map(Reference::familiar).collect();
            names.sort();
            names
        };
        Ok(config.into_image(id, record, familiar(tags), familiar(digests)))
    }
}

fn resolve(state: &State, name: &str) -> Result<ImageId, FindError> {
    if let Some(digest) = Digest::from_hex(name).or_else(|| name.parse().ok()) {
        let id = ImageId(digest);
        return if state.images.contains_key(&id) {
            Ok(id)
        } else {
            Err(FindError::NotFound(id.to_string()))
        };
    }
    let reference: Reference = name.parse()?;
    if let Some(id) = state.references.get(&reference) {
        return Ok(*id);
    }
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    let mut matching = state.images.keys().filter(|id| id.0.has_hex_prefix(prefix));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(FindError::Ambiguous(name.to_owned())),
        (None, _) => Err(FindError::NotFound(reference.familiar())),
    }
}

fn now() -> Time {
    SystemTime::now().into()
}
