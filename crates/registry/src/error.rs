//! What a registry refuses, and what goes wrong on the way to it.

use std::time::Duration;

use hyper::StatusCode;

use crate::Digest;

/// A request to a registry failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer, or not in a way that makes sense. In the words of Go's client.
    #[error("{request}: {problem}")]
    Unreachable {
        /// Method and address, `Get "https://host/v2/"`.
        request: String,
        /// Why.
        problem: String,
    },
    /// It refuses, with its own words.
    #[error("{message}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// The registry's code, such as `MANIFEST_UNKNOWN`; empty if it gave none.
        code: String,
        /// What it says.
        message: String,
        /// How long it wants to be left alone, if it says so.
        retry_after: Option<Duration>,
    },
    /// It asks for a password and there is none.
    #[error("{request}: no basic auth credentials")]
    NoCredentials {
        /// Method and address.
        request: String,
    },
    /// What came is not what was asked for.
    #[error("manifest verification failed for digest {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
    },
    /// A document that cannot be used.
    #[error("{0}")]
    Document(String),
    /// No image of an index fits.
    #[error("no matching manifest for {0} in the manifest list entries")]
    Platform(String),
    /// What was to be sent could not be read.
    #[error("{0}")]
    Source(String),
}

impl RegistryError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Unreachable { .. } => true,
            RegistryError::Refused { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            _ => false,
        }
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RegistryError::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether the registry does not let this user do it.
    pub fn is_denied(&self) -> bool {
        match self {
            RegistryError::Refused { status, .. } => {
                matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            }
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
