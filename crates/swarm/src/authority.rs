//! The cluster's authority, as the leader acts for it: who is let in, who signs, and how one root takes the place
//! of another.
//!
//! Deciding is apart from doing: nothing here changes the cluster, it makes the [`skep_cluster::Request`] that does.

mod admission;
mod change;
mod rotation;
mod signer;

pub(crate) use admission::{admit, new_node};
pub(crate) use change::{Wish, change, new_unlock_key};
pub(crate) use rotation::{Advance, advance};
pub(crate) use signer::{Certified, Signer};

use skep_identity::{IdentityError, Role, normalize};
use skep_types::node::NodeRole;
use skep_types::swarm::Authority;

/// The roots that nodes trust now, PEM: during a rotation both.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn roots(authority: &Authority) -> Result<String, IdentityError> {
    let new = authority.rotation.as_ref().map(|rotation| rotation.certificate.as_str());
    normalize(&(authority.certificate.clone() + "\n" + new.unwrap_or_default()))
}

/// The word of certificates for a role.
pub(crate) fn certified_role(role: NodeRole) -> Role {
    match role {
        NodeRole::Worker => Role::Worker,
        NodeRole::Manager => Role::Manager,
    }
}

#[cfg(test)]
mod tests;
