//! What lets requests in: passwords, and tokens that are fetched for them.

use hyper::Method;
use hyper::header::CONTENT_TYPE;

use super::{Ask, Session, Unreachable, lock};
use crate::RegistryError;
use crate::answer::{accept, go_request};
use crate::auth::{Challenge, Token, escape};
use crate::client::Access;
use crate::credentials::Credentials;

/// Most bytes of a token that are read.
const TOKEN_LIMIT: usize = 256 * 1024;
/// The user name by which clients say that the password is an identity token.
const TOKEN_USER: &str = "<token>";

impl Session {
    pub(crate) async fn login(&self) -> Result<String, RegistryError> {
        let found = lock(&self.inner.challenge).clone();
        if let Some(Challenge::Bearer { realm, service, .. }) = found {
            let token = self.fetch_token(&realm, &service, "", true).await?;
            return Ok(token.refresh_token);
        }
        let address = format!("{}/v2/", self.inner.endpoint.base());
        match self.try_ask(Ask::new(Method::GET, address.clone())).await? {
            response if response.status().is_success() => Ok(String::new()),
            // In dockerd's words.
            response => Err(RegistryError::Refused {
                status: response.status(),
                code: String::new(),
                message: format!("login attempt to {address} failed with status: {}", response.status()),
                retry_after: None,
            }),
        }
    }

    /// Also asks for leave to read another repository of this registry.
    pub(crate) fn also_read(&self, path: &str) {
        let mut also = lock(&self.inner.also);
        if !also.iter().any(|known| known == path) {
            also.push(path.to_owned());
            drop(also);
            // What was given before does not hold for it.
            if matches!(*lock(&self.inner.challenge), Some(Challenge::Bearer { .. })) {
                *lock(&self.inner.authorization) = None;
            }
        }
    }

    /// What lets a request in, if anything is asked for.
    pub(super) async fn authorization(&self, ask: &Ask, anew: bool) -> Result<Option<String>, RegistryError> {
        let known = lock(&self.inner.authorization).clone();
        if !anew && known.is_some() {
            return Ok(known);
        }
        let Some(challenge) = lock(&self.inner.challenge).clone() else { return Ok(None) };
        let credentials = self.inner.credentials.as_ref();
        let registry_token =
            credentials.map(|found| found.registry_token.as_str()).filter(|token| !token.is_empty());
        let value = match challenge {
            _ if registry_token.is_some() => format!("Bearer {}", registry_token.unwrap_or_default()),
            Challenge::Basic => credentials.and_then(Credentials::basic).ok_or_else(|| {
                RegistryError::NoCredentials { request: go_request(&ask.method, &ask.address) }
            })?,
            Challenge::Bearer { realm, service, scope } => {
                let scopes = if self.inner.path.is_empty() { scope } else { self.scopes() };
                let token = self.fetch_token(&realm, &service, &scopes, false).await?;
                let text = token.text().ok_or_else(|| {
                    RegistryError::Document(
                        "authorization server did not include a token in the response".to_owned(),
                    )
                })?;
                format!("Bearer {text}")
            }
        };
        *lock(&self.inner.authorization) = Some(value.clone());
        Ok(Some(value))
    }

    fn scopes(&self) -> String {
        let actions = match self.inner.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.inner.path);
        let also = lock(&self.inner.also);
        let others = also.iter().map(|path| format!("repository:{path}:pull"));
        std::iter::once(own).chain(others).collect::<Vec<_>>().join(" ")
    }

    /// Gets a token. As Docker: by POST where there is an identity token, by GET else.
    async fn fetch_token(
        &self,
        realm: &str,
        service: &str,
        scopes: &str,
        offline: bool,
    ) -> Result<Token, RegistryError> {
        let credentials = self.inner.credentials.as_ref().filter(|found| !found.is_empty());
        let endpoint = &self.inner.endpoint;
        if endpoint.tls && endpoint.verify && !realm.starts_with("https://") && credentials.is_some() {
            return Err(RegistryError::Document(format!("{realm}: credentials are not sent there in clear")));
        }
        let identity = credentials.and_then(|found| {
            let by_name = (found.username == TOKEN_USER).then_some(&found.password);
            Some(&found.identity_token).filter(|token| !token.is_empty()).or(by_name)
        });
        let (ask, authorization) = match identity {
            Some(identity) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=docker&service={}&scope={}&refresh_token={}",
                    escape(service),
                    escape(scopes),
                    escape(identity)
                );
                let ask = Ask::new(Method::POST, realm.to_owned())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.into());
                (ask, None)
            }
            None => {
                let mut query = vec![format!("service={}", escape(service))];
                query.extend(
                    scopes
                        .split(' ')
                        .filter(|scope| !scope.is_empty())
                        .map(|scope| format!("scope={}", escape(scope))),
                );
                if let Some(found) = credentials {
                    query.push(format!("account={}", escape(&found.username)));
                }
                if offline {
                    query.push("offline_token=true&client_id=docker".to_owned());
                }
                let sign = if realm.contains('?') { '&' } else { '?' };
                let ask = Ask::new(Method::GET, format!("{realm}{sign}{}", query.join("&")));
                (ask, credentials.and_then(Credentials::basic))
            }
        };
        let mut attempts = self.attempts(Unreachable::IsTriedAgain);
        let bytes = loop {
            let answer = match self.send_once(&ask, authorization.as_deref()).await {
                Ok(response) => accept(response).await,
                Err(error) => Err(error),
            };
            let read = match answer {
                Ok(response) => self.read(response, TOKEN_LIMIT, realm).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(bytes) => break bytes,
                Err(error) => attempts.again(error).await?,
            }
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            RegistryError::Document(format!("{realm}: unable to decode token response: {error}"))
        })
    }
}
