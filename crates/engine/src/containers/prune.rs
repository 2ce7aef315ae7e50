//! `docker container prune`.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_types::Time;
use skep_types::events::EventKind;

use crate::containers::registry::Container;
use crate::events::attributes;
use crate::options::RemoveOptions;
use crate::view::Status;
use crate::{Engine, ErrorKind, Result, blocking};

/// In the labels of a service's containers.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

impl Engine {
    /// Removes the containers that do not run and that `admits`, which is given when they were made and their labels. Their
    /// ids, and the bytes that they had written.
    ///
    /// # Errors
    /// Internal, when a walk panicked. What cannot be removed is logged, and stays.
    pub async fn prune_containers(
        &self,
        admits: impl Fn(Time, &BTreeMap<String, String>) -> bool,
    ) -> Result<(Vec<String>, u64)> {
        let (mut removed, mut bytes) = (Vec::new(), 0u64);
        for container in self.shared.containers.all() {
            let record = &container.record;
            if !self.is_idle(&container) || !admits(record.created, &record.config.labels) {
                continue;
            }
            let engine = self.clone();
            let measured = Arc::clone(&container);
            let size = blocking(move || engine.measure(&measured).writable).await?;
            let id = container.id().to_string();
            match self.remove(&id, RemoveOptions::default()).await {
                Ok(()) => {
                    bytes = bytes.saturating_add(size);
                    removed.push(id);
                }
                // Started meanwhile, or removed by somebody else.
                Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => tracing::warn!("could not prune container {id}: {error}"),
            }
        }
        let reclaimed = attributes([("reclaimed", bytes.to_string())]);
        self.shared.events.emit(EventKind::Container, "prune", "", reclaimed);
        Ok((removed, bytes))
    }

    /// Whether a container neither runs nor is about to, for a build or a service.
    fn is_idle(&self, container: &Container) -> bool {
        // As for a build, there is a moment between its making and its start.
        let begins =
            container.status() == Status::Created && container.record.config.labels.contains_key(TASK_LABEL);
        !container.is_running() && !begins && !self.shared.building.has(container.id())
    }
}
