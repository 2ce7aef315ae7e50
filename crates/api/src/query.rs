//! The part of a request's address after the question mark.

use std::str::FromStr;

use crate::error::ApiError;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads `a=1&b=two%20words`. A broken escape is kept as it stands.
    pub fn parse(text: &str) -> Query {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(name, PlusIs::Space), percent_decode(value, PlusIs::Space))
            })
            .collect();
        Query { pairs }
    }

    /// The first value of `name`; `None` when it is not there at all.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of `name`, or the empty text.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As moby's `httputils.BoolValue`: everything is true but nothing, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(self.text(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Query::flag`], with a value for a parameter that is not there.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, |_| self.flag(name))
    }

    /// The number that `name` holds, or `None` when it is missing or empty; text that is no such number is
    /// refused.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::invalid(format!(
                    "invalid value {text:?} for parameter {name}: not a number in range"
                ))
            }),
        }
    }

    /// The number that `name` must hold.
    pub fn required_number<T: FromStr>(&self, name: &str) -> Result<T, ApiError> {
        self.number(name)?.ok_or_else(|| ApiError::invalid(format!("parameter {name} is required")))
    }
}

/// What a plus sign stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlusIs {
    /// A space, as in a query.
    Space,
    /// Itself, as in a path.
    Plus,
}

/// Resolves `%xx`; bytes that are no UTF-8 become the replacement character.
pub fn percent_decode(text: &str, plus: PlusIs) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let escaped = (byte == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(value) => {
                decoded.push(value);
                index += 3;
            }
            None => {
                decoded.push(if byte == b'+' && plus == PlusIs::Space { b' ' } else { byte });
                index += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(
            "filters=%7B%22id%22%3A%7B%7D%7D&a=b+c&empty=&bare&name=first&name=second&odd=%zz%4",
        );
        assert_eq!(query.get("filters"), Some(r#"{"id":{}}"#));
        assert_eq!(query.get("a"), Some("b c"));
        assert_eq!(query.get("bare"), Some(""));
        assert_eq!(query.get("missing"), None);
        assert_eq!(query.text("name"), "first");
        assert_eq!(query.all("name").collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(query.text("odd"), "%zz%4");
    }

    #[test]
    fn truth_is_as_in_moby() {
        for (text, expected) in [
            ("1", true),
            ("true", true),
            ("yes", true),
            ("0", false),
            ("False", false),
            ("no", false),
            ("none", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(&format!("x={text}")).flag("x"), expected, "{text}");
        }
        assert!(Query::parse("").flag_or("x", true));
        assert!(!Query::parse("x=0").flag_or("x", true));
    }

    #[test]
    fn a_number_that_is_none_names_its_parameter() {
        let error =
            Query::parse("version=abc").required_number::<u64>("version").expect_err("abc is no number");
        assert!(error.to_string().contains("version"), "{error}");
        assert!(Query::parse("").required_number::<u64>("version").is_err());
        assert_eq!(Query::parse("t=-1").number::<i64>("t"), Ok(Some(-1)));
    }

    #[test]
    fn broken_text_is_replaced_and_never_panics() {
        assert_eq!(percent_decode("%ff", PlusIs::Plus), "\u{fffd}");
        assert_eq!(percent_decode("%é1", PlusIs::Plus), "%é1");
        assert_eq!(percent_decode("%+1", PlusIs::Plus), "%+1");
    }
}
