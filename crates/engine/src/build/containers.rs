//! The containers of builds under way: not to be pruned between two moments of a build, and to be removed where the daemon's death
//! cut the build off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use skep_types::ContainerId;

use crate::options::RemoveOptions;
use crate::{Engine, disk};

/// The containers of builds, each with a file of its name on the disk.
#[derive(Debug)]
pub(crate) struct Building {
    folder: PathBuf,
    now: Mutex<BTreeSet<ContainerId>>,
    /// Of builds that another process began.
    left: Vec<ContainerId>,
}

impl Building {
    /// Reads what is left of builds in `folder`, and then removes it.
    pub(crate) fn open(folder: &Path) -> Building {
        let notes = folder.join("containers");
        let left = std::fs::read_dir(&notes).into_iter().flatten().filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse().ok()
        });
        let left = left.collect();
        if let Err(error) = disk::remove_tree(folder) {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
        Building { folder: notes, now: Mutex::default(), left }
    }

    pub(super) fn begin(&self, id: ContainerId) {
        // Held until the file is there: whoever ends may remove the folder.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.insert(id);
        let path = self.folder.join(id.to_string());
        // Without it, a container stays after a crash, as Docker's do.
        let noted = disk::make_dir(&self.folder, 0o700).and_then(|()| std::fs::write(&path, b""));
        if let Err(error) = noted {
            tracing::warn!("cannot write {}: {error}", path.display());
        }
    }

    pub(super) fn end(&self, id: ContainerId) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.remove(&id);
        // What begin could not write is not there.
        let _ = std::fs::remove_file(self.folder.join(id.to_string()));
        if now.is_empty() {
            // The next one makes it anew.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }

    /// Whether a build under way has this container.
    pub(crate) fn has(&self, id: ContainerId) -> bool {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

impl Engine {
    /// Removes the containers of builds that the last process was at when it ended.
    pub(crate) async fn remove_left_by_builds(&self) {
        for id in &self.shared.building.left {
            let id = id.to_string();
            // It may have been removed just before.
            if self.find(&id).is_err() {
                continue;
            }
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = self.remove(&id, options).await {
                tracing::warn!("cannot remove container {id} of a build that was cut off: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_began_and_did_not_end_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("builds");
        let (first, second) = (ContainerId([1; 32]), ContainerId([2; 32]));
        let building = Building::open(&folder);
        assert!(building.left.is_empty());
        building.begin(first);
        building.begin(second);
        building.end(first);
        assert!(building.has(second) && !building.has(first));
        assert_eq!(Building::open(&folder).left, [second]);
        assert!(!folder.exists());
        building.end(second);
        assert!(!building.has(second));
    }
}
