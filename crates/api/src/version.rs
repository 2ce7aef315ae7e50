//! API versions: which part of the path names one, and whether Skep speaks it.

use crate::error::ApiError;

/// A version of Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Always 1 so far.
    pub major: u16,
    /// 24 to 50.
    pub minor: u16,
}

/// The newest version that Skep speaks; a path without one means this.
pub const NEWEST: Version = Version { major: 1, minor: 50 };
/// The oldest. Docker 29 refused old clients and broke tools that users run: Skep does not.
pub const OLDEST: Version = Version { major: 1, minor: 24 };

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.43/info` into its version and `/info`. A first segment that is no version stays part of the
/// path; a version that Skep does not speak is refused in Docker's words.
pub fn split(path: &str) -> Result<(Version, &str), ApiError> {
    let Some((named, rest)) = leading_version(path) else { return Ok((NEWEST, path)) };
    if named < OLDEST {
        return Err(ApiError::invalid(format!(
            "client version {named} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
        )));
    }
    if named > NEWEST {
        return Err(ApiError::invalid(format!(
            "client version {named} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    Ok((named, rest))
}

fn leading_version(path: &str) -> Option<(Version, &str)> {
    let after = path.strip_prefix("/v")?;
    let (segment, rest) = after.find('/').map_or((after, ""), |at| after.split_at(at));
    let (major, minor) = segment.split_once('.')?;
    let number = |text: &str| -> Option<u16> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().unwrap_or(u16::MAX))
    };
    Some((Version { major: number(major)?, minor: number(minor)? }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_taken_from_the_path() {
        assert_eq!(split("/v1.43/info"), Ok((Version { major: 1, minor: 43 }, "/info")));
        assert_eq!(split("/v1.24/_ping"), Ok((OLDEST, "/_ping")));
        assert_eq!(split("/info"), Ok((NEWEST, "/info")));
        assert_eq!(split("/volumes/v1.2"), Ok((NEWEST, "/volumes/v1.2")));
        assert_eq!(split("/volumes"), Ok((NEWEST, "/volumes")));
        assert_eq!(split("/v1.50"), Ok((NEWEST, "")));
    }

    #[test]
    fn a_version_out_of_range_is_refused_in_docker_s_words() {
        assert_eq!(
            split("/v1.23/info").map_err(|error| error.to_string()),
            Err("client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version".to_owned())
        );
        assert_eq!(
            split("/v1.99/info").map_err(|error| error.to_string()),
            Err("client version 1.99 is too new. Maximum supported API version is 1.50".to_owned())
        );
        assert!(split("/v1.99999999/info").is_err());
    }
}
