//! Failed calls as gRPC carries them: the whole [`CallError`] in the details, and a code for other programs.

use bytes::Bytes;
use tonic::{Code, Status};

use super::CallError;
use crate::{SwarmError, codec};

/// Longest text beside the details: it travels in a header.
const TEXT_LIMIT: usize = 256;
/// Longest text of a refusal. What is longer would not fit the headers that a peer takes.
const REFUSAL_LIMIT: usize = 4096;

fn code(error: &CallError) -> Code {
    match error {
        CallError::NotLeader { .. } | CallError::Version(_) => Code::FailedPrecondition,
        CallError::Unauthenticated(_) => Code::Unauthenticated,
        CallError::Denied(_) => Code::PermissionDenied,
        CallError::Unreachable(_) => Code::Unavailable,
        CallError::Lost(_) => Code::Unknown,
        CallError::Refused(refusal) => match refusal {
            SwarmError::NotFound(_) => Code::NotFound,
            SwarmError::Conflict(_) => Code::AlreadyExists,
            SwarmError::InvalidParameter(_) => Code::InvalidArgument,
            SwarmError::Unauthorized(_) => Code::Unauthenticated,
            SwarmError::Unavailable(_) => Code::Unavailable,
            SwarmError::Unsupported(_) => Code::Unimplemented,
            SwarmError::Internal(_) => Code::Internal,
        },
    }
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// A refusal whose text fits into headers.
fn fitting(error: CallError) -> CallError {
    let text = error.to_string();
    if text.len() <= REFUSAL_LIMIT {
        return error;
    }
    let text = cut(&text, REFUSAL_LIMIT / 4);
    match error {
        CallError::NotLeader { .. } => CallError::NotLeader { leader: None },
        CallError::Unauthenticated(_) => CallError::Unauthenticated(text),
        CallError::Denied(_) => CallError::Denied(text),
        CallError::Version(_) => CallError::Version(text),
        CallError::Unreachable(_) => CallError::Unreachable(text),
        CallError::Lost(_) => CallError::Lost(text),
        CallError::Refused(refusal) => CallError::Refused(match refusal {
            SwarmError::NotFound(_) => SwarmError::NotFound(text),
            SwarmError::Conflict(_) => SwarmError::Conflict(text),
            SwarmError::InvalidParameter(_) => SwarmError::InvalidParameter(text),
            SwarmError::Unauthorized(_) => SwarmError::Unauthorized(text),
            SwarmError::Unavailable(_) => SwarmError::Unavailable(text),
            SwarmError::Unsupported(_) => SwarmError::Unsupported(text),
            SwarmError::Internal(_) => SwarmError::Internal(text),
        }),
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Status {
        let error = fitting(error);
        let text = cut(&error.to_string(), TEXT_LIMIT);
        Status::with_details(code(&error), text, Bytes::from(codec::encode(&error)))
    }
}

/// What the answerer said; `None` when the status does not come from there but from the connection.
pub(super) fn answered(status: &Status) -> Option<CallError> {
    if !status.details().is_empty()
        && let Ok(error) = codec::decode(status.details())
    {
        return Some(error);
    }
    let text = status.message().to_owned();
    match status.code() {
        // tonic's own words, on either side: a message beyond its limit, and a call that the answerer does not know.
        Code::OutOfRange | Code::ResourceExhausted => {
            Some(CallError::Refused(SwarmError::InvalidParameter(text)))
        }
        Code::Unimplemented => {
            Some(CallError::Version("version too old: it does not know this call".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was() {
        let errors = [
            CallError::NotLeader { leader: Some("192.0.2.1:2377".to_owned()) },
            CallError::NotLeader { leader: None },
            CallError::Unauthenticated("who?".to_owned()),
            CallError::Denied("no".to_owned()),
            CallError::Refused(SwarmError::Conflict("name taken".to_owned())),
            CallError::Refused(SwarmError::NotFound("ünïcode".to_owned())),
            CallError::Version("version too old".to_owned()),
            CallError::Lost("gone".to_owned()),
        ];
        for error in errors {
            assert_eq!(answered(&Status::from(error.clone())), Some(error));
        }
    }

    #[test]
    fn a_refusal_too_long_for_a_header_is_cut() {
        let long = CallError::Refused(SwarmError::InvalidParameter("ü".repeat(100_000)));
        let status = Status::from(long);
        assert!(status.details().len() < 8192, "{}", status.details().len());
        assert!(matches!(answered(&status), Some(CallError::Refused(SwarmError::InvalidParameter(_)))));
    }
}
