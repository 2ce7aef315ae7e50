//! What every replicated object carries.

use serde::{Deserialize, Serialize};

use crate::Time;

/// The position in the replicated log at which an object last changed. An update names the version it
/// was made from; a stale one is refused with `update out of sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// Version and times of a replicated object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// See [`Version`].
    pub version: Version,
    /// When the object was created.
    pub created_at: Time,
    /// When the object last changed.
    pub updated_at: Time,
}
