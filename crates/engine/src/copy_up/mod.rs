//! Filling a new volume with what the image has at its mount point.
//!
//! The layers are merged here, by hand: mounting them would need a mount in the host's namespace, which a crash
//! could leave behind. No path of an image is ever resolved by the kernel beyond one component without following
//! links, so a hostile image reaches nothing outside its layers.

mod copy;
mod merged;

use std::io;
use std::path::{Path, PathBuf};

use merged::{Layers, Node};

pub(crate) use copy::times;

/// Copies what the layers (topmost first) hold at `target`, an absolute path in the container, into the folder
/// `into`, which must be there and empty: content, owners, modes, times, links and extended attributes, and those of
/// the folder itself. Nothing there, or something that is no folder, leaves `into` as it is.
pub(crate) fn copy_up(layers: &[PathBuf], target: &Path, into: &Path) -> io::Result<()> {
    let layers = Layers::open(layers)?;
    match layers.resolve(target)? {
        Some(Node::Dir(dir)) => copy::into_existing(&dir, into),
        Some(Node::Leaf { .. }) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
