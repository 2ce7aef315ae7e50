//! Why a request to the swarm failed, by the kind that the API maps to a status code.

use serde::{Deserialize, Serialize};

/// A refused or failed request. Each text is the one that Docker's clients expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SwarmError {
    /// No such object: 404.
    #[error("{0}")]
    NotFound(String),
    /// It clashes with another object: 409.
    #[error("{0}")]
    Conflict(String),
    /// A field is wrong, or the version is out of sequence: 400 (SwarmKit's `InvalidArgument`).
    #[error("{0}")]
    InvalidParameter(String),
    /// Not in this state of the node: 503.
    #[error("{0}")]
    Unavailable(String),
    /// Known, but not built: 501.
    #[error("{0}")]
    Unsupported(String),
    /// Something broke here: 500.
    #[error("{0}")]
    Internal(String),
}

impl SwarmError {
    /// What broke here, with its causes.
    pub(crate) fn internal(error: &dyn std::error::Error) -> SwarmError {
        SwarmError::Internal(crate::log_worker::chain(error))
    }
}
