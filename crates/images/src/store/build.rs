//! Images that are made here: each step of a build, and each commit, is one on top of another.
//!
//! A step remembers a key, a digest of all that it depends on. The same step on the same image finds what was made
//! before: that is the cache of builds, and it goes with the images.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use skep_types::Time;

use super::{Hold, Store, commit, draft};
use crate::config::ConfigFile;
use crate::diff::{self, Changes};
use crate::digest::Hasher;
use crate::error::{BuildError, FindError, StoreError};
use crate::remove_tree::remove_tree;
use crate::state::{Layer, Record, State, chain_ids, replace_file, sync_folder};
use crate::{DiffId, Digest, Draft, ImageConfig, ImageId};

/// Bytes hashed at once.
const BUFFER: usize = 256 * 1024;

/// An image that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// What it stands on; `None` is nothing.
    pub parent: Option<ImageId>,
    /// What containers made from it start with.
    pub config: ImageConfig,
    /// When it is made.
    pub created: Time,
    /// What made it, for the history.
    pub created_by: String,
    /// Who made it.
    pub author: String,
    /// A message.
    pub comment: String,
    /// What the step depends on; see [`Store::cached`].
    pub step: Option<Digest>,
}

/// What is done with a copy before it becomes a layer.
pub type Tidy<'a> = Box<dyn FnOnce(&Path) -> io::Result<()> + 'a>;

/// What a new image has above its parent's layers.
pub enum Above<'a> {
    /// Nothing.
    Nothing,
    /// What was written to a draft.
    Draft(Draft),
    /// What a container that has ended wrote: its upper folder, which is taken.
    Taken(PathBuf),
    /// What a container wrote: its upper folder, which stays; and what is done with the copy first.
    Copied(PathBuf, Tidy<'a>),
}

/// A layer on its way into the store.
struct Written {
    upper: PathBuf,
    diff_id: DiffId,
    size: u64,
}

impl Store {
    /// Makes an image, durably.
    ///
    /// # Errors
    /// The parent is not there; what was written cannot be kept; the disk is at fault.
    pub fn make_image(&self, new: &NewImage, above: Above<'_>) -> Result<ImageId, BuildError> {
        self.make_image_with(new, above, None)
    }

    pub(super) fn make_image_with(
        &self,
        new: &NewImage,
        above: Above<'_>,
        hold: Option<&Hold>,
    ) -> Result<ImageId, BuildError> {
        match above {
            Above::Nothing => self.make(new, None, hold),
            Above::Draft(draft) => {
                let (upper, staging, pins) = draft.into_upper();
                let made = self.make_above(new, upper, hold);
                drop((staging, pins));
                made
            }
            Above::Taken(upper) => self.make_above(new, upper, hold),
            Above::Copied(upper, tidy) => {
                let staging = super::Staging::new(self)?;
                let copy = staging.make_folder()?;
                copy_layer(&upper, &copy)?;
                tidy(&copy).map_err(StoreError::at("tidying", &copy))?;
                let made = self.make_above(new, copy, hold);
                drop(staging);
                made
            }
        }
    }

    /// The image that a step with this key made of `parent` before; the newest, if there are several.
    pub fn cached(&self, parent: Option<ImageId>, step: Digest) -> Option<ImageId> {
        let shared = self.lock();
        let fits = |record: &&Record| record.parent == parent && record.step == Some(step);
        let found = shared.state.images.iter().filter(|(_, record)| fits(record));
        found.max_by_key(|(_, record)| record.made_at).map(|(id, _)| *id)
    }

