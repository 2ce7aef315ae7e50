//! Tests against the real kernel, each in its own throw-away network namespaces. They need root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mesh;
mod overlay;
mod published6;
mod published_ports;
mod reconcile;
mod redirect;
mod sandboxes;
mod scene;
mod services;
mod several;
mod support;
