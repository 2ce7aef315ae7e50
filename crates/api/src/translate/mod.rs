//! Docker's JSON to Skep's types and back.
//!
//! Requests are taken apart field by field (exhaustive destructuring), so that a field which a newer model
//! brings cannot be overlooked: it is honoured, or [`refuse`] answers 501 and names it. What clients send
//! always, with values that mean nothing, is accepted.

pub mod addresses;
pub mod container;
pub mod container_view;
pub mod endpoint;
pub mod generic;
pub mod health;
pub mod image;
pub mod kernel;
pub mod mount;
pub mod network;
pub mod network_use;
pub mod node;
pub mod nulls;
pub mod refuse;
pub mod service;
pub mod service_view;
pub mod spelling;
pub mod swarm;
pub mod system;
pub mod task;
pub mod volume;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use skep_types::Time;

use crate::error::ApiError;

/// A map whose order is fixed.
pub fn ordered(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

/// A map as the models hold it.
pub fn unordered(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A time as Docker writes it in JSON, without zeros at the end of its decimals; the zero time of Go for none.
pub fn time_text(time: Option<Time>) -> String {
    let Some(time) = time else { return Time::GO_ZERO.to_owned() };
    let text = time.to_string();
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// Whole seconds since 1970, as lists carry them.
pub fn seconds(time: Time) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Nanoseconds of a duration, as Go's JSON has it.
pub fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A duration in nanoseconds that must not be negative; `what` names the field.
pub fn duration(what: &str, nanoseconds: i64) -> Result<Duration, ApiError> {
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| ApiError::invalid(format!("{what} must not be negative")))
}

/// A number that must not be negative; `what` names the field.
pub fn unsigned(what: &str, number: i64) -> Result<u64, ApiError> {
    u64::try_from(number).map_err(|_| ApiError::invalid(format!("{what} must not be negative")))
}

/// A count as the models hold it.
pub fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A size in bytes as the models hold it.
pub fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
