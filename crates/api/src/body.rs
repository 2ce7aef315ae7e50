//! What clients send: JSON of bounded size, or bytes that are read no faster than they are used.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use http_body_util::{BodyExt, BodyStream, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Most bytes of a JSON body. Docker's largest are service specifications, some kilobytes.
pub const MAX_JSON_LEN: usize = 16 * 1024 * 1024;

/// Reads a JSON body; `None` when it is empty, which moby treats as all defaults.
///
/// Refuses, with moby's words: another content type (400), malformed JSON and wrong types (400, with the
/// position), content after the value (400), and more than [`MAX_JSON_LEN`] bytes (413).
pub async fn read_json<T, B>(headers: &HeaderMap, body: B) -> Result<Option<T>, ApiError>
where
    T: DeserializeOwned,
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    parse(&read_text(headers, body).await?)
}

/// Reads the text of a JSON body, for those who look at it more than once; see [`read_json`].
pub async fn read_text<B>(headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = collect(body, MAX_JSON_LEN).await?;
    if !bytes.is_empty() {
        check_content_type(headers)?;
    }
    Ok(bytes)
}

/// Parses the text of a JSON body; `None` when it is empty, or Go's `null`.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<Option<T>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(text).map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))
}

/// What is said where a body is needed and none came.
pub fn missing() -> ApiError {
    ApiError::invalid("invalid JSON: got EOF while reading request body")
}

/// As [`read_json`], for requests that need a body.
pub async fn require_json<T, B>(headers: &HeaderMap, body: B) -> Result<T, ApiError>
where
    T: DeserializeOwned,
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    read_json(headers, body).await?.ok_or_else(missing)
}

async fn collect<B>(body: B, limit: usize) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body is larger than {limit} bytes"),
        )
    };
    // A client that announces too much is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::invalid(format!("cannot read the request's body: {error}"))),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::invalid(format!("unsupported Content-Type header ({given}): must be 'application/json'")))
}

/// A request's body as it comes in. What nobody has read when it is dropped is still taken from the client, up to
/// [`MAX_JSON_LEN`] and for [`DRAIN_LIMIT`] at most: one that is cut off while it writes sees a broken pipe instead of the answer.
pub struct RequestBody(Option<Incoming>);

impl RequestBody {
    /// Must be dropped on the runtime.
    pub fn new(body: Incoming) -> RequestBody {
        RequestBody(Some(body))
    }
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !hyper::body::Body::is_end_stream(body)) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(drain(BodyStream::new(Limited::new(body, MAX_JSON_LEN))));
        }
    }
}

/// Takes what is left of a body and throws it away. Past the limit the client is cut off after all.
async fn drain<B: hyper::body::Body + Unpin>(mut stream: BodyStream<B>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(DRAIN_LIMIT, rest).await;
}

/// How long the rest of a body that was refused is still taken from a client.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// A request's body as a blocking reader, for code that unpacks archives on a thread of its own. The client
/// is read only as fast as the reader is.
///
/// What is left when the reader is dropped is read and thrown away, for [`DRAIN_LIMIT`] at most: a client that is
/// cut off amid its upload sees a broken pipe instead of the answer that says what was wrong.
pub struct BlockingReader<B: hyper::body::Body + Unpin + Send + 'static>
where
    B::Data: Send,
    B::Error: Send,
{
    runtime: tokio::runtime::Handle,
    /// `None` once it has ended or is drained.
    stream: Option<BodyStream<B>>,
    current: Bytes,
}

impl<B> BlockingReader<B>
where
    B: hyper::body::Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    /// Must be called on the runtime; the reader must then be used from outside it (`spawn_blocking`).
    pub fn new(body: B) -> Self {
        BlockingReader {
            runtime: tokio::runtime::Handle::current(),
            stream: Some(BodyStream::new(body)),
            current: Bytes::new(),
        }
    }
}

impl<B> Drop for BlockingReader<B>
where
    B: hyper::body::Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        self.runtime.spawn(drain(stream));
    }
}

impl<B> std::io::Read for BlockingReader<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while !self.current.has_remaining() {
            let Some(stream) = &mut self.stream else { return Ok(0) };
            match self.runtime.block_on(stream.next()) {
                None => {
                    self.stream = None;
                    return Ok(0);
                }
                Some(Err(error)) => {
                    self.stream = None;
                    return Err(std::io::Error::other(error));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.current = data;
                    }
                }
            }
        }
        let length = buffer.len().min(self.current.len());
        let (taken, _) = buffer.split_at_mut(length);
        self.current.copy_to_slice(taken);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::header::HeaderValue;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Sample {
        name: Option<String>,
    }

    async fn read(
        content_type: Option<&'static str>,
        body: &'static str,
    ) -> Result<Option<Sample>, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        read_json(&headers, Full::new(Bytes::from_static(body.as_bytes()))).await
    }

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[tokio::test]
    async fn good_bodies_are_read() {
        assert_eq!(
            read(JSON, r#"{"Name":"x","Unknown":[1]}"#).await,
            Ok(Some(Sample { name: Some("x".into()) }))
        );
        assert_eq!(read(None, "").await, Ok(None));
        assert_eq!(read(JSON, "null").await, Ok(None));
    }

    #[tokio::test]
    async fn hostile_bodies_are_refused_with_400() {
        for body in ["{", r#"{"Name":7}"#, r#"{"Name":"x"} trailing"#, "[]", "\u{0}", r#"{"Name":"\ud800"}"#]
        {
            let error = read(JSON, body).await.expect_err(body);
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{body}");
            assert!(error.to_string().starts_with("invalid JSON: "), "{error}");
        }
        let error = read(JSON, r#"{"Name":"#).await.expect_err("cut off");
        assert!(error.to_string().contains("line 1 column 8"), "{error}");
        let nested = "[".repeat(100_000).leak();
        assert!(read(JSON, nested).await.is_err());
    }

    #[tokio::test]
    async fn another_content_type_is_refused() {
        let error = read(Some("text/plain"), "{}").await.expect_err("not JSON");
        assert_eq!(
            error,
            ApiError::invalid("unsupported Content-Type header (text/plain): must be 'application/json'")
        );
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut_off() {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from_static(&[b' '; 65536])))
        });
        let body = http_body_util::StreamBody::new(endless);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let error = read_json::<Sample, _>(&headers, body).await.expect_err("too large");
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn the_blocking_reader_gives_the_whole_body() {
        let parts = ["one ", "", "two"].map(|part| {
            Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from_static(part.as_bytes())))
        });
        let mut reader =
            BlockingReader::new(http_body_util::StreamBody::new(futures_util::stream::iter(parts)));
        let text = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut reader)).await;
        assert_eq!(text.expect("the thread ends").expect("the body is read"), "one two");
    }
}
