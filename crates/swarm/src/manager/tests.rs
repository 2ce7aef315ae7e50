//! Managers over real logs and a network in memory, with the agent's real brain and an engine that always succeeds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod several;
mod single;
mod town;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_cluster::{Answer, Objects, Request};
use skep_types::service::*;
use skep_types::{ServiceId, TaskState};

use super::Manager;

/// Patience with a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(60);

fn service(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container: ServiceContainer { image: "web".to_owned(), ..Default::default() },
            limits: Default::default(),
            reservations: Default::default(),
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
    }
}

async fn create(manager: &Manager, spec: ServiceSpec) -> ServiceId {
    match manager.request(Request::CreateService(Box::new(spec))).await.unwrap() {
        Answer::Service(id) => id,
        other => panic!("a created service has an id: {other:?}"),
    }
}

/// Waits until the state that this manager was told is as `wanted`.
async fn until(manager: &Manager, wanted: impl Fn(&Objects) -> bool) {
    let reached = async {
        while !manager.read(&wanted) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let states =
        |objects: &Objects| format!("{:?}", objects.tasks().map(|task| &task.status).collect::<Vec<_>>());
    let in_time = tokio::time::timeout(PATIENCE, reached).await.is_ok();
    assert!(in_time, "not reached; tasks: {}", manager.read(states));
}

fn running(objects: &Objects) -> usize {
    objects.tasks().filter(|task| task.status.state == TaskState::Running).count()
}
