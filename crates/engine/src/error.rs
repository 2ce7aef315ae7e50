//! What the engine refuses, and with which words.

/// What kind of refusal an [`Error`] is: the API's status code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named object does not exist (404).
    NotFound,
    /// The object's state forbids it (409).
    Conflict,
    /// The request is wrong (400).
    InvalidParameter,
    /// Already so (304).
    NotModified,
    /// Not built, or impossible on this machine (501).
    Unsupported,
    /// Not allowed (403).
    Forbidden,
    /// Who asks is not known (401).
    Unauthorized,
    /// The fault of another machine, such as a registry that cannot be reached (500).
    Remote,
    /// Our fault or the machine's (500).
    Internal,
}

/// A refusal in Docker's words, ready for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub kind: ErrorKind,
    /// What the client reads.
    pub message: String,
}

/// Result of the engine's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// The named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, message)
    }

    /// The object's state forbids it.
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Conflict, message)
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidParameter, message)
    }

    /// Already so.
    pub fn not_modified(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotModified, message)
    }

    /// Not built, or impossible on this machine.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Not allowed.
    pub fn forbidden(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Forbidden, message)
    }

    /// Our fault or the machine's.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    /// Our fault or the machine's: what was tried, followed by the whole chain of causes.
    pub fn failed(tried: impl std::fmt::Display, cause: &dyn std::error::Error) -> Error {
        Error::internal(format!("{tried}: {}", chain(cause)))
    }
}

/// An error and its causes in one line, as logs and clients read it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = without_numbers(error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&without_numbers(error.to_string()));
        cause = error.source();
    }
    text
}

/// Takes away what the standard library adds to the kernel's words: ` (os error 28)`.
fn without_numbers(mut text: String) -> String {
    let number = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (os error "));
    if let Some((words, number)) = number
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        text.truncate(words.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_come_without_numbers() {
        let full = std::io::Error::from(rustix::io::Errno::NOSPC);
        assert_eq!(Error::failed("creating x", &full).message, "creating x: No space left on device");
    }
}
