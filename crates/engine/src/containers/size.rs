//! What a container takes of the disk.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::registry::Container;
use crate::view::{ContainerSize, VolumeView};
use crate::{Engine, Result, blocking};

impl Engine {
    /// Bytes that a container takes; walks its file system.
    ///
    /// # Errors
    /// 404.
    pub async fn size(&self, name: &str) -> Result<ContainerSize> {
        let (engine, container) = (self.clone(), self.find(name)?);
        blocking(move || engine.measure(&container)).await
    }

    /// As [`Engine::size`]; blocks.
    pub(crate) fn measure(&self, container: &Container) -> ContainerSize {
        // A file that goes away while it is counted is not counted.
        let writable = bytes_below(&container.home.upper()).unwrap_or(0);
        let image = self.shared.images.find(&container.record.image_id.to_string());
        ContainerSize { writable, root: writable + image.map_or(0, |image| image.size) }
    }
}

impl Engine {
    /// Bytes in each of these volumes, in their order; walks them.
    ///
    /// # Errors
    /// Internal, when the walk panicked.
    pub async fn volume_sizes(&self, volumes: &[VolumeView]) -> Result<Vec<u64>> {
        let folders: Vec<_> = volumes.iter().map(|volume| volume.mountpoint.clone()).collect();
        blocking(move || folders.iter().map(|folder| bytes_below(folder).unwrap_or(0)).collect()).await
    }
}

/// Bytes of the files below a folder; those with several names count once.
fn bytes_below(root: &Path) -> io::Result<u64> {
    let (mut total, mut seen, mut left) = (0, BTreeSet::new(), vec![root.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/one"), "12345").unwrap();
        std::fs::hard_link(dir.path().join("a/one"), dir.path().join("two")).unwrap();
        std::fs::write(dir.path().join("three"), "123").unwrap();
        assert_eq!(bytes_below(dir.path()).unwrap(), 8);
    }
}
