//! The one name that Docker's specification, from which the models are made, spells otherwise than Docker does:
//! `HealthCheck`, which clients that tell the two apart know as `Healthcheck`.

use bollard_stubs::models;
use serde::ser::Error;
use serde::{Serialize, Serializer};

/// A specification, to be written as Docker writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spelt<T>(pub T);

/// What has a container's specification in it, and where.
pub trait HasContainer: Serialize {
    /// The container's specification.
    fn container(&self) -> Option<&models::TaskSpecContainerSpec>;
    /// Its place in the JSON (RFC 6901).
    const PLACE: &str;
}

impl HasContainer for models::ServiceSpec {
    fn container(&self) -> Option<&models::TaskSpecContainerSpec> {
        self.task_template.as_ref()?.container_spec.as_ref()
    }
    const PLACE: &str = "/TaskTemplate/ContainerSpec";
}

impl HasContainer for models::TaskSpec {
    fn container(&self) -> Option<&models::TaskSpecContainerSpec> {
        self.container_spec.as_ref()
    }
    const PLACE: &str = "/ContainerSpec";
}

impl<T: HasContainer> Serialize for Spelt<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Most have none, and are written without the detour.
        if self.0.container().is_none_or(|container| container.health_check.is_none()) {
            return self.0.serialize(serializer);
        }
        let mut value = serde_json::to_value(&self.0).map_err(S::Error::custom)?;
        let container = value.pointer_mut(T::PLACE).and_then(serde_json::Value::as_object_mut);
        if let Some(container) = container
            && let Some(check) = container.remove("HealthCheck")
        {
            container.insert("Healthcheck".to_owned(), check);
        }
        value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_docker_s() {
        for (text, written) in [
            (r#"{"ContainerSpec":{"Image":"x"}}"#, r#"{"ContainerSpec":{"Image":"x"}}"#),
            (
                r#"{"ContainerSpec":{"HealthCheck":{"Retries":1}}}"#,
                r#"{"ContainerSpec":{"Healthcheck":{"Retries":1}}}"#,
            ),
        ] {
            let task: models::TaskSpec = serde_json::from_str(text).expect(text);
            let service = models::ServiceSpec { task_template: Some(task.clone()), ..Default::default() };
            assert_eq!(serde_json::to_string(&Spelt(task)).expect(text), written);
            let whole = format!(r#"{{"TaskTemplate":{written}}}"#);
            assert_eq!(serde_json::to_string(&Spelt(service)).expect(text), whole);
        }
    }
}
