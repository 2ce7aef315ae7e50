//! Volumes.

use bollard_stubs::models;
use skep_engine::options::VolumeCreate;
use skep_engine::view::VolumeView;

use super::refuse::{refuse, refuse_if, refuse_unless};
use super::{count, ordered, size, unordered};
use crate::error::ApiError;

/// Reads the body of `POST /volumes/create`.
pub fn create(body: models::VolumeCreateOptions) -> Result<VolumeCreate, ApiError> {
    let models::VolumeCreateOptions { name, driver, driver_opts, labels, cluster_volume_spec } = body;
    refuse_unless("Driver (--driver)", driver.as_deref(), &["local"])?;
    refuse("DriverOpts (--opt)", &driver_opts)?;
    refuse_if("ClusterVolumeSpec", cluster_volume_spec.is_some())?;
    Ok(VolumeCreate { name: name.unwrap_or_default(), labels: ordered(labels) })
}

/// A volume as clients see it.
pub fn to_model(view: &VolumeView) -> models::Volume {
    models::Volume {
        name: view.name.clone(),
        driver: "local".to_owned(),
        mountpoint: view.mountpoint.display().to_string(),
        created_at: Some(view.created_at.to_string()),
        status: None,
        labels: unordered(&view.labels),
        scope: Some(models::VolumeScopeEnum::LOCAL),
        cluster_volume: None,
        options: std::collections::HashMap::new(),
        usage_data: None,
    }
}

/// A volume with the bytes that it takes.
pub fn with_usage(view: &VolumeView, bytes: u64) -> models::Volume {
    let usage = models::VolumeUsageData { size: size(bytes), ref_count: count(view.containers) };
    models::Volume { usage_data: Some(usage), ..to_model(view) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_client_s_volume_is_accepted_and_others_are_refused_by_name() {
        let read = |text| serde_json::from_str(text).map(create).expect("a body of the right shape");
        let expected = VolumeCreate { name: "foo".to_owned(), ..Default::default() };
        assert_eq!(read(r#"{"Driver":"local","Name":"foo"}"#), Ok(expected));
        let error = read(r#"{"Driver":"nfs","Name":"foo"}"#).expect_err("no such driver");
        assert!(error.to_string().contains("--driver"), "{error}");
        let error = read(r#"{"DriverOpts":{"type":"tmpfs"}}"#).expect_err("no options");
        assert!(error.to_string().contains("--opt"), "{error}");
    }
}
