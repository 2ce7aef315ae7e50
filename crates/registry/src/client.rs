//! From the name of a repository to an address that answers.

use std::sync::Arc;

use crate::connection::Connections;
use crate::endpoint::{Settings, endpoints};
use crate::{Credentials, Fetched, RegistryError, Session};

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its registry: `docker.io`, or `host:port`.
    pub registry: String,
    /// Its name there, such as `library/busybox`.
    pub path: String,
}

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A client of registries. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) settings: Arc<Settings>,
    pub(crate) connections: Arc<Connections>,
}

impl Client {
    /// A client with these settings.
    pub fn new(settings: Settings) -> Client {
        let settings = Arc::new(settings);
        Client { connections: Arc::new(Connections::new(Arc::clone(&settings))), settings }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Finds what `target`, a tag or a digest, names in a repository, at the first address that has it: mirrors are
    /// asked before Docker's own registry.
    ///
    /// # Errors
    /// What the last address said.
    pub async fn resolve(
        &self,
        repository: &Repository,
        target: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(Session, Fetched), RegistryError> {
        let endpoints = endpoints(&self.settings, &repository.registry, true).await?;
        let mut failure = None;
        let mut answered: Option<String> = None;
        for endpoint in endpoints {
            // What answers by TLS is not asked in clear too.
            if answered.as_ref() == Some(&endpoint.authority) {
                continue;
            }
            let authority = endpoint.authority.clone();
            // A mirror is not who the credentials are for.
            let credentials = credentials.filter(|_| !endpoint.mirror);
            let session = match Session::open(self, endpoint, repository, Access::Pull, credentials).await {
                Ok(session) => session,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            answered = Some(authority);
            match session.manifest(target).await {
                Ok(fetched) => return Ok((session, fetched)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("there is at least one address"))
    }

    /// All tags of a repository, at the first address that tells them.
    ///
    /// # Errors
    /// What the last address said.
    pub async fn tags(
        &self,
        repository: &Repository,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<String>, RegistryError> {
        self.open(repository, Access::Pull, credentials).await?.tags().await
    }

    /// Opens a repository at the first address that answers; no mirror.
    ///
    /// # Errors
    /// What the last address said.
    pub async fn open(
        &self,
        repository: &Repository,
        access: Access,
        credentials: Option<&Credentials>,
    ) -> Result<Session, RegistryError> {
        let mut failure = None;
        for endpoint in endpoints(&self.settings, &repository.registry, false).await? {
            match Session::open(self, endpoint, repository, access, credentials).await {
                Ok(session) => return Ok(session),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("there is at least one address"))
    }

    /// Asks a registry whether these credentials are good; the identity token that it gives for them, or nothing.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] with 401 if they are not.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<String, RegistryError> {
        let repository = Repository { registry: registry.to_owned(), path: String::new() };
        let session = self.open(&repository, Access::Pull, Some(credentials)).await?;
        session.login().await
    }
}
