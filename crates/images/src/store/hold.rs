//! Images that somebody works with.

use std::sync::{Mutex, PoisonError};

use super::{Above, NewImage, Shared, Store};
use crate::{BuildError, Digest, ImageId};

/// Images that no removal and no pruning takes as long as this lives: those of a build, of a push, of an archive that is being
/// written. Their names may go.
pub struct Hold {
    store: Store,
    images: Mutex<Vec<ImageId>>,
}

impl Store {
    /// A hold on nothing yet.
    pub fn hold(&self) -> Hold {
        Hold { store: self.clone(), images: Mutex::default() }
    }
}

impl Hold {
    /// Keeps this image too; `false` if there is no such image any more.
    pub fn add(&self, id: ImageId) -> bool {
        let mut shared = self.store.lock();
        let known = shared.state.images.contains_key(&id);
        if known {
            self.add_to(&mut shared, id);
        }
        known
    }

    /// As [`Store::make_image`]; what was made is kept from its first moment on.
    ///
    /// # Errors
    /// As [`Store::make_image`].
    pub fn make_image(&self, new: &NewImage, above: Above<'_>) -> Result<ImageId, BuildError> {
        self.store.make_image_with(new, above, Some(self))
    }

    /// As [`Store::cached`]; what was found is kept.
    pub fn cached(&self, parent: Option<ImageId>, step: Digest) -> Option<ImageId> {
        // One that goes between the two is as good as not found.
        self.store.cached(parent, step).filter(|id| self.add(*id))
    }

    pub(super) fn add_to(&self, shared: &mut Shared, id: ImageId) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        *shared.held.entry(id).or_default() += 1;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let images = std::mem::take(self.images.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut shared = self.store.lock();
        for id in images {
            let count = shared.held.get_mut(&id).expect("it was counted when it was added");
            *count -= 1;
            if *count == 0 {
                shared.held.remove(&id);
            }
        }
    }
}
