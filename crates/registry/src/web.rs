//! Files at addresses, as `ADD` fetches them: no registries, but the same connections.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, LAST_MODIFIED, LOCATION};
use hyper::{Method, Request, Response, Uri};

use crate::answer::{go_request, text_of};
use crate::connection::{Payload, Server};
use crate::{Client, RegistryError};

/// Most redirections that are followed. Go's.
const REDIRECT_LIMIT: usize = 10;
/// Most bytes of a refusal that are told.
const REFUSAL_LIMIT: usize = 1024;

/// A file on its way here.
#[derive(Debug)]
pub struct WebFile {
    /// What it is called, by its address or by the server; empty if neither says.
    pub name: String,
    /// How many bytes are announced.
    pub length: Option<u64>,
    /// When it was changed last, if the server says.
    pub modified: Option<SystemTime>,
    body: Incoming,
    request: String,
    patience: Duration,
}

impl Client {
    /// Begins to fetch the file at `address`, which is `http://` or `https://`. Follows redirections.
    ///
    /// # Errors
    /// In the words of Go's client and of moby's `GetWithStatusError`.
    pub async fn file(&self, address: &str) -> Result<WebFile, RegistryError> {
        let mut at = address.split('#').next().unwrap_or_default().to_owned();
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.get(&at).await?;
            let status = response.status();
            let location = text_of(response.headers(), &LOCATION);
            if status.is_redirection() && !location.is_empty() {
                at = follow(&at, &location);
                continue;
            }
            if status.as_u16() >= 400 {
                return Err(self.refusal(address, response).await);
            }
            return Ok(self.found(address, &at, response));
        }
        let problem = format!("stopped after {REDIRECT_LIMIT} redirects");
        Err(RegistryError::Unreachable { request: go_request(&Method::GET, address), problem })
    }

    async fn get(&self, address: &str) -> Result<Response<Incoming>, RegistryError> {
        let failed = |problem: String| RegistryError::Unreachable {
            request: go_request(&Method::GET, address),
            problem,
        };
        let uri: Uri = address.parse().map_err(|error| failed(format!("invalid address: {error}")))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            scheme => {
                return Err(failed(format!("unsupported protocol scheme {:?}", scheme.unwrap_or_default())));
            }
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return Err(failed("a host without a user's name is needed".to_owned()));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).body(()).map_err(|error| failed(error.to_string()))?;
        let server = Server { tls, verify: true, authority };
        let sent =
            self.connections.send(&server, request, Payload::Bytes(Bytes::new()), self.settings.patience);
        sent.await.map_err(failed)
    }

    fn found(&self, address: &str, at: &str, response: Response<Incoming>) -> WebFile {
        let headers = response.headers();
        let disposition = text_of(headers, &CONTENT_DISPOSITION);
        let name = name_of(address).or_else(|| disposed(&disposition)).unwrap_or_default();
        WebFile {
            name,
            length: text_of(headers, &CONTENT_LENGTH).parse().ok(),
            modified: httpdate::parse_http_date(&text_of(headers, &LAST_MODIFIED)).ok(),
            request: go_request(&Method::GET, at),
            patience: self.settings.patience,
            body: response.into_body(),
        }
    }

    async fn refusal(&self, address: &str, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let reading = http_body_util::Limited::new(response.into_body(), REFUSAL_LIMIT).collect();
        let said = match tokio::time::timeout(self.settings.patience, reading).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            _ => String::new(),
        };
        let message = format!("failed to GET {address} with status {status}: {said}");
        RegistryError::Refused { status, code: String::new(), message, retry_after: None }
    }
}

impl WebFile {
    /// The next piece of it; `None` at its end.
    ///
    /// # Errors
    /// It breaks off, or nothing comes for long.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let failed = |problem: &str| RegistryError::Unreachable {
            request: self.request.clone(),
            problem: problem.to_owned(),
        };
        loop {
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            match frame.map_err(|_| failed("timeout awaiting the body"))? {
                None => return Ok(None),
                Some(Err(_)) => return Err(failed("unexpected EOF")),
                // Trailers say nothing of interest.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// Where `location` leads from `from`.
fn follow(from: &str, location: &str) -> String {
    let (scheme, rest) = from.split_once("://").unwrap_or(("http", from));
    let bare = rest.split('?').next().unwrap_or_default();
    if location.contains("://") {
        location.to_owned()
    } else if let Some(other) = location.strip_prefix("//") {
        format!("{scheme}://{other}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", bare.split('/').next().unwrap_or_default())
    } else {
        let folder = bare.rsplit_once('/').map_or(bare, |(folder, _)| folder);
        format!("{scheme}://{folder}/{location}")
    }
}

/// The last part of an address's path, as moby's `getFilenameForDownload`.
fn name_of(address: &str) -> Option<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default().split_once('/')?.1;
    last(&decoded(path))
}

/// The name in a `Content-Disposition`.
fn disposed(header: &str) -> Option<String> {
    let parameter = header.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("filename").then(|| value.trim().trim_matches('"').to_owned())
    });
    last(&parameter?)
}

/// The last part of a path, if it is the name of a file.
fn last(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    (!matches!(name, "" | "." | "..") && !name.contains('\0')).then(|| name.to_owned())
}

/// With `%41` as `A`.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        let escaped = (*first == b'%').then(|| rest.get(..2)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        left = if value.is_some() { &rest[2..] } else { rest };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_by_moby() {
        for (address, name) in [
            ("http://host/a/b.tar?x=y/z#w", Some("b.tar")),
            ("http://host/a%20b%2", Some("a b%2")),
            ("http://host/a%2Fb", Some("b")),
            ("http://host/a/", None),
            ("http://host/..", None),
            ("http://host", None),
        ] {
            assert_eq!(name_of(address).as_deref(), name, "{address}");
        }
        assert_eq!(disposed("attachment; filename=\"x/y.txt\"").as_deref(), Some("y.txt"));
        assert_eq!(disposed("attachment"), None);
    }

    #[test]
    fn redirections_lead_from_where_they_are() {
        let from = "https://host:1/a/b?c=/d";
        assert_eq!(follow(from, "http://x/y"), "http://x/y");
        assert_eq!(follow(from, "//x/y"), "https://x/y");
        assert_eq!(follow(from, "/y"), "https://host:1/y");
        assert_eq!(follow(from, "y"), "https://host:1/a/y");
    }
}
