//! Registries of images, as their client: the OCI distribution protocol, which Docker's registries speak.
//!
//! Invariants:
//! - What is asked for by digest is compared with it: a manifest here, a layer by whoever unpacks it.
//! - Memory does not grow with a layer: it streams, both ways, no faster than the slower side.
//! - Credentials go to the registry that they are for, and to the server of tokens that it names; never to where a
//!   registry redirects.
//! - A registry is spoken to in clear only where Docker would: on loopback, or where the user listed it as insecure.
//! - Nothing here knows of images' contents or touches the disk, but for certificates.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod answer;
mod auth;
mod client;
mod connection;
mod credentials;
mod digest;
mod download;
mod endpoint;
mod error;
mod manifest;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod upload;
mod web;

pub use client::{Access, Client, Repository};
pub use credentials::{Credentials, ParseCredentialsError};
pub use digest::Digest;
pub use download::BlobReader;
pub use endpoint::{Insecure, Settings};
pub use error::RegistryError;
pub use manifest::{Descriptor, Document, Fetched, IndexEntry, Manifest, Platform, docker_manifest, media};
pub use session::Session;
pub use upload::{Mounted, Uploaded};
pub use web::WebFile;
