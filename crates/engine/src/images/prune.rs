//! `docker image prune` and `docker builder prune`.

use std::collections::BTreeSet;

use skep_images::{Image, ImageId, Prune, Removed};
use skep_types::events::EventKind;

use super::from_store;
use crate::events::attributes;
use crate::{Engine, Result, blocking};

impl Engine {
    /// Removes those images that `which` means, that `admits`, and that neither a container nor work under way needs, nor an
    /// image that stays and was made from them. What was removed, and the bytes of files that went.
    ///
    /// # Errors
    /// Internal, when the disk is at fault.
    pub async fn prune_images(
        &self,
        which: Prune,
        admits: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<(Vec<Removed>, u64)> {
        let engine = self.clone();
        let pruned = blocking(move || {
            let store = &engine.shared.images;
            let candidates: BTreeSet<ImageId> =
                store.list()?.iter().filter(|image| admits(image)).map(|image| image.id).collect();
            store.prune(&candidates, which, &|id: &ImageId| engine.image_user(*id))
        });
        let (removed, bytes) = pruned.await?.map_err(|error| from_store(&error))?;
        self.removal_events(&removed);
        if which != Prune::Steps {
            let reclaimed = attributes([("reclaimed", bytes.to_string())]);
            self.shared.events.emit(EventKind::Image, "prune", "", reclaimed);
        }
        Ok((removed, bytes))
    }

    /// Bytes of the files of each of these images in layers that another one of them has too.
    pub fn shared_sizes(&self, images: &[ImageId]) -> Vec<u64> {
        self.shared.images.shared_sizes(images)
    }
}
