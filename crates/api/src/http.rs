//! Answers: bodies, their kinds, and the helpers that make them.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;

/// The body of an answer, whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a handler gives: an answer, or a refusal that becomes one.
pub type Answer = Result<Response<Body>, ApiError>;

/// A body that is known in full.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose parts are made only as fast as the client reads them.
pub fn streamed(parts: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    StreamBody::new(parts.map(|part| Ok(Frame::data(part)))).boxed_unsync()
}

/// As [`streamed`]; at an error the connection is cut, so that the client does not take a part for the whole.
pub fn streamed_or_cut(parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    StreamBody::new(parts.map(|part| part.map(Frame::data))).boxed_unsync()
}

/// An answer of `status` whose body is `value` in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut bytes = match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            return with_type(StatusCode::INTERNAL_SERVER_ERROR, "application/json", full("{}\n"));
        }
    };
    // Go's encoder ends every value with a newline, and people read these answers with curl.
    bytes.push(b'\n');
    with_type(status, "application/json", full(bytes))
}

/// 200 with `value`.
pub fn ok(value: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, value))
}

/// 201 with `value`.
pub fn created(value: &impl Serialize) -> Answer {
    Ok(json(StatusCode::CREATED, value))
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    Ok(response)
}

/// 204.
pub fn no_content() -> Answer {
    empty(StatusCode::NO_CONTENT)
}

/// An answer whose body is of the given media type.
pub fn with_type(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
