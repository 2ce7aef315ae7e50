//! Who a node is: the cluster's certificate authority, node certificates, join tokens, and their files.
//!
//! Names, lifetimes and formats are SwarmKit's (ca/certificates.go, ca/config.go), so that what reads a Docker
//! swarm's certificates and tokens reads these. TLS comes as configurations for
//! rustls. What is absent: a clock and a source of secrets for tokens (both are arguments), and networks, but for
//! asking an authority outside the cluster.

mod authority;
mod certificate;
mod error;
mod external;
mod files;
mod issuer;
mod key_file;
mod node;
mod root_key;
mod tls;
mod token;
mod trust;
mod unlock;

pub use authority::RootCa;
pub use certificate::{RootName, normalize, renewal_time, root_expiry};
pub use error::IdentityError;
pub use external::{ExternalCa, ExternalError, SignRequest};
pub use files::{Files, FilesError, Relock};
pub use issuer::Issuer;
pub use key_file::{DataKey, DataKeys};
pub use node::{Identity, NodeCertificate, NodeKey, Role, peer_identity};
pub use tls::{Credentials, handshake_failure, join_client_config, unverified_client_config};
pub use token::{JoinToken, ParseTokenError, SECRET_BYTES};
pub use trust::{Trust, verify_root};
pub use unlock::{ParseUnlockKeyError, UNLOCK_KEY_BYTES, UnlockKey};
