//! Making changes visible, and cleaning up behind them.
//!
//! Durability: what was unpacked is made durable by one `syncfs` for a whole load. To sync each of
//! thousands of small files would take a journal commit each, and to sync nothing but their folders would
//! leave files empty after a power cut. The price is that other dirty data of the same file system is
//! written too. Then come the layers' names, the configurations, and last the state that names them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Shared, Store, now};
use crate::error::{Failure, StoreError};
use crate::fault;
use crate::load::{Contents, Origin, Planned};
use crate::remove_tree::remove_tree;
use crate::state::{Blob, Layer, Record, State, chain_ids, replace_file, sync_folder};
use crate::unpack::{Summary, inherit, recipe_path};
use crate::{DiffId, Digest, FindError, ImageId, LoadedImage, LoadedReference};

/// Bytes set aside for writing the state on a full disk.
const BALLAST: u64 = 1 << 20;
/// Hexadecimal digits of a digest that name a layer's folder: 128 bits. Short, since overlayfs once took
/// all paths of a mount in one page.
const FOLDER_DIGITS: usize = 32;

/// A folder for what is being unpacked; goes with all that is left in it.
pub(crate) struct Staging {
    store: Store,
    path: PathBuf,
}

impl Staging {
    pub(super) fn new(store: &Store) -> Result<Staging, StoreError> {
        let path = store.temporary("load");
        fs::create_dir(&path).map_err(StoreError::at("creating", &path))?;
        Ok(Staging { store: store.clone(), path })
    }

    /// A new folder in it, with the attributes of a root.
    pub(crate) fn make_folder(&self) -> Result<PathBuf, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(self.store.next_number().to_string());
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(StoreError::at("creating", &path))?;
        Ok(path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened next.
        let _ = remove_tree(&self.path);
    }
}

/// Layers of the store that stay though no image may name them any more.
pub(crate) struct Pins {
    store: Store,
    folders: BTreeSet<String>,
}

impl Pins {
    pub(super) fn new(store: &Store) -> Pins {
        Pins { store: store.clone(), folders: BTreeSet::new() }
    }

    /// Keeps these folders too.
    pub(super) fn add(&mut self, shared: &mut Shared, folders: Vec<String>) {
        for folder in folders {
            if self.folders.insert(folder.clone()) {
                *shared.pins.entry(folder).or_default() += 1;
            }
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.folders.is_empty() {
            return;
        }
        let mut shared = self.store.lock();
        for folder in &self.folders {
            let count = shared.pins.get_mut(folder).expect("it was counted when it was pinned");
            *count -= 1;
            if *count == 0 {
                shared.pins.remove(folder);
                // If an image names it by now, it is known by that.
                shared.loose.remove(folder);
            }
        }
        let trash = self.store.sweep(&shared);
        drop(shared);
        // As with staging: opening the store removes what stays.
        let _ = trash.and_then(|trash| empty_trash(&trash));
    }
}

/// A layer on its way into an image.
struct Placed {
    layer: Layer,
    /// Where it was unpacked; `None` if it is in the store.
    from: Option<PathBuf>,
}

impl Store {
    /// The bytes of the files of a layer, if it is in the store; then it stays there as long as `pins` lives.
    pub(crate) fn pin_layer(&self, diff_id: DiffId, pins: &mut Pins) -> Option<u64> {
        let mut shared = self.lock();
        let folder = folder_name(diff_id.0);
        let is_it = |layer: &&Layer| layer.folder == folder && layer.diff_id == diff_id;
        let size = shared.state.layers().chain(shared.loose.values()).find(is_it)?.size;
        pins.add(&mut shared, vec![folder]);
        Some(size)
    }

    /// A layer of an image, counted from the lowest; it stays as long as `pins` lives.
    pub(super) fn pin_image_layer(
        &self,
        id: ImageId,
        index: usize,
        pins: &mut Pins,
    ) -> Result<Layer, FindError> {
        let mut shared = self.lock();
        let layer = shared.state.images.get(&id).and_then(|record| record.layers.get(index)).cloned();
        let layer = layer.ok_or_else(|| FindError::NotFound(id.to_string()))?;
        pins.add(&mut shared, vec![layer.folder.clone()]);
        Ok(layer)
    }

