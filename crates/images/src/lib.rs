//! Images: a content-addressed store of image configurations and of layers unpacked for overlayfs.
//!
//! An image is known by the digest of its configuration, byte for byte as it arrived; so ids equal
//! Docker's. Layers are unpacked once, into folders that serve as overlayfs lower directories.
//!
//! Invariants:
//! - Nothing is visible before it is whole, verified and durable: archives unpack into `tmp/`, and the
//!   atomic replacement of `store.json` is the one moment at which images and references appear.
//! - A crash at any point leaves at most things that `store.json` does not name; opening removes them.
//! - Memory does not grow with the archive: layers stream to the disk, and only metadata is held, up to
//!   a named limit.
//! - No path of an archive is ever resolved outside the folder that it unpacks into.
//! - Nothing here attaches a mount to a tree, uses the network, or knows of containers.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod compression;
mod config;
mod diff;
mod digest;
mod error;
mod fault;
mod image;
mod load;
mod overlay;
mod pipeline;
mod recipe;
mod reference;
mod remove_tree;
mod save;
mod state;
mod store;
mod tar;
#[cfg(test)]
mod testing;
mod unpack;

pub use config::architecture;
pub use digest::{DiffId, Digest, Hasher, ImageId, ParseDigestError};
pub use error::{
    ArchiveError, BuildError, ExportError, FindError, ImportError, LoadError, OpenError, RebuildError,
    RemoveError, StoreError, TagError,
};
pub use image::{History, Image, ImageConfig};
pub use reference::{ParseReferenceError, Reference, Target};
pub use remove_tree::{remove_all, remove_in};
pub use state::Blob;
pub use store::{
    Above, Draft, Export, Hold, Import, InUse, Intake, LayerArchive, LoadedImage, LoadedReference, NewImage,
    NewLayer, Progress, Prune, Removed, Store, Tidy, Usage, layers_of,
};
pub use unpack::{is_archive, unpack_files};
