//! Image references: the names that users type, and their full forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Digest;

/// Docker's limit on the length of a repository's name.
const NAME_LIMIT: usize = 255;
/// The limit on the length of a tag.
const TAG_LIMIT: usize = 128;
pub(crate) const DEFAULT_TAG: &str = "latest";
const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL_PREFIX: &str = "library/";

/// A reference to an image: a repository by its full name, and a tag or a digest in it.
///
/// Reading follows the rules of Docker's familiar names: `x` is `docker.io/library/x:latest`. Of
/// `name:tag@digest` only the digest counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    path: String,
    target: Target,
}

/// What a reference points at within its repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A name that can be moved.
    Tag(String),
    /// One manifest.
    Digest(Digest),
}

/// A text that is not an image reference. The messages are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// It would, in lower case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The name is too long.
    #[error("repository name must not be more than 255 characters")]
    NameTooLong,
    /// It could be confused with an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// The full name of the repository, such as `docker.io/library/x`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The name of the repository within its registry, such as `library/x`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Another tag or digest of the same repository.
    pub fn with(&self, target: Target) -> Reference {
        Reference { target, ..self.clone() }
    }

    /// The registry's host, and port if one is named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Tag or digest.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The tag, unless the reference is by digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        }
    }

    /// The digest, if the reference is by digest.
    pub fn digest(&self) -> Option<Digest> {
        match &self.target {
            Target::Tag(_) => None,
            Target::Digest(digest) => Some(*digest),
        }
    }

    /// The short form that Docker shows: `x:latest`, `x@sha256:...`, `registry:5000/x:1`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.target)
    }

    /// The repository in the short form that Docker shows: `x`, `user/x`, `registry:5000/x`. Unlike there it always means the same
    /// repository again: what is left of `docker.io/a.b/x` would be another registry's.
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY || split_registry(&self.path).1 != self.path {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tag(tag) => write!(f, ":{tag}"),
            Target::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The full form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.path, self.target)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Reference, ParseReferenceError> {
        if Digest::from_hex(text).is_some() {
            return Err(ParseReferenceError::LooksLikeId(text.to_owned()));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse().map_err(|_| ParseReferenceError::Format)?)),
            None => (text, None),
        };
        let (registry, remainder) = split_registry(named);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        let official = registry == DEFAULT_REGISTRY && !path.contains('/') && !path.is_empty();
        let path = if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ParseReferenceError::Uppercase(path));
        }
        let tag = tag.unwrap_or(DEFAULT_TAG);
        if !is_registry(registry) || !path.split('/').all(is_path_component) || !is_tag(tag) {
            return Err(ParseReferenceError::Format);
        }
        if path.len() > NAME_LIMIT {
            return Err(ParseReferenceError::NameTooLong);
        }
        let target = digest.map_or_else(|| Target::Tag(tag.to_owned()), Target::Digest);
        Ok(Reference { registry: registry.to_owned(), path, target })
    }
}

/// The registry that `named` starts with, or Docker's own, and the rest. As Docker does: a first
/// component is a registry if it has a dot, a colon or an upper case letter, or is `localhost`.
fn split_registry(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, named),
    }
}

fn is_registry(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Runs of lower case letters and digits, joined by one dot, one or two underscores, or any number of
/// dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(*first)
        && is_word(*last)
        && bytes
            .split(|byte| is_word(*byte))
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_LIMIT
        && !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn familiar_names_have_full_forms() {
        let hex = "a".repeat(64);
        let by_digest = format!("x:1@sha256:{hex}");
        let by_digest_full = format!("docker.io/library/x@sha256:{hex}");
        let by_digest_familiar = format!("x@sha256:{hex}");
        for (text, full, familiar) in [
            ("x", "docker.io/library/x:latest", "x:latest"),
            ("user/x:1", "docker.io/user/x:1", "user/x:1"),
            ("docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("index.docker.io/user/x", "docker.io/user/x:latest", "user/x:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("registry:5000/a/b/x:v1.2", "registry:5000/a/b/x:v1.2", "registry:5000/a/b/x:v1.2"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
            ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest", "a__b/c-d--e.f:latest"),
            ("docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"),
            ("docker.io/docker.io/x", "docker.io/docker.io/x:latest", "docker.io/docker.io/x:latest"),
            ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
            (&by_digest, &by_digest_full, &by_digest_familiar),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(familiar.parse(), Ok(reference.clone()));
            assert_eq!(full.parse(), Ok(reference));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let long_tag = format!("x:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "x:",
            ":1",
            "/x",
            "x/",
            "x//y",
            "-x",
            "x-",
            "a..b",
            "a___b",
            "x:.t",
            "x@sha256:12",
            "a b",
            "-host.example/x",
            "host:port/x",
            "x:a:b",
            "é",
            "x:é",
            "[::1/x",
            "@",
            "..",
            "../x",
            &long_tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert_eq!("X".parse::<Reference>(), Err(ParseReferenceError::Uppercase("library/X".into())));
        assert_eq!("a".repeat(250).parse::<Reference>(), Err(ParseReferenceError::NameTooLong));
        let hex = "0".repeat(64);
        assert_eq!(hex.parse::<Reference>(), Err(ParseReferenceError::LooksLikeId(hex)));
    }
}
