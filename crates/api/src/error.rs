//! The one place where a refusal becomes an HTTP answer: `{"message": ...}` with the right status.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use skep_engine::ErrorKind;
use skep_swarm::SwarmError;

use crate::http::{Body, full, json};

/// Why a request was refused, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// Whether another machine is to blame.
    remote: bool,
}

impl ApiError {
    /// An answer of `status` with `message`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), remote: false }
    }

    /// 400: the request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403: this may not be done.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: what the request names does not exist.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 409: the state of things does not allow it.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 501: `what` is part of Docker's API, and Skep cannot do it yet.
    pub fn not_built(what: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not built yet"))
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        // 501 and 503 are answers about the request; only 500 is news for whoever runs the daemon, if it is about that.
        if self.status == StatusCode::INTERNAL_SERVER_ERROR && !self.remote {
            tracing::error!("a request failed: {}", self.message);
        }
        if self.status == StatusCode::NOT_MODIFIED {
            // The one refusal that has no body.
            let mut response = Response::new(full(Bytes::new()));
            *response.status_mut() = self.status;
            return response;
        }
        json(self.status, &serde_json::json!({ "message": self.message }))
    }
}

impl From<skep_engine::Error> for ApiError {
    fn from(error: skep_engine::Error) -> ApiError {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Remote | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError { status, message: error.message, remote: error.kind == ErrorKind::Remote }
    }
}

impl From<SwarmError> for ApiError {
    fn from(error: SwarmError) -> ApiError {
        let status = match error {
            SwarmError::NotFound(_) => StatusCode::NOT_FOUND,
            SwarmError::Conflict(_) => StatusCode::CONFLICT,
            SwarmError::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            SwarmError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            SwarmError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            SwarmError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            SwarmError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}