    fn make_above(&self, new: &NewImage, upper: PathBuf, hold: Option<&Hold>) -> Result<ImageId, BuildError> {
        let mut hashing = Hashing(Hasher::default());
        let measured = (|| -> io::Result<Changes> {
            let mut out = BufWriter::with_capacity(BUFFER, &mut hashing);
            let changes = diff::write(&upper, &mut out)?;
            out.flush()?;
            Ok(changes)
        })();
        let changes = measured.map_err(StoreError::at("reading", &upper))?;
        if changes.entries == 0 {
            return self.make(new, None, hold);
        }
        draft::settle_root(&upper)?;
        // See `commit`: one for all files of the layer.
        let root = &self.inner.root;
        File::open(root)
            .and_then(|file| Ok(rustix::fs::syncfs(file)?))
            .map_err(StoreError::at("syncing", root))?;
        let written = Written { upper, diff_id: DiffId(hashing.0.finish()), size: changes.size };
        self.make(new, Some(written), hold)
    }

    fn make(
        &self,
        new: &NewImage,
        written: Option<Written>,
        hold: Option<&Hold>,
    ) -> Result<ImageId, BuildError> {
        let parent = new.parent.map(|id| self.raw_config(&id)).transpose()?;
        let damaged = |problem| {
            BuildError::Store(StoreError::Damaged {
                path: self.config_path(new.parent.unwrap_or(ImageId(Digest([0; 32])))),
                problem,
            })
        };
        let parent = parent.map(|bytes| ConfigFile::parse(&bytes).map_err(damaged)).transpose()?;
        let config = ConfigFile::step(parent, new, written.as_ref().map(|written| written.diff_id));
        let bytes =
            serde_json::to_vec(&config).expect("text, lists and maps with text for keys are valid JSON");
        let id = ImageId(Digest::of(&bytes));
        let mut shared = self.lock();
        let mut state = shared.state.clone();
        let mut record = match new.parent {
            None => Record::default(),
            Some(parent) => {
                let below = state.images.get(&parent).ok_or(FindError::NotFound(parent.to_string()))?;
                Record { layers: below.layers.clone(), ..Record::default() }
            }
        };
        (record.parent, record.step, record.made_at) = (new.parent, new.step, Some(new.created));
        if let Some(written) = written {
            record.layers.push(self.place_written(&state, &record, written)?);
        }
        let configs = self.inner.root.join("configs");
        if !state.images.contains_key(&id) {
            replace_file(&configs, &id.0.hex(), &bytes)?;
            sync_folder(&configs)?;
        }
        state.images.entry(id).or_insert(record);
        state.write(&self.inner.root)?;
        shared.state = state;
        if let Some(hold) = hold {
            hold.add_to(&mut shared, id);
        }
        Ok(id)
    }

    /// Moves a layer to its place, durably.
    fn place_written(&self, state: &State, record: &Record, written: Written) -> Result<Layer, StoreError> {
        let Written { upper, diff_id, size } = written;
        let mut diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
        diff_ids.push(diff_id);
        let chain = *chain_ids(&diff_ids).last().expect("there is at least the new one");
        // By its chain: times finer than a second and attributes of overlayfs are its own.
        let folder = commit::chain_folder_name(chain);
        let target = self.layer_path(&folder);
        if !state.folders().contains(folder.as_str()) {
            // Left by a failure.
            remove_tree(&target)?;
            std::fs::rename(&upper, &target).map_err(StoreError::at("renaming", &upper))?;
            sync_folder(&self.inner.root.join("layers"))?;
        }
        Ok(Layer { diff_id, folder, size })
    }
}

struct Hashing(Hasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies a layer by way of its archive.
fn copy_layer(upper: &Path, copy: &Path) -> Result<(), BuildError> {
    let (mut reader, writer) = io::pipe().map_err(StoreError::at("copying", upper))?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let mut out = BufWriter::with_capacity(BUFFER, writer);
            let changes = diff::write(upper, &mut out)?;
            if changes.entries == 0 {
                out.write_all(&[0; 1024])?;
            }
            out.flush()
        });
        let unpacked = crate::pipeline::unpack(&mut reader, copy, &mut |_| {});
        drop(reader);
        let written = written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.map_err(StoreError::at("reading", upper))?;
        unpacked?;
        Ok(())
    })
}
