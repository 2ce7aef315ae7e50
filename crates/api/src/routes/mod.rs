//! From a request to its handler: one file an area of the API.

mod build;
mod containers;
mod events;
mod exec;
mod images;
mod logs;
mod networks;
mod nodes;
mod registries;
mod rehearse;
mod secrets;
mod services;
mod skep;
mod swarm;
mod system;
mod tasks;
mod volumes;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SERVER, UPGRADE};
use hyper::{Method, Request, Response};

use crate::body::RequestBody;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, Body};
use crate::query::{PlusIs, Query, percent_decode};
use crate::version;

/// Answers one request. Every answer carries the headers by which clients negotiate.
pub async fn answer(context: &Context, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match route(context, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!("{method} {path}: {} {error}", error.status().as_u16());
            error.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static("1.50"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(SERVER, HeaderValue::from_static(concat!("Skep/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

async fn route(context: &Context, mut request: Request<Incoming>) -> Answer {
    let upgrade = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let (version, path) = version::split(head.uri.path())?;
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode(segment, PlusIs::Plus))
        .collect();
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let call = Call { version, query, headers: head.headers, body: RequestBody::new(body), upgrade };
    dispatch(context, &head.method, &path, call).await
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let names_upgrade = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.contains_key(UPGRADE) && headers.get_all(CONNECTION).iter().any(names_upgrade)
}

async fn dispatch(context: &Context, method: &Method, path: &[&str], call: Call) -> Answer {
    let Some((area, rest)) = path.split_first() else { return Err(unknown()) };
    let method = method.as_str();
    match *area {
        "containers" => containers::route(context, method, rest, call).await,
        "exec" => exec::route(context, method, rest, call).await,
        "images" | "build" | "commit" | "distribution" | "session" | "grpc" => {
            images::route(context, method, path, call).await
        }
        "volumes" => volumes::route(context, method, rest, call).await,
        "networks" => networks::route(context, method, rest, call).await,
        "swarm" => swarm::route(context, method, rest, call).await,
        "nodes" => nodes::route(context, method, rest, call).await,
        "services" => services::route(context, method, rest, call).await,
        "skep" => skep::route(context, method, rest, call).await,
        "tasks" => tasks::route(context, method, rest, call).await,
        "secrets" | "configs" | "plugins" => secrets::route(context, method, path, call).await,
        _ => system::route(context, method, path, call).await,
    }
}

/// A path that Docker's API does not have.
fn unknown() -> ApiError {
    ApiError::not_found("page not found")
}

/// A path that Docker's API has and Skep has not: 501, naming it.
fn not_built(method: &str, path: &str) -> Answer {
    Err(ApiError::not_built(format!("{method} {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_needs_both_headers() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| {
                    (hyper::header::HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect()
        };
        assert!(wants_upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "tcp")])));
        assert!(!wants_upgrade(&headers(&[("connection", "Upgrade")])));
        assert!(!wants_upgrade(&headers(&[("upgrade", "tcp")])));
    }
}
