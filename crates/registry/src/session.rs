//! Talking to one repository of one registry.

mod authorize;
mod documents;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, LOCATION};
use hyper::{Method, Request, Response, StatusCode};

use crate::RegistryError;
use crate::answer::{accept, challenge, drain, go_request, text_of};
use crate::auth::Challenge;
use crate::client::{Access, Client, Repository};
use crate::connection::{Body, Payload, Server};
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Settings};

/// How often a request may be sent elsewhere.
const REDIRECT_LIMIT: usize = 5;

/// One repository at one address. Clones share what it was let in with.
#[derive(Clone)]
pub struct Session {
    pub(crate) client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    path: String,
    access: Access,
    credentials: Option<Credentials>,
    challenge: Mutex<Option<Challenge>>,
    /// The value of the header `Authorization`.
    authorization: Mutex<Option<String>>,
    /// Repositories that blobs are mounted from.
    also: Mutex<Vec<String>>,
}

/// A request that can be sent again, and elsewhere.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) address: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn new(method: Method, address: String) -> Ask {
        Ask { method, address, headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Ask {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Bytes) -> Ask {
        self.body = body;
        self
    }
}

impl Session {
    /// Asks whether the registry is there, and who it lets in.
    pub(crate) async fn open(
        client: &Client,
        endpoint: Endpoint,
        repository: &Repository,
        access: Access,
        credentials: Option<&Credentials>,
    ) -> Result<Session, RegistryError> {
        let inner = Inner {
            endpoint,
            path: repository.path.clone(),
            access,
            credentials: credentials.cloned(),
            challenge: Mutex::default(),
            authorization: Mutex::default(),
            also: Mutex::default(),
        };
        let session = Session { client: client.clone(), inner: Arc::new(inner) };
        session.ping().await?;
        Ok(session)
    }

