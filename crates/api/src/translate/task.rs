//! Tasks as clients see them.

use bollard_stubs::models;
use models::TaskState as StateName;
use serde::Serialize;
use skep_types::task::Task;
use skep_types::{Meta, TaskState};

use super::network::VNI_OPTION;
use super::spelling::Spelt;
use super::{generic, service_view, unordered};

/// A task, with the fields that the models lack: where it is on which network, and of which run of a job.
#[derive(Serialize)]
pub struct TaskView {
    #[serde(flatten)]
    task: models::Task,
    #[serde(rename = "Spec")]
    spec: Spelt<models::TaskSpec>,
    #[serde(rename = "NetworksAttachments", skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<AttachmentView>,
    #[serde(rename = "JobIteration", skip_serializing_if = "Option::is_none")]
    iteration: Option<models::ObjectVersion>,
    #[serde(rename = "GenericResources", skip_serializing_if = "Option::is_none")]
    generic: Option<models::GenericResources>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttachmentView {
    network: NetworkReference,
    addresses: Vec<String>,
}

/// As much of a network as a task carries.
#[derive(Serialize)]
struct NetworkReference {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Version")]
    version: models::ObjectVersion,
    #[serde(rename = "CreatedAt")]
    created_at: String,
    #[serde(rename = "UpdatedAt")]
    updated_at: String,
    #[serde(rename = "Spec")]
    spec: serde_json::Value,
    #[serde(rename = "DriverState")]
    driver_state: serde_json::Value,
    #[serde(rename = "IPAMOptions")]
    addresses: serde_json::Value,
}

/// A task as clients see it; `networks` are the cluster's.
pub fn to_model(task: &Task, networks: &[skep_types::network::Network]) -> TaskView {
    let attachments = task.attachments.iter().filter_map(|attachment| {
        let network = networks.iter().find(|network| network.id == attachment.network)?;
        Some(AttachmentView {
            network: reference(network),
            addresses: vec![format!("{}/{}", attachment.address, network.subnet.prefix())],
        })
    });
    let run = |index: u64| models::ObjectVersion { index: Some(index).filter(|index| *index != 0) };
    let iteration = task.iteration.map(run);
    let spec = Spelt(service_view::task_spec(&task.spec));
    let generic = generic::to_model(&task.generic);
    TaskView { attachments: attachments.collect(), task: model(task), spec, iteration, generic }
}

fn reference(network: &skep_types::network::Network) -> NetworkReference {
    let Meta { version, created_at, updated_at } = network.meta;
    NetworkReference {
        id: network.id.to_string(),
        version: models::ObjectVersion { index: Some(version.0) },
        created_at: created_at.to_string(),
        updated_at: updated_at.to_string(),
        spec: network_spec(network),
        driver_state: serde_json::json!({
            "Name": "overlay",
            "Options": { VNI_OPTION: network.vni.to_string() },
        }),
        addresses: serde_json::json!({
            "Driver": { "Name": "default" },
            "Configs": [address_config(network, Some(network.gateway()))],
        }),
    }
}

/// What a network was asked to be. As Docker's answer: only the truths that hold, and only the addresses that were
/// asked for. A subnet that was asked for alone is not told from a given one, and is left out.
fn network_spec(network: &skep_types::network::Network) -> serde_json::Value {
    let mut spec = serde_json::json!({
        "Name": network.name,
        "Labels": network.labels,
        "DriverConfiguration": { "Name": "overlay" },
        "IPAMOptions": { "Driver": { "Name": "default" } },
        "Scope": "swarm",
    });
    if !network.options.is_empty() {
        spec["DriverConfiguration"]["Options"] = serde_json::json!(network.options);
    }
    if network.gateway.is_some() || network.range.is_some() {
        spec["IPAMOptions"]["Configs"] = serde_json::json!([address_config(network, network.gateway)]);
    }
    let truths =
        [("Ingress", network.ingress), ("Attachable", network.attachable), ("Internal", network.internal)];
    for (name, _) in truths.iter().filter(|(_, holds)| *holds) {
        spec[name] = serde_json::Value::Bool(true);
    }
    spec
}

fn address_config(
    network: &skep_types::network::Network,
    gateway: Option<std::net::Ipv4Addr>,
) -> serde_json::Value {
    let mut config = serde_json::json!({ "Subnet": network.subnet.to_string() });
    if let Some(range) = network.range {
        config["Range"] = serde_json::json!(range.to_string());
    }
    if let Some(gateway) = gateway {
        config["Gateway"] = serde_json::json!(gateway.to_string());
    }
    config
}

fn model(task: &Task) -> models::Task {
    let status = &task.status;
    let port_status = |task: &Task| {
        let ports = task.status.container.as_ref().map(|container| container.ports.as_slice());
        let ports = ports.filter(|ports| !ports.is_empty());
        ports.map(|ports| ports.iter().map(service_view::port).collect())
    };
    models::Task {
        id: Some(task.id.to_string()),
        version: Some(models::ObjectVersion { index: Some(task.meta.version.0) }),
        created_at: Some(task.meta.created_at.to_string()),
        updated_at: Some(task.meta.updated_at.to_string()),
        labels: Some(unordered(&std::collections::BTreeMap::new())),
        // In `TaskView`.
        spec: None,
        service_id: Some(task.service.to_string()),
        // As in SwarmKit, a task that is its node's has no slot.
        slot: i64::try_from(task.slot).ok().filter(|slot| task.pinned.is_none() && *slot != 0),
        node_id: task.node.or(task.pinned).map(|node| node.to_string()),
        status: Some(models::TaskStatus {
            timestamp: Some(status.since.to_string()),
            state: Some(state(status.state)),
            message: Some(status.message.clone()),
            err: (!status.error.is_empty()).then(|| status.error.clone()),
            container_status: Some(status.container.as_ref().map_or_else(Default::default, |container| {
                models::ContainerStatus {
                    container_id: Some(container.id.to_string()),
                    pid: Some(i64::from(container.pid)),
                    exit_code: Some(container.exit_code.map_or(0, i64::from)),
                }
            })),
            port_status: Some(models::PortStatus { ports: port_status(task) }),
        }),
        desired_state: Some(state(task.desired)),
        ..Default::default()
    }
}

/// A state's name in the models.
fn state(state: TaskState) -> StateName {
    match state {
        TaskState::New => StateName::NEW,
        TaskState::Pending => StateName::PENDING,
        TaskState::Assigned => StateName::ASSIGNED,
        TaskState::Accepted => StateName::ACCEPTED,
        TaskState::Preparing => StateName::PREPARING,
        TaskState::Ready => StateName::READY,
        TaskState::Starting => StateName::STARTING,
        TaskState::Running => StateName::RUNNING,
        TaskState::Complete => StateName::COMPLETE,
        TaskState::Shutdown => StateName::SHUTDOWN,
        TaskState::Failed => StateName::FAILED,
        TaskState::Rejected => StateName::REJECTED,
        TaskState::Remove => StateName::REMOVE,
        TaskState::Orphaned => StateName::ORPHANED,
    }
}