    /// Gives a layer that was unpacked to all who ask for it, as long as `pins` lives, before an image names it.
    /// Not one whose folders take attributes from layers below: that depends on the image.
    pub(crate) fn place_loose(
        &self,
        diff_id: DiffId,
        folder: &Path,
        summary: &Summary,
        pins: &mut Pins,
    ) -> Result<bool, StoreError> {
        if !summary.implicit.is_empty() {
            return Ok(false);
        }
        let layer = Layer { diff_id, folder: folder_name(diff_id.0), size: summary.size };
        let mut shared = self.lock();
        let name = layer.folder.as_str();
        if !shared.state.folders().contains(name) && !shared.loose.contains_key(name) {
            self.move_layer(folder, name)?;
            shared.loose.insert(name.to_owned(), layer.clone());
        }
        pins.add(&mut shared, vec![layer.folder]);
        Ok(true)
    }

    /// Moves what was unpacked to its place, which a failure may have left occupied.
    fn move_layer(&self, from: &Path, name: &str) -> Result<(), StoreError> {
        let (target, recipe) = (self.layer_path(name), recipe_path(from));
        if recipe.exists() {
            fs::rename(&recipe, self.recipe_path(name)).map_err(StoreError::at("renaming", &recipe))?;
        }
        if !target.exists() {
            fs::rename(from, &target).map_err(StoreError::at("renaming", from))?;
        }
        Ok(())
    }

    /// Adds images with their layers and references.
    pub(super) fn commit(
        &self,
        planned: Vec<Planned>,
        contents: &mut Contents,
        staging: &Staging,
    ) -> Result<Vec<LoadedImage>, Failure> {
        self.commit_with(planned, contents, staging, Vec::new())
    }

    /// As [`Store::commit`], with what is known of where layers are.
    pub(super) fn commit_with(
        &self,
        planned: Vec<Planned>,
        contents: &mut Contents,
        _staging: &Staging,
        blobs: Vec<(DiffId, Blob)>,
    ) -> Result<Vec<LoadedImage>, Failure> {
        let mut placed = Vec::with_capacity(planned.len());
        for image in &planned {
            placed.push(self.place(image, contents)?);
        }
        let root = &self.inner.root;
        File::open(root)
            .and_then(|file| Ok(rustix::fs::syncfs(file)?))
            .map_err(StoreError::at("syncing", root))?;
        fault::point("layers synced");

        let mut shared = self.lock();
        let mut state = shared.state.clone();
        let committed = self.commit_files(&planned, &placed, &state).and_then(|()| {
            let loaded = planned
                .into_iter()
                .zip(placed)
                .map(|(image, layers)| add(&mut state, image, layers))
                .collect();
            for (layer, blob) in blobs {
                state.add_blob(layer, blob);
            }
            state.write(root)?;
            Ok(loaded)
        });
        match committed {
            Ok(loaded) => {
                shared.state = state;
                fault::point("state committed");
                Ok(loaded)
            }
            Err(error) => {
                // The error matters more than that this may fail too; opening the store does it again.
                let trash = self.sweep(&shared);
                drop(shared);
                let _ = trash.and_then(|trash| empty_trash(&trash));
                Err(error.into())
            }
        }
    }

    /// Decides the folders of an image's layers, and completes those that depend on the layers below.
    fn place(&self, image: &Planned, contents: &mut Contents) -> Result<Vec<Placed>, Failure> {
        let mut diff_ids = Vec::with_capacity(image.layers.len());
        for path in &image.layers {
            diff_ids.push(contents.layer(path)?.diff_id);
        }
        let chain = chain_ids(&diff_ids);
        let mut placed: Vec<Placed> = Vec::with_capacity(diff_ids.len());
        // Topmost first.
        let mut below: Vec<PathBuf> = Vec::with_capacity(diff_ids.len());
        for (index, path) in image.layers.iter().enumerate() {
            let diff_id = diff_ids[index];
            let (from, folder, size) = match &mut contents.layer_mut(path)?.origin {
                Origin::Known { size } => (None, folder_name(diff_id.0), *size),
                Origin::Staged { folder, summary } => {
                    // Should two images of one archive put such a layer on different ones, the first counts.
                    let name = match &summary.folder {
                        Some(name) => name.clone(),
                        None => {
                            inherit(folder, &summary.implicit, &below)?;
                            let depends = !summary.implicit.is_empty();
                            if depends { chain_folder_name(chain[index]) } else { folder_name(diff_id.0) }
                        }
                    };
                    summary.folder = Some(name.clone());
                    (Some(folder.clone()), name, summary.size)
                }
            };
            below.insert(0, from.clone().unwrap_or_else(|| self.layer_path(&folder)));
            placed.push(Placed { layer: Layer { diff_id, folder, size }, from });
        }
        Ok(placed)
    }

