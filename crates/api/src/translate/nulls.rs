//! Fields that Docker writes as `null` and the models leave out.
//!
//! Go writes a list or a map that nobody set as `null`, and scripts index by those names: in Python,
//! `container.attrs["HostConfig"]["Binds"]` fails with a `KeyError` where the field is missing.

use std::collections::BTreeMap;

use serde::Serialize;

/// A model, and the names of the fields that it leaves out and Docker does not.
#[derive(Clone, Debug, Serialize)]
pub struct WithNulls<T> {
    /// The model.
    #[serde(flatten)]
    pub model: T,
    /// The unit is `null` in JSON.
    #[serde(flatten)]
    nulls: BTreeMap<&'static str, ()>,
}

/// Adds the fields of `names` whose flag says that `model` has nothing there.
pub fn with_nulls<T, const N: usize>(model: T, names: [(&'static str, bool); N]) -> WithNulls<T> {
    let nulls = names.into_iter().filter(|(_, is_none)| *is_none).map(|(name, _)| (name, ())).collect();
    WithNulls { model, nulls }
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models;

    use super::*;

    #[test]
    fn what_is_missing_is_null_and_what_is_there_stays() {
        let config = |binds: Option<Vec<String>>| {
            let model = models::HostConfig { binds, ..Default::default() };
            let is_none = model.binds.is_none();
            serde_json::to_value(with_nulls(model, [("Binds", is_none)])).expect("a model is JSON")
        };
        assert_eq!(config(None), serde_json::json!({ "Binds": null }));
        assert_eq!(config(Some(vec!["/a:/b".to_owned()])), serde_json::json!({ "Binds": ["/a:/b"] }));
    }
}
