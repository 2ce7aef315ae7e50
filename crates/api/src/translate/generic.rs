//! Generic resources: what a node has, what services ask for, and what tasks were given.

use bollard_stubs::models::{
    GenericResourcesInner, GenericResourcesInnerDiscreteResourceSpec, GenericResourcesInnerNamedResourceSpec,
};
use skep_types::generic::{Generic, GenericRequest, GenericResources};

use super::unsigned;
use crate::error::ApiError;

/// So many of a kind.
pub fn discrete(kind: &str, count: u64) -> GenericResourcesInner {
    GenericResourcesInner {
        discrete_resource_spec: Some(GenericResourcesInnerDiscreteResourceSpec {
            kind: Some(kind.to_owned()),
            value: i64::try_from(count).ok(),
        }),
        named_resource_spec: None,
    }
}

/// As clients see them; `None` where there are none.
pub fn to_model(resources: &GenericResources) -> Option<Vec<GenericResourcesInner>> {
    let mut models = Vec::new();
    for (kind, share) in &resources.0 {
        match share {
            Generic::Discrete(count) => models.push(discrete(kind, *count)),
            Generic::Named(names) => models.extend(names.iter().map(|name| GenericResourcesInner {
                named_resource_spec: Some(GenericResourcesInnerNamedResourceSpec {
                    kind: Some(kind.clone()),
                    value: Some(name.clone()),
                }),
                discrete_resource_spec: None,
            })),
        }
    }
    (!models.is_empty()).then_some(models)
}

/// What a service asks for. As SwarmKit: a number of a kind, never a certain one.
pub fn request(asked: Vec<GenericResourcesInner>) -> Result<GenericRequest, ApiError> {
    let mut request = GenericRequest::new();
    for GenericResourcesInner { named_resource_spec, discrete_resource_spec } in asked {
        if let Some(named) = named_resource_spec {
            let kind = named.kind.unwrap_or_default();
            return Err(ApiError::invalid(format!("invalid argument for resource {kind}")));
        }
        let discrete = discrete_resource_spec.unwrap_or_default();
        let count = unsigned("Reservations.GenericResources", discrete.value.unwrap_or_default())?;
        *request.entry(discrete.kind.unwrap_or_default()).or_default() += count;
    }
    Ok(request)
}
