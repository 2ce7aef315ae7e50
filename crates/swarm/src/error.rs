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
    /// A key or a token is not the right one: 401.
    #[error("{0}")]
    Unauthorized(String),
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
    /// Something broke here, with its causes.
    pub(crate) fn internal(error: &dyn std::error::Error) -> SwarmError {
        SwarmError::Internal(chain(error))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
