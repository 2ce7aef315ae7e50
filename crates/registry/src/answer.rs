//! What registries answer, good or bad.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};

use crate::RegistryError;
use crate::auth::Challenge;

/// Most bytes of a refusal that are read.
const ANSWER_LIMIT: usize = 256 * 1024;
/// The longest wait that a registry may ask for.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// What a refusal with 401 asks for.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let given = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let known: Vec<Challenge> = given.filter_map(Challenge::parse).collect();
    // As Docker: tokens rather than passwords.
    let bearer = known.iter().position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    known.into_iter().nth(bearer.unwrap_or(0))
}

pub(crate) fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Reads what nobody wants, so that the connection can be used again.
pub(crate) async fn drain(response: Response<Incoming>) {
    let rest = Limited::new(response.into_body(), ANSWER_LIMIT).collect();
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
}

/// Makes an error of a refusal.
pub(crate) async fn accept(response: Response<Incoming>) -> Result<Response<Incoming>, RegistryError> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    #[derive(serde::Deserialize)]
    struct Refusals {
        errors: Vec<Refusal>,
    }
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let seconds = text_of(response.headers(), &RETRY_AFTER).parse().ok().map(Duration::from_secs);
    let retry_after = seconds.map(|pause| pause.min(RETRY_AFTER_LIMIT));
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect();
    let bytes = match tokio::time::timeout(Duration::from_secs(5), body).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        _ => Bytes::new(),
    };
    let first =
        serde_json::from_slice::<Refusals>(&bytes).ok().and_then(|found| found.errors.into_iter().next());
    let (code, message) = match first {
        // As Go's errcode: the code in words, then the message.
        Some(Refusal { code, message }) => {
            let words = code.to_lowercase().replace('_', " ");
            (code, format!("{words}: {message}"))
        }
        None => match status {
            StatusCode::UNAUTHORIZED => (String::new(), "unauthorized: authentication required".to_owned()),
            StatusCode::TOO_MANY_REQUESTS => (String::new(), "toomanyrequests: too many requests".to_owned()),
            _ => (String::new(), format!("received unexpected HTTP status: {status}")),
        },
    };
    Err(RegistryError::Refused { status, code, message, retry_after })
}

/// A request as Go's client names it: `Get "https://host/v2/"`.
pub(crate) fn go_request(method: &Method, address: &str) -> String {
    let name = method.as_str();
    let (first, rest) = name.split_at(name.len().min(1));
    // Secrets may be in the query.
    let address = address.split('?').next().unwrap_or_default();
    format!("{first}{} {address:?}", rest.to_lowercase())
}
