//! Who a node is: the cluster's certificate authority, node certificates, join tokens, and their files.
//!
//! Names, lifetimes and formats are SwarmKit's (ca/certificates.go, ca/config.go), so that what reads a Docker
//! swarm's certificates and tokens reads these. What is absent: a clock and a source of secrets for tokens (both
//! are arguments), TLS, and networks.

mod authority;
mod files;
mod issuer;
mod token;

pub use authority::{IdentityError, NodeCertificate, Role, RootCa};
pub use files::{Files, FilesError};
pub use issuer::Issuer;
pub use token::{JoinToken, ParseTokenError, SECRET_BYTES};
