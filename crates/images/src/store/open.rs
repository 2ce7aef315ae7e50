//! Opening a store, and setting right what a crash left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rustix::fs::FlockOperation;

use super::{Inner, Shared, Store, commit};
use crate::error::StoreError;
use crate::state::{Record, State};
use crate::{Digest, ImageId, OpenError};

pub(super) fn open(root: &Path) -> Result<Store, OpenError> {
    fs::create_dir_all(root).map_err(StoreError::at("creating", root))?;
    // Overlayfs takes the paths of layers as they are: no link on the way may change under it.
    let root = root.canonicalize().map_err(StoreError::at("resolving", root))?;
    let lock = lock(&root)?;
    for name in ["configs", "layers", "recipes", "empty", "tmp"] {
        make_folder(&root.join(name))?;
    }
    let mut state = State::read(&root)?;
    let repairs = drop_damaged(&root, &mut state);
    let repaired = (!repairs.is_empty()).then(|| state.clone());
    let inner = Inner {
        root,
        _lock: lock,
        repairs,
        shared: Mutex::new(Shared {
            state,
            pins: BTreeMap::new(),
            loose: BTreeMap::new(),
            held: BTreeMap::new(),
        }),
        counter: AtomicU64::new(0),
    };
    let store = Store { inner: Arc::new(inner) };
    if let Some(mut state) = repaired {
        store.write_with_ballast(&mut state)?;
    }
    store.recover()?;
    crate::overlay::check(&store.inner.root)?;
    Ok(store)
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::at("creating", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(root.to_owned())),
        Err(error) => Err(StoreError::at("locking", &path)(error.into()).into()),
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::at("creating", path)(error))
        }
        _ => Ok(()),
    }
}

/// Drops the images whose files are not what they were; what was dropped, in words.
fn drop_damaged(root: &Path, state: &mut State) -> Vec<String> {
    let mut repairs = Vec::new();
    let problem = |id: &ImageId, record: &Record| -> Option<String> {
        match fs::read(root.join("configs").join(id.0.hex())) {
            Ok(bytes) if Digest::of(&bytes) == id.0 => {}
            Ok(_) => return Some("its configuration is damaged".to_owned()),
            Err(error) => return Some(format!("its configuration cannot be read: {error}")),
        }
        let missing = record.layers.iter().find(|layer| !root.join("layers").join(&layer.folder).is_dir())?;
        Some(format!("its layer {} is missing", missing.diff_id))
    };
    state.images.retain(|id, record| {
        let problem = problem(id, record);
        repairs.extend(problem.iter().map(|problem| format!("dropped image {id}: {problem}")));
        problem.is_none()
    });
    let images = &state.images;
    state.references.retain(|reference, id| {
        let known = images.contains_key(id);
        if !known {
            repairs.push(format!("dropped reference {}: its image {id} is not there", reference.familiar()));
        }
        known
    });
    repairs
}

impl Store {
    /// Removes what no image needs. Whatever was under way when the last process ended was not committed.
    fn recover(&self) -> Result<(), StoreError> {
        let trash = self.sweep(&self.lock())?;
        commit::empty_trash(&trash)?;
        let tmp = self.inner.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(StoreError::at("reading", &tmp))? {
            let entry = entry.map_err(StoreError::at("reading", &tmp))?;
            crate::remove_tree::remove_tree(&entry.path())?;
        }
        self.restore_ballast();
        Ok(())
    }
}
