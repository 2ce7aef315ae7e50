//! Credentials as clients send them: the header `X-Registry-Auth`.

use std::fmt;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// Who a registry is asked as.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Name of the user.
    pub username: String,
    /// The password.
    pub password: String,
    /// `user:password` in base64, which clients may send instead of both.
    pub auth: String,
    /// A token that is changed for others; it comes from a login.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// A token that is sent as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
    /// The registry that all this is for.
    #[serde(rename = "serveraddress")]
    pub server_address: String,
}

/// Passwords must not come into logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A header that holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid X-Registry-Auth header: {0}")]
pub struct ParseCredentialsError(String);

/// The alphabets that clients use, padded or not.
const fn lenient(alphabet: &base64::alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}
const URL_SAFE: GeneralPurpose = lenient(&base64::alphabet::URL_SAFE);
const STANDARD: GeneralPurpose = lenient(&base64::alphabet::STANDARD);

impl Credentials {
    /// Reads the header `X-Registry-Auth`: JSON in base64, of either alphabet. `None` where it holds nothing to log in
    /// with.
    pub fn from_header(text: &str) -> Result<Option<Credentials>, ParseCredentialsError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE
            .decode(text)
            .or_else(|_| STANDARD.decode(text))
            .map_err(|error| ParseCredentialsError(error.to_string()))?;
        let credentials: Option<Credentials> =
            serde_json::from_slice(&bytes).map_err(|_| ParseCredentialsError("not JSON".to_owned()))?;
        Ok(credentials.map(Credentials::split).filter(|credentials| !credentials.is_empty()))
    }

    /// Takes the name and the password out of `auth`, where they are only there.
    pub fn split(mut self) -> Credentials {
        if self.username.is_empty()
            && let Ok(bytes) = STANDARD.decode(self.auth.trim())
            && let Ok(text) = String::from_utf8(bytes)
            && let Some((username, password)) = text.split_once(':')
        {
            self.username = username.to_owned();
            self.password = password.trim_end_matches('\0').to_owned();
        }
        self
    }

    /// Whether there is nothing to log in with.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    pub(crate) fn basic(&self) -> Option<String> {
        let text = format!("{}:{}", self.username, self.password);
        (!self.username.is_empty())
            .then(|| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_header_are_read() {
        let json = r#"{"username":"ann","password":"a?b>c~"}"#;
        for encoded in [
            base64::engine::general_purpose::URL_SAFE.encode(json),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json),
            base64::engine::general_purpose::STANDARD.encode(json),
        ] {
            let credentials = Credentials::from_header(&encoded).unwrap().unwrap();
            assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ann", "a?b>c~"));
        }
        let auth = base64::engine::general_purpose::STANDARD.encode("ann:x:y");
        let header = STANDARD.encode(format!(r#"{{"auth":"{auth}"}}"#));
        let credentials = Credentials::from_header(&header).unwrap().unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ann", "x:y"));
        let token = STANDARD.encode(r#"{"identitytoken":"t"}"#);
        assert_eq!(Credentials::from_header(&token).unwrap().unwrap().identity_token, "t");
    }

    #[test]
    fn nothing_to_log_in_with_is_none() {
        // What the stock client sends of a user who never logged in: `{}` and `{"serveraddress": ...}`.
        for header in
            ["", "e30=", "e30", &STANDARD.encode(r#"{"serveraddress":"x"}"#), &STANDARD.encode("null")]
        {
            assert_eq!(Credentials::from_header(header), Ok(None), "{header}");
        }
        assert!(Credentials::from_header("***").is_err());
        assert!(Credentials::from_header(&STANDARD.encode("[1]")).is_err());
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials { password: "secret".into(), ..Default::default() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
