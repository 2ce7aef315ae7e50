//! The cluster: `docker swarm init`, `update` and `inspect`.

use bollard_stubs::models;
use serde::{Deserialize, Serialize};
use skep_identity::Issuer;
use skep_swarm::{InitRequest, LocalState, SwarmInfo};
use skep_types::swarm::{ClusterObject, ClusterSpec};

use super::refuse::{refuse, refuse_if};
use super::{count, duration, nanoseconds, node, ordered, unordered, unsigned};
use crate::error::ApiError;

/// The body of `POST /swarm/init`, with what the models lack.
#[derive(Debug, Deserialize)]
pub struct InitBody {
    #[serde(flatten)]
    request: models::SwarmInitRequest,
    #[serde(rename = "AutoLockManagers", default)]
    auto_lock_managers: Option<bool>,
    #[serde(rename = "Availability", default)]
    availability: Option<String>,
}

/// Reads the body of `POST /swarm/init`.
pub fn init(body: InitBody) -> Result<InitRequest, ApiError> {
    let InitBody { request, auto_lock_managers, availability } = body;
    let models::SwarmInitRequest {
        listen_addr,
        advertise_addr,
        data_path_addr,
        data_path_port,
        default_addr_pool,
        force_new_cluster,
        subnet_size,
        spec: cluster,
    } = request;
    refuse("AutoLockManagers (--autolock)", &auto_lock_managers)?;
    let pools = default_addr_pool.unwrap_or_default();
    let pools = pools.iter().map(|text| {
        text.parse().map_err(|error| ApiError::invalid(format!("invalid DefaultAddrPool: {error}")))
    });
    Ok(InitRequest {
        listen_addr: listen_addr.unwrap_or_default(),
        advertise_addr: advertise_addr.unwrap_or_default(),
        data_path_addr: data_path_addr.unwrap_or_default(),
        data_path_port: data_path_port.unwrap_or_default(),
        default_addr_pool: pools.collect::<Result<_, _>>()?,
        subnet_size: subnet_size.unwrap_or_default(),
        availability: node::availability(&availability.unwrap_or_default())?,
        force_new_cluster: force_new_cluster.unwrap_or_default(),
        spec: spec(cluster.unwrap_or_default(), ClusterSpec::default())?,
    })
}

/// Reads a cluster's settings; what is not named stays as in `current`.
pub fn spec(spec: models::SwarmSpec, current: ClusterSpec) -> Result<ClusterSpec, ApiError> {
    let models::SwarmSpec {
        name,
        labels,
        orchestration,
        raft,
        dispatcher,
        ca_config,
        encryption_config,
        task_defaults,
    } = spec;
    if name.as_deref().is_some_and(|name| !name.is_empty() && name != current.name) {
        return Err(ApiError::invalid("swarm spec must be named \"default\""));
    }
    let models::SwarmSpecEncryptionConfig { auto_lock_managers } = encryption_config.unwrap_or_default();
    refuse("EncryptionConfig.AutoLockManagers (--autolock)", &auto_lock_managers)?;
    let models::SwarmSpecTaskDefaults { log_driver } = task_defaults.unwrap_or_default();
    refuse_if("TaskDefaults.LogDriver", log_driver.is_some())?;
    let models::SwarmSpecOrchestration { task_history_retention_limit } = orchestration.unwrap_or_default();
    let models::SwarmSpecDispatcher { heartbeat_period } = dispatcher.unwrap_or_default();
    let task_history_limit = task_history_retention_limit
        .map(|limit| unsigned("Orchestration.TaskHistoryRetentionLimit", limit))
        .transpose()?;
    let heartbeat = heartbeat_period
        .filter(|period| *period != 0)
        .map(|period| duration("Dispatcher.HeartbeatPeriod", period))
        .transpose()?;
    Ok(ClusterSpec {
        name: current.name,
        labels: labels.map_or(current.labels, |labels| ordered(Some(labels))),
        task_history_limit: task_history_limit.unwrap_or(current.task_history_limit),
        heartbeat: heartbeat.unwrap_or(current.heartbeat),
        cert_expiry: ca(ca_config.unwrap_or_default())?.unwrap_or(current.cert_expiry),
        snapshot_interval: snapshots(raft.unwrap_or_default())?.unwrap_or(current.snapshot_interval),
        autolock: current.autolock,
        external_authorities: current.external_authorities,
        force_rotate: current.force_rotate,
    })
}

