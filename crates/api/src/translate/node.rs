//! Nodes of the cluster.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models;
use models::{NodeSpecAvailabilityEnum as AvailabilityName, NodeSpecRoleEnum as RoleName};
use skep_swarm::{NodeView, Reachability};
use skep_types::node::{Availability, Node, NodeRole, NodeSpec, NodeState, Plugin, PluginKind};

use super::system::{LOG_DRIVERS, NETWORK_DRIVERS, VOLUME_DRIVERS};
use super::{generic, ordered, unordered};
use crate::error::ApiError;

/// A node as clients see it.
pub fn to_model(view: &NodeView) -> models::Node {
    let NodeView { node, manager } = view;
    models::Node {
        id: Some(node.id.to_string()),
        version: Some(models::ObjectVersion { index: Some(node.meta.version.0) }),
        created_at: Some(node.meta.created_at.to_string()),
        updated_at: Some(node.meta.updated_at.to_string()),
        spec: Some(spec_model(&node.spec)),
        description: Some(description(node)),
        status: Some(models::NodeStatus {
            state: Some(match node.state {
                NodeState::Unknown => models::NodeState::UNKNOWN,
                NodeState::Down => models::NodeState::DOWN,
                NodeState::Ready => models::NodeState::READY,
            }),
            message: (!node.message.is_empty()).then(|| node.message.clone()),
            addr: Some(node.address.to_string()),
        }),
        manager_status: manager.as_ref().map(|manager| models::ManagerStatus {
            // As Docker: only the leader says so.
            leader: manager.leads.then_some(true),
            reachability: Some(match manager.reachability {
                Reachability::Unknown => models::Reachability::UNKNOWN,
                Reachability::Unreachable => models::Reachability::UNREACHABLE,
                Reachability::Reachable => models::Reachability::REACHABLE,
            }),
            addr: Some(manager.address.clone()),
        }),
    }
}

fn description(node: &Node) -> models::NodeDescription {
    let description = &node.description;
    models::NodeDescription {
        hostname: Some(description.hostname.clone()),
        platform: Some(models::Platform {
            architecture: Some(description.architecture.clone()),
            os: Some(description.os.clone()),
        }),
        resources: Some(models::ResourceObject {
            nano_cpus: Some(description.nano_cpus),
            memory_bytes: Some(description.memory_bytes),
            generic_resources: generic::to_model(&description.generic),
        }),
        engine: Some(models::EngineDescription {
            engine_version: Some(description.engine_version.clone()),
            labels: (!description.engine_labels.is_empty()).then(|| unordered(&description.engine_labels)),
            plugins: Some(description.plugins.iter().map(plugin).collect()),
        }),
        tls_info: (!description.tls.trust_root.is_empty()).then(|| models::TlsInfo {
            trust_root: Some(description.tls.trust_root.clone()),
            cert_issuer_subject: Some(STANDARD.encode(&description.tls.issuer_subject)),
            cert_issuer_public_key: Some(STANDARD.encode(&description.tls.issuer_public_key)),
        }),
    }
}

fn plugin(plugin: &Plugin) -> models::EngineDescriptionPlugins {
    let kind = match plugin.kind {
        PluginKind::Log => "Log",
        PluginKind::Network => "Network",
        PluginKind::Volume => "Volume",
    };
    models::EngineDescriptionPlugins { typ: Some(kind.to_owned()), name: Some(plugin.name.clone()) }
}

/// The drivers that this daemon has, which its node tells of.
pub fn plugins() -> BTreeSet<Plugin> {
    let kinds = [
        (PluginKind::Log, &LOG_DRIVERS[..]),
        (PluginKind::Network, &NETWORK_DRIVERS[..]),
        (PluginKind::Volume, &VOLUME_DRIVERS[..]),
    ];
    let plugin = |kind: PluginKind, name: &str| Plugin { kind, name: name.to_owned() };
    kinds.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| plugin(kind, name))).collect()
}

fn spec_model(spec: &NodeSpec) -> models::NodeSpec {
    models::NodeSpec {
        name: (!spec.name.is_empty()).then(|| spec.name.clone()),
        labels: Some(unordered(&spec.labels)),
        role: Some(match spec.role {
            NodeRole::Worker => RoleName::WORKER,
            NodeRole::Manager => RoleName::MANAGER,
        }),
        availability: Some(match spec.availability {
            Availability::Active => AvailabilityName::ACTIVE,
            Availability::Pause => AvailabilityName::PAUSE,
            Availability::Drain => AvailabilityName::DRAIN,
        }),
    }
}

/// Reads the body of `POST /nodes/{id}/update`.
pub fn spec(spec: models::NodeSpec) -> Result<NodeSpec, ApiError> {
    let models::NodeSpec { name, labels, role, availability } = spec;
    Ok(NodeSpec {
        name: name.unwrap_or_default(),
        labels: ordered(labels),
        role: match role {
            Some(RoleName::WORKER) => NodeRole::Worker,
            Some(RoleName::MANAGER) => NodeRole::Manager,
            None | Some(RoleName::EMPTY) => return Err(ApiError::invalid("invalid Role: \"\"")),
        },
        availability: match availability {
            Some(AvailabilityName::ACTIVE) => Availability::Active,
            Some(AvailabilityName::PAUSE) => Availability::Pause,
            Some(AvailabilityName::DRAIN) => Availability::Drain,
            None | Some(AvailabilityName::EMPTY) => {
                return Err(ApiError::invalid("invalid Availability: \"\""));
            }
        },
    })
}

/// The availability that `docker swarm init --availability` names.
pub fn availability(text: &str) -> Result<Availability, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(ApiError::invalid(format!("invalid Availability: {text:?}"))),
    }
}
