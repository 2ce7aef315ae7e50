//! What every handler can reach.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use hyper::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use skep_engine::Engine;
use skep_swarm::Swarm;

use crate::body::{self, RequestBody};
use crate::error::ApiError;
use crate::query::Query;
use crate::version::Version;

/// What a daemon tells of itself.
#[derive(Debug)]
pub struct Daemon {
    /// Skep's version, `0.1.0`.
    pub version: &'static str,
    /// The commit it was built from; empty when unknown.
    pub commit: &'static str,
    /// The data folder.
    pub data_root: PathBuf,
    settings: RwLock<Settings>,
}

/// The part of a daemon's settings that a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--label`s, `key=value`.
    pub labels: Vec<String>,
    /// `--debug`
    pub debug: bool,
}

impl Daemon {
    /// A daemon with the settings it started with.
    pub fn new(
        version: &'static str,
        commit: &'static str,
        data_root: PathBuf,
        settings: Settings,
    ) -> Daemon {
        Daemon { version, commit, data_root, settings: RwLock::new(settings) }
    }

    /// The settings now.
    pub fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the settings, on SIGHUP.
    pub fn reload(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

/// What every handler can reach.
pub struct Context {
    /// This machine.
    pub engine: Engine,
    /// The cluster.
    pub swarm: Swarm,
    /// The daemon.
    pub daemon: std::sync::Arc<Daemon>,
}

/// One request, its method and path already looked at.
pub struct Call {
    /// The API version that the client speaks.
    pub version: Version,
    /// Parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, unread.
    pub body: RequestBody,
    /// The connection itself, where the client offered to give up HTTP on it.
    pub upgrade: Option<OnUpgrade>,
}

impl Call {
    /// The JSON body; all defaults where there is none.
    pub async fn json_or_default<T: DeserializeOwned + Default>(self) -> Result<T, ApiError> {
        Ok(body::read_json(&self.headers, self.body).await?.unwrap_or_default())
    }

    /// The JSON body, which must be there.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        body::require_json(&self.headers, self.body).await
    }
}