fn snapshots(raft: models::SwarmSpecRaft) -> Result<Option<u64>, ApiError> {
    let models::SwarmSpecRaft {
        snapshot_interval,
        keep_old_snapshots,
        log_entries_for_slow_followers,
        // Docker does not let a user change the ticks either.
        election_tick: _,
        heartbeat_tick: _,
    } = raft;
    refuse("Raft.KeepOldSnapshots (--max-snapshots)", &keep_old_snapshots)?;
    let standard = matches!(log_entries_for_slow_followers, None | Some(0 | 500));
    refuse_if("Raft.LogEntriesForSlowFollowers", !standard)?;
    Ok(snapshot_interval.filter(|interval| *interval != 0))
}

fn ca(config: models::SwarmSpecCaConfig) -> Result<Option<std::time::Duration>, ApiError> {
    let models::SwarmSpecCaConfig {
        node_cert_expiry,
        external_cas,
        signing_ca_cert,
        signing_ca_key,
        force_rotate,
    } = config;
    refuse("CAConfig.ExternalCAs (--external-ca)", &external_cas)?;
    refuse("CAConfig.SigningCACert (--ca-cert)", &signing_ca_cert)?;
    refuse("CAConfig.SigningCAKey (--ca-key)", &signing_ca_key)?;
    refuse("CAConfig.ForceRotate (swarm ca --rotate)", &force_rotate)?;
    match node_cert_expiry {
        None | Some(0) => Ok(None),
        // As SwarmKit's `ca.MinNodeCertExpiration`.
        Some(expiry) if expiry < 3_600_000_000_000 => {
            Err(ApiError::invalid("minimum certificate expiry time must be 1h0m0s"))
        }
        Some(expiry) => duration("CAConfig.NodeCertExpiry", expiry).map(Some),
    }
}

fn spec_model(spec: &ClusterSpec) -> models::SwarmSpec {
    models::SwarmSpec {
        name: Some(spec.name.clone()),
        labels: Some(unordered(&spec.labels)),
        orchestration: Some(models::SwarmSpecOrchestration {
            task_history_retention_limit: i64::try_from(spec.task_history_limit).ok(),
        }),
        raft: Some(models::SwarmSpecRaft {
            snapshot_interval: Some(spec.snapshot_interval),
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: Some(500),
            election_tick: Some(10),
            heartbeat_tick: Some(1),
        }),
        dispatcher: Some(models::SwarmSpecDispatcher { heartbeat_period: Some(nanoseconds(spec.heartbeat)) }),
        ca_config: Some(models::SwarmSpecCaConfig {
            node_cert_expiry: Some(nanoseconds(spec.cert_expiry)),
            ..Default::default()
        }),
        encryption_config: Some(models::SwarmSpecEncryptionConfig { auto_lock_managers: Some(false) }),
        task_defaults: Some(models::SwarmSpecTaskDefaults::default()),
    }
}

/// What clients compare to see whether a node trusts the cluster's root of today (`docker node ls`: TLS STATUS).
pub fn tls_info(root_ca: &str) -> models::TlsInfo {
    let issuer = Issuer::of(root_ca);
    models::TlsInfo {
        trust_root: Some(root_ca.to_owned()),
        cert_issuer_subject: issuer.as_ref().map(|issuer| issuer.subject.clone()),
        cert_issuer_public_key: issuer.map(|issuer| issuer.public_key),
    }
}

