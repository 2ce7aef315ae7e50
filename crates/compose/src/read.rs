//! What the values of a checked file hold. The schema has been held against them: what is of another kind than asked for is
//! absent, and a short way of writing is read as the long one.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::error::Fault;
use crate::scalar::sprint;
use crate::units;
use crate::yaml::{Node, Value};

impl Node {
    /// Text; empty where there is none.
    pub fn text(&self, key: &str) -> String {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    /// Whether a key says so.
    pub fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| node.value == Value::Boolean(true))
    }

    /// A whole number.
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key)?.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn count(&self, key: &str) -> Result<Option<u64>, Fault> {
        let number = self.integer(key).map(u64::try_from).transpose();
        number.map_err(|_| self.fault(key, format!("{key} must not be negative")))
    }

    /// Nanoseconds.
    pub fn duration(&self, key: &str) -> Option<i64> {
        units::duration(&self.text(key))
    }

    /// The items of a list.
    pub fn items(&self, key: &str) -> &[Node] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Texts, of a list or one alone.
    pub fn texts(&self, key: &str) -> Vec<String> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => vec![text.clone()],
            _ => self.items(key).iter().filter_map(|node| sprint(&node.value)).collect(),
        }
    }

    /// A command's words, of a list or as a shell would split them.
    pub fn words(&self, key: &str) -> Result<Vec<String>, Fault> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => units::words(text)
                .ok_or_else(|| self.fault(key, format!("{key}: a quote or an escape is not closed"))),
            _ => Ok(self.texts(key)),
        }
    }

    /// What is written as a mapping or as a list of `name=value`; `None` where no value is given.
    pub fn pairs(&self, key: &str) -> BTreeMap<String, Option<String>> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Mapping(entries)) => {
                entries.iter().map(|(name, node)| (name.clone(), sprint(&node.value))).collect()
            }
            _ => self.items(key).iter().filter_map(|node| sprint(&node.value)).map(pair).collect(),
        }
    }

    /// As [`Node::pairs`]; no value is an empty one.
    pub fn mapping(&self, key: &str) -> BTreeMap<String, String> {
        self.pairs(key).into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()
    }

    /// Says of an entry, or of the whole where it has none, that it makes no sense.
    pub fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        Fault::at(self.get(key).unwrap_or(self).at, message)
    }
}

fn pair(text: String) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    }
}

/// A JSON object in the making.
#[derive(Default)]
pub(crate) struct Object(Map<String, Json>);

impl Object {
    /// Adds what is not empty, as Go's `omitempty`.
    pub fn add(mut self, key: &str, value: impl Into<Json>) -> Object {
        let value = value.into();
        let is_empty = match &value {
            Json::Null | Json::Bool(false) => true,
            Json::Number(number) => number.as_f64() == Some(0.0),
            Json::String(text) => text.is_empty(),
            Json::Array(list) => list.is_empty(),
            Json::Object(_) | Json::Bool(true) => false,
        };
        if !is_empty {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    /// Adds what was given, also where it is empty or zero.
    pub fn keep(mut self, key: &str, value: Option<impl Into<Json>>) -> Object {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Adds a mapping that is not empty.
    pub fn add_mapping(self, key: &str, mapping: BTreeMap<String, String>) -> Object {
        self.keep(key, (!mapping.is_empty()).then(|| json_mapping(mapping)))
    }

    pub fn build(self) -> Json {
        Json::Object(self.0)
    }
}

/// A mapping as JSON.
pub(crate) fn json_mapping(mapping: BTreeMap<String, String>) -> Json {
    Json::Object(mapping.into_iter().map(|(name, value)| (name, Json::String(value))).collect())
}