    /// Moves layers and configurations to their places, durably. Nothing refers to them yet.
    fn commit_files(
        &self,
        planned: &[Planned],
        placed: &[Vec<Placed>],
        state: &State,
    ) -> Result<(), StoreError> {
        let known = state.folders();
        let mut moved = BTreeSet::new();
        for Placed { layer, from } in placed.iter().flatten() {
            let Some(from) = from else { continue };
            if known.contains(layer.folder.as_str()) || !from.exists() || !moved.insert(layer.folder.as_str())
            {
                continue;
            }
            self.move_layer(from, &layer.folder)?;
            fault::point("layer renamed");
        }
        let configs = self.inner.root.join("configs");
        for image in planned.iter().filter(|image| !state.images.contains_key(&image.id)) {
            replace_file(&configs, &image.id.0.hex(), &image.config)?;
        }
        sync_folder(&self.inner.root.join("recipes"))?;
        sync_folder(&self.inner.root.join("layers"))?;
        sync_folder(&configs)
    }

    /// Removes what no image needs; moves layers, which take longer, out of the way for [`empty_trash`].
    pub(super) fn sweep(&self, shared: &Shared) -> Result<Vec<PathBuf>, StoreError> {
        let mut trash = Vec::new();
        let folders = shared.state.folders();
        for (path, name) in list(&self.inner.root.join("layers"))? {
            if !folders.contains(name.as_str()) && !shared.pins.contains_key(&name) {
                let target = self.temporary("trash");
                fs::rename(&path, &target).map_err(StoreError::at("renaming", &path))?;
                fault::point("layer thrown away");
                trash.push(target);
            }
        }
        for (path, name) in list(&self.inner.root.join("recipes"))? {
            if !folders.contains(name.as_str()) && !shared.pins.contains_key(&name) {
                remove_tree(&path)?;
            }
        }
        // These are small, and go at once: as soon as the lock is free, another load may want the name.
        for (path, name) in list(&self.inner.root.join("configs"))? {
            let id = Digest::from_hex(&name).map(ImageId);
            if !id.is_some_and(|id| shared.state.images.contains_key(&id)) {
                remove_tree(&path)?;
            }
        }
        remove_tree(&self.inner.root.join("store.json.new"))?;
        Ok(trash)
    }

    /// Writes the state even if the disk is full, as removing images is what helps then.
    pub(super) fn write_with_ballast(&self, state: &mut State) -> Result<(), StoreError> {
        match state.write(&self.inner.root) {
            Err(StoreError::DiskFull { .. }) => {
                let ballast = self.inner.root.join("ballast");
                fs::remove_file(&ballast).map_err(StoreError::at("removing", &ballast))?;
                state.write(&self.inner.root)
            }
            written => written,
        }
    }

    /// Sets room aside, if there is some.
    pub(super) fn restore_ballast(&self) {
        let path = self.inner.root.join("ballast");
        let restore = || -> std::io::Result<()> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.metadata()?.len() < BALLAST {
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST)?;
            }
            Ok(())
        };
        // Without it, removing an image from a full disk may fail, and nothing else.
        let _ = restore();
    }

    fn temporary(&self, purpose: &str) -> PathBuf {
        self.inner.root.join("tmp").join(format!("{purpose}-{}", self.next_number()))
    }

    fn next_number(&self) -> u64 {
        self.inner.counter.fetch_add(1, Ordering::Relaxed)
    }
}

/// Enters an image into the state.
fn add(state: &mut State, image: Planned, layers: Vec<Placed>) -> LoadedImage {
    let layers = layers.into_iter().map(|placed| placed.layer).collect();
    let record = state.images.entry(image.id).or_insert_with(|| Record { layers, ..Record::default() });
    if !image.references.is_empty() {
        record.tagged_at = Some(now());
    }
    let mut references: Vec<LoadedReference> = Vec::with_capacity(image.references.len());
    for reference in image.references {
        let replaced = state.references.insert(reference.clone(), image.id).filter(|old| *old != image.id);
        if !references.iter().any(|known| known.reference == reference) {
            references.push(LoadedReference { reference, replaced });
        }
    }
    LoadedImage { id: image.id, references }
}

fn folder_name(digest: Digest) -> String {
    let mut name = digest.hex();
    name.truncate(FOLDER_DIGITS);
    name
}

/// Told apart from names by diff id: a lowest layer's chain id is its diff id.
pub(super) fn chain_folder_name(digest: Digest) -> String {
    format!("c{}", folder_name(digest))
}

/// Paths and names of what is in a folder.
fn list(folder: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let read = || -> std::io::Result<Vec<(PathBuf, String)>> {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())))
            .collect()
    };
    read().map_err(StoreError::at("reading", folder))
}

/// Removes what [`Store::sweep`] found. The lock need not be held.
pub(super) fn empty_trash(trash: &[PathBuf]) -> Result<(), StoreError> {
    trash.iter().try_for_each(|path| remove_tree(path))
}