    /// The address of something in this repository.
    pub(crate) fn address(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.inner.endpoint.base(), self.inner.path)
    }

    /// Whether the registry is there, and what it wants to know of clients.
    async fn ping(&self) -> Result<(), RegistryError> {
        let address = format!("{}/v2/", self.inner.endpoint.base());
        let mut attempts = self.attempts(Unreachable::IsFinal);
        loop {
            match self.ping_once(&address).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn ping_once(&self, address: &str) -> Result<(), RegistryError> {
        let response = self.send_once(&Ask::new(Method::GET, address.to_owned()), None).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            *lock(&self.inner.challenge) = challenge(response.headers());
            drain(response).await;
            return Ok(());
        }
        drain(accept(response).await?).await;
        Ok(())
    }

    /// Counts the attempts at one thing.
    pub(crate) fn attempts(&self, unreachable: Unreachable) -> Attempts<'_> {
        Attempts { settings: &self.client.settings, unreachable, done: 0 }
    }

    /// Sends a request with what lets it in, follows where it is sent, and refuses refusals.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Response<Incoming>, RegistryError> {
        accept(self.try_ask(ask).await?).await
    }

    /// As [`Session::ask`]; refusals are answers too.
    pub(crate) async fn try_ask(&self, mut ask: Ask) -> Result<Response<Incoming>, RegistryError> {
        let mut tried_anew = false;
        for _ in 0..=REDIRECT_LIMIT {
            let authorization =
                if self.is_own(&ask.address) { self.authorization(&ask, false).await? } else { None };
            let response = self.send_once(&ask, authorization.as_deref()).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && self.is_own(&ask.address) && !tried_anew {
                // A token has run out, or says too little.
                if let Some(challenge) = challenge(response.headers()) {
                    *lock(&self.inner.challenge) = Some(challenge);
                }
                drain(response).await;
                self.authorization(&ask, true).await?;
                tried_anew = true;
                continue;
            }
            let is_read = ask.method == Method::GET || ask.method == Method::HEAD;
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED || !is_read {
                return Ok(response);
            }
            let location = text_of(response.headers(), &LOCATION);
            drain(response).await;
            ask.address = self.absolute(&ask.address, &location)?;
        }
        Err(RegistryError::Unreachable {
            request: go_request(&ask.method, &ask.address),
            problem: format!("stopped after {REDIRECT_LIMIT} redirects"),
        })
    }

    /// Sends a body that cannot be sent twice.
    pub(crate) async fn send_stream(
        &self,
        ask: Ask,
        body: Body,
        limit: Duration,
    ) -> Result<Response<Incoming>, RegistryError> {
        let authorization =
            if self.is_own(&ask.address) { self.authorization(&ask, false).await? } else { None };
        accept(self.send(&ask, authorization.as_deref(), Payload::Stream(body), limit).await?).await
    }

    async fn send_once(
        &self,
        ask: &Ask,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let payload = Payload::Bytes(ask.body.clone());
        self.send(ask, authorization, payload, self.client.settings.patience).await
    }

    async fn send(
        &self,
        ask: &Ask,
        authorization: Option<&str>,
        payload: Payload,
        limit: Duration,
    ) -> Result<Response<Incoming>, RegistryError> {
        let failed = |problem: String| RegistryError::Unreachable {
            request: go_request(&ask.method, &ask.address),
            problem,
        };
        let (server, path) =
            self.server(&ask.address).ok_or_else(|| failed("unsupported protocol scheme".to_owned()))?;
        let mut request = Request::builder().method(ask.method.clone()).uri(path);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(()).map_err(|error| failed(error.to_string()))?;
        self.client.connections.send(&server, request, payload, limit).await.map_err(failed)
    }

    /// The server of an address, and the path there.
    fn server(&self, address: &str) -> Option<(Server, String)> {
        let (tls, rest) = match (address.strip_prefix("https://"), address.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let endpoint = &self.inner.endpoint;
        let verify = endpoint.verify || authority != endpoint.authority;
        // A name and a password in an address are nobody's here.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        (!authority.is_empty()).then(|| (Server { tls, verify, authority: authority.to_owned() }, path))
    }

    /// Whether an address is one of this registry, which gets the credentials.
    fn is_own(&self, address: &str) -> bool {
        let endpoint = &self.inner.endpoint;
        self.server(address)
            .is_some_and(|(server, _)| server.tls == endpoint.tls && server.authority == endpoint.authority)
    }

    /// Where `location` leads from `from`.
    pub(crate) fn absolute(&self, from: &str, location: &str) -> Result<String, RegistryError> {
        if location.starts_with("http://") || location.starts_with("https://") {
            return Ok(location.to_owned());
        }
        let (scheme, rest) = from.split_once("://").unwrap_or(("https", from));
        let authority = rest.split('/').next().unwrap_or_default();
        match location.strip_prefix('/') {
            Some(path) => Ok(format!("{scheme}://{authority}/{path}")),
            None => Err(RegistryError::Document(format!(
                "{from}: the answer's Location {location:?} leads nowhere"
            ))),
        }
    }
}

/// Attempts at one thing.
pub(crate) struct Attempts<'a> {
    settings: &'a Settings,
    unreachable: Unreachable,
    done: u32,
}

impl Attempts<'_> {
    /// Waits before another attempt, which may go well.
    ///
    /// # Errors
    /// `error` itself, if there is no point in that.
    pub(crate) async fn again(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.done += 1;
        let is_unreachable = matches!(error, RegistryError::Unreachable { .. });
        let is_final = is_unreachable && self.unreachable == Unreachable::IsFinal;
        if is_final || !error.is_transient() || self.done >= self.settings.attempts {
            return Err(error);
        }
        let pause =
            error.retry_after().unwrap_or_else(|| self.settings.pause * (1 << (self.done - 1).min(6)));
        tracing::debug!("{error}: trying again in {} ms", pause.as_millis());
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether a server that cannot be reached is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Nobody knows yet whether it is there at all.
    IsFinal,
    /// It was there a moment ago.
    IsTriedAgain,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
