//! What can be wrong with certificates, keys and requests for them.

/// A certificate, key or request could not be made, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The cryptography failed.
    #[error("cannot {action}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// A text does not hold what it should: truncated, or something else altogether.
    #[error("{what} cannot be read")]
    Unreadable {
        /// Which text.
        what: &'static str,
    },
    /// A request for a certificate whose sender does not show that it has the key.
    #[error("the certificate request is not signed by its own key")]
    NoProofOfPossession,
    /// SwarmKit's words.
    #[error("certificate key mismatch")]
    KeyMismatch,
    /// The root that a manager told is not the one that the join token names. SwarmKit's words.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    WrongRoot {
        /// The digest in the token, hexadecimal.
        expected: String,
    },
    /// A certificate that names no node of a swarm.
    #[error("the certificate names no node of a swarm: {reason}")]
    NoNode {
        /// What is missing or wrong in it.
        reason: String,
    },
    /// A certificate that is not trusted, or not now.
    #[error("the certificate is not valid: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// A certificate cannot be an authority's.
    #[error("{reason}")]
    NoAuthority {
        /// Why, in SwarmKit's words where it has some.
        reason: &'static str,
    },
}

/// Names what failed.
pub(crate) fn failed(action: &'static str) -> impl FnOnce(rcgen::Error) -> IdentityError {
    move |source| IdentityError::Failed { action, source }
}
