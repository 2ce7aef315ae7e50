//! Saying no to an option by its name.

use std::collections::HashMap;
use std::hash::BuildHasher;

use crate::error::ApiError;

/// Values that clients send for options that nobody set.
pub trait IsUnset {
    /// Whether the value asks for nothing.
    fn is_unset(&self) -> bool;
}

impl IsUnset for bool {
    fn is_unset(&self) -> bool {
        !*self
    }
}

impl IsUnset for String {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<T> IsUnset for Vec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V, S: BuildHasher> IsUnset for HashMap<K, V, S> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<T: IsUnset> IsUnset for Option<T> {
    fn is_unset(&self) -> bool {
        self.as_ref().is_none_or(IsUnset::is_unset)
    }
}

macro_rules! zero_is_unset {
    ($($number:ty),*) => {
        $(impl IsUnset for $number {
            fn is_unset(&self) -> bool {
                *self == 0
            }
        })*
    };
}

zero_is_unset!(i64, u64, u16, usize);

/// Refuses `option` with 501 unless `value` asks for nothing.
pub fn refuse(option: &str, value: &impl IsUnset) -> Result<(), ApiError> {
    refuse_if(option, !value.is_unset())
}

/// Refuses the first of `options` whose value asks for something.
pub fn refuse_all(options: &[(&str, &dyn IsUnset)]) -> Result<(), ApiError> {
    match options.iter().find(|(_, value)| !value.is_unset()) {
        Some((option, _)) => refuse_if(option, true),
        None => Ok(()),
    }
}

/// Refuses `option` with 501 if it `is_asked` for.
pub fn refuse_if(option: &str, is_asked: bool) -> Result<(), ApiError> {
    if is_asked { Err(ApiError::not_built(format!("option {option}"))) } else { Ok(()) }
}

/// Refuses `option` with 501 unless its text is empty or one of `accepted`.
pub fn refuse_unless(option: &str, value: Option<&str>, accepted: &[&str]) -> Result<(), ApiError> {
    match value {
        None | Some("") => Ok(()),
        Some(value) if accepted.contains(&value) => Ok(()),
        Some(value) => Err(ApiError::not_built(format!("option {option}={value}"))),
    }
}
