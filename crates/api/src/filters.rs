//! The `filters` parameter, in both of its forms: `{"name":{"x":true}}` and `{"name":["x"]}`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use skep_types::Time;

use crate::error::ApiError;
use crate::query::Query;

/// What a list is narrowed to: names of filters, each with the values that are let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    fields: BTreeMap<String, BTreeSet<String>>,
}

/// The two forms on the wire.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Map(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the parameter `filters` of `query` and refuses every filter that is not among `known`.
    pub fn parse(query: &Query, known: &[&str]) -> Result<Filters, ApiError> {
        let text = query.text("filters");
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let parsed: Option<BTreeMap<String, Values>> = serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("invalid filter: {error}")))?;
        let mut fields = BTreeMap::new();
        for (name, values) in parsed.unwrap_or_default() {
            if !known.contains(&name.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter '{name}'")));
            }
            let values: BTreeSet<String> = match values {
                Values::List(values) => values.into_iter().collect(),
                Values::Map(values) => {
                    values.into_iter().filter_map(|(value, wanted)| wanted.then_some(value)).collect()
                }
            };
            if !values.is_empty() {
                fields.insert(name, values);
            }
        }
        Ok(Filters { fields })
    }

    /// The values of one filter; empty when it does not narrow.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether the filter narrows at all.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Whether the filter does not narrow, or one of its values satisfies `matches`.
    pub fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(matches)
    }

    /// Whether every `label` filter (`key` or `key=value`) is met, as Docker's `MatchKVList`.
    pub fn labels<'a>(&self, name: &str, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.values(name).all(|wanted| label_matches(wanted, &get))
    }

    /// The value of a filter that holds one truth, such as `dangling`.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some("1" | "t" | "T" | "true" | "TRUE" | "True"), None) => Ok(Some(true)),
            (Some("0" | "f" | "F" | "false" | "FALSE" | "False"), None) => Ok(Some(false)),
            (Some(value), _) => Err(ApiError::invalid(format!("invalid filter '{name}={value}'"))),
        }
    }
}

/// Whether an object whose labels are read by `get` meets `key` or `key=value`.
pub fn label_matches<'a>(wanted: &str, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => get(key) == Some(value),
        None => get(wanted).is_some(),
    }
}

/// The time in a filter that holds one.
pub fn time_parameter_text(name: &str, text: &str) -> Result<Time, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(format!("invalid value for \"{name}\": {error}")))
}

/// A `since` or `until` parameter: `None` when it is missing, empty or `0`.
pub fn time_parameter(query: &Query, name: &str) -> Result<Option<Time>, ApiError> {
    match query.text(name) {
        "" | "0" => Ok(None),
        text => time_parameter_text(name, text).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filters, ApiError> {
        Filters::parse(&Query::parse(&format!("filters={text}")), &["name", "label", "dangling"])
    }

    #[test]
    fn both_forms_are_read() {
        for text in [r#"{"name":{"x":true,"y":false}}"#, r#"{"name":["x"]}"#] {
            let filters = parse(text).expect("a good filter");
            assert_eq!(filters.values("name").collect::<Vec<_>>(), ["x"], "{text}");
            assert!(!filters.has("label"));
        }
        assert_eq!(parse("null"), Ok(Filters::default()));
        assert_eq!(parse("{}"), Ok(Filters::default()));
    }

    #[test]
    fn unknown_and_malformed_filters_are_refused() {
        assert_eq!(parse(r#"{"color":["red"]}"#), Err(ApiError::invalid("invalid filter 'color'")));
        for text in ["{", "[]", "7", r#"{"name":"x"}"#, r#"{"name":{"x":1}}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_match_by_key_or_by_pair() {
        let get = |key: &str| (key == "a").then_some("b");
        assert!(parse(r#"{"label":["a"]}"#).expect("good").labels("label", get));
        assert!(parse(r#"{"label":["a=b"]}"#).expect("good").labels("label", get));
        assert!(!parse(r#"{"label":["a=c"]}"#).expect("good").labels("label", get));
        assert!(!parse(r#"{"label":["a","z"]}"#).expect("good").labels("label", get));
    }

    #[test]
    fn truth_is_one_value() {
        assert_eq!(parse(r#"{"dangling":["true"]}"#).expect("good").truth("dangling"), Ok(Some(true)));
        assert_eq!(parse("{}").expect("good").truth("dangling"), Ok(None));
        assert!(parse(r#"{"dangling":["maybe"]}"#).expect("good").truth("dangling").is_err());
        assert!(parse(r#"{"dangling":["true","false"]}"#).expect("good").truth("dangling").is_err());
    }
}