/// What `/info` tells of the cluster.
pub fn cluster_info(cluster: &ClusterObject) -> models::ClusterInfo {
    models::ClusterInfo {
        id: Some(cluster.id.to_string()),
        version: Some(models::ObjectVersion { index: Some(cluster.meta.version.0) }),
        created_at: Some(cluster.meta.created_at.to_string()),
        updated_at: Some(cluster.meta.updated_at.to_string()),
        spec: Some(spec_model(&cluster.spec)),
        tls_info: Some(tls_info(&cluster.authority.certificate)),
        root_rotation_in_progress: Some(false),
        data_path_port: Some(u32::from(cluster.data_path_port)),
        default_addr_pool: Some(cluster.address_pools.iter().map(ToString::to_string).collect()),
        subnet_size: Some(u32::from(cluster.subnet_prefix)),
    }
}

/// The body of `GET /swarm`.
#[derive(Serialize)]
pub struct SwarmView {
    #[serde(flatten)]
    cluster: models::ClusterInfo,
    #[serde(rename = "JoinTokens")]
    join_tokens: models::JoinTokens,
}

/// The cluster with its join tokens, for `GET /swarm`.
pub fn inspect(cluster: &ClusterObject) -> SwarmView {
    SwarmView {
        cluster: cluster_info(cluster),
        join_tokens: models::JoinTokens {
            worker: Some(cluster.worker_token.clone()),
            manager: Some(cluster.manager_token.clone()),
        },
    }
}

/// The `Swarm` part of `GET /info`.
pub fn info(info: SwarmInfo) -> models::SwarmInfo {
    let managers = info
        .remote_managers
        .iter()
        .map(|(id, address)| models::PeerNode { node_id: Some(id.to_string()), addr: Some(address.clone()) });
    models::SwarmInfo {
        node_id: Some(info.node_id.map_or_else(String::new, |id| id.to_string())),
        node_addr: Some(info.node_addr),
        local_node_state: Some(match info.state {
            LocalState::Inactive => models::LocalNodeState::INACTIVE,
            LocalState::Pending => models::LocalNodeState::PENDING,
            LocalState::Active => models::LocalNodeState::ACTIVE,
            LocalState::Error => models::LocalNodeState::ERROR,
        }),
        control_available: Some(info.control_available),
        error: Some(info.error),
        remote_managers: Some(managers.collect()),
        nodes: (info.nodes != 0).then_some(count(info.nodes)),
        managers: (info.managers != 0).then_some(count(info.managers)),
        cluster: info.cluster.as_ref().map(cluster_info),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// `docker swarm init --advertise-addr 1.2.3.4` by the stock client 28.2.2.
    const INIT: &str = include_str!("../../tests/data/swarm-init.json");
    /// `docker swarm update --task-history-limit 3` by the same.
    const UPDATE: &str = include_str!("../../tests/data/swarm-update.json");

    #[test]
    fn the_stock_client_s_init_means_the_defaults() {
        let request = init(serde_json::from_str(INIT).unwrap()).unwrap();
        assert_eq!(request.listen_addr, "0.0.0.0:2377");
        assert_eq!(request.advertise_addr, "1.2.3.4");
        assert_eq!(request.subnet_size, 24);
        assert_eq!(request.spec, ClusterSpec::default());
    }

    #[test]
    fn the_stock_client_s_update_changes_what_it_names() {
        let changed = spec(serde_json::from_str(UPDATE).unwrap(), ClusterSpec::default()).unwrap();
        let expected = ClusterSpec {
            task_history_limit: 3,
            heartbeat: std::time::Duration::from_secs(5),
            ..ClusterSpec::default()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn settings_survive_the_round_trip() {
        let model = spec_model(&ClusterSpec::default());
        assert_eq!(spec(model, ClusterSpec::default()), Ok(ClusterSpec::default()));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (body, named) in [
            (r#"{"AutoLockManagers":true}"#, "--autolock"),
            (r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}"#, "--autolock"),
            (r#"{"Spec":{"CAConfig":{"ExternalCAs":[{}]}}}"#, "--external-ca"),
        ] {
            let error = init(serde_json::from_str(body).unwrap()).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(init(serde_json::from_str(r#"{"DefaultAddrPool":["10.0.0.1/8"]}"#).unwrap()).is_err());
        assert!(init(serde_json::from_str(r#"{"Availability":"sometimes"}"#).unwrap()).is_err());
        assert!(serde_json::from_str::<InitBody>(r#"{"DataPathPort":-1}"#).is_err());
    }
}
