//! What is asked of a build, and what it tells.

use std::collections::BTreeMap;

use skep_images::{ImageId, Reference};
use skep_types::container::HostConfig;

use crate::images::{Credentials, Platform, Step};

/// What is asked of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The Dockerfile's path in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    /// Names for what is built.
    pub tags: Vec<Reference>,
    /// Values of ARGs; `None` is what the client has no value for.
    pub args: BTreeMap<String, Option<String>>,
    /// Labels of what is built.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop after, by name or number; empty is the last.
    pub target: String,
    /// `os/architecture`; empty is this machine's.
    pub platform: String,
    /// Whether to ask registries for newer bases.
    pub pull: bool,
    /// The same platform for registries; `None` is this machine's.
    pub pull_platform: Option<Platform>,
    /// Who asks registries, by their names.
    pub credentials: BTreeMap<String, Credentials>,
    /// Whether to do everything anew.
    pub no_cache: bool,
    /// Whether containers of steps stay.
    pub keep_containers: bool,
    /// Whether those of failed steps go too.
    pub force_remove: bool,
    /// How the containers of RUN are served.
    pub host: HostConfig,
}

/// What a build tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildMessage {
    /// Text for the user.
    Text(String),
    /// What a container wrote to standard error.
    Stderr(String),
    /// What a registry's image is on its way through.
    Pulling(Step),
    /// A stage has ended with this image.
    Image(ImageId),
    /// It has ended well: what was built.
    Built(ImageId),
    /// It failed.
    Failed {
        /// Why.
        error: crate::Error,
        /// The exit code of the container that did not end well.
        code: Option<i32>,
    },
}
