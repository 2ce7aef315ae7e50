//! What the kernel tests of several rooms share: a [`stage`] of their own, and a [`Rootfs`] to make images from.
//! Only tests import it.
#![expect(clippy::unwrap_used, reason = "a broken stage should stop the test where it broke")]

mod rootfs;
pub mod stage;

pub use rootfs::Rootfs;
