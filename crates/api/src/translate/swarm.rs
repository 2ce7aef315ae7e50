//! The cluster: `docker swarm init`, `update` and `inspect`.

use bollard_stubs::models;
use models::SwarmSpecCaConfigExternalCasProtocolEnum as ExternalProtocol;
use serde::{Deserialize, Serialize};
use skep_identity::Issuer;
use skep_swarm::{InitRequest, JoinRequest, LocalState, SigningRoot, SwarmInfo};
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, ExternalAuthority};

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
    let Settings { mut spec, signing } = settings(cluster.unwrap_or_default(), ClusterSpec::default())?;
    // The client says it twice.
    spec.autolock |= auto_lock_managers.unwrap_or_default();
    if signing != SigningRoot::default() {
        // Docker's client sends none here either: a root is brought along by `docker swarm ca --rotate`.
        return Err(ApiError::invalid(
            "a new swarm makes its own root; bring another with docker swarm ca --rotate",
        ));
    }
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
        spec,
    })
}

/// The body of `POST /swarm/join`, with what the models lack.
#[derive(Debug, Deserialize)]
pub struct JoinBody {
    #[serde(flatten)]
    request: models::SwarmJoinRequest,
    #[serde(rename = "Availability", default)]
    availability: Option<String>,
}

/// Reads the body of `POST /swarm/join`.
pub fn join(body: JoinBody) -> Result<JoinRequest, ApiError> {
    let JoinBody { request, availability } = body;
    let models::SwarmJoinRequest { listen_addr, advertise_addr, data_path_addr, remote_addrs, join_token } =
        request;
    Ok(JoinRequest {
        listen_addr: listen_addr.unwrap_or_default(),
        advertise_addr: advertise_addr.unwrap_or_default(),
        data_path_addr: data_path_addr.unwrap_or_default(),
        remote_addrs: remote_addrs.unwrap_or_default(),
        join_token: join_token.unwrap_or_default(),
        availability: node::availability(&availability.unwrap_or_default())?,
    })
}

/// A cluster's settings, and what comes with them but is never shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// The settings.
    pub spec: ClusterSpec,
    /// The root that the user brings along.
    pub signing: SigningRoot,
}

/// Reads a cluster's settings; what is not named stays as in `current`.
pub fn settings(spec: models::SwarmSpec, current: ClusterSpec) -> Result<Settings, ApiError> {
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
    let models::SwarmSpecCaConfig {
        node_cert_expiry,
        external_cas,
        signing_ca_cert,
        signing_ca_key,
        force_rotate,
    } = ca_config.unwrap_or_default();
    let external_authorities = external_cas
        .map(|authorities| authorities.into_iter().map(external_authority).collect::<Result<Vec<_>, _>>())
        .transpose()?;
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
    let signing = SigningRoot {
        certificate: signing_ca_cert.unwrap_or_default(),
        key: signing_ca_key.unwrap_or_default(),
    };
    let spec = ClusterSpec {
        name: current.name,
        labels: labels.map_or(current.labels, |labels| ordered(Some(labels))),
        task_history_limit: task_history_limit.unwrap_or(current.task_history_limit),
        heartbeat: heartbeat.unwrap_or(current.heartbeat),
        cert_expiry: certificate_expiry(node_cert_expiry)?.unwrap_or(current.cert_expiry),
        snapshot_interval: snapshots(raft.unwrap_or_default())?.unwrap_or(current.snapshot_interval),
        autolock: auto_lock_managers.unwrap_or(current.autolock),
        // A client that changes something sends all of the others along.
        external_authorities: external_authorities.unwrap_or_default(),
        force_rotate: force_rotate.unwrap_or(current.force_rotate),
    };
    Ok(Settings { spec, signing })
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

fn certificate_expiry(expiry: Option<i64>) -> Result<Option<std::time::Duration>, ApiError> {
    match expiry {
        None | Some(0) => Ok(None),
        // As SwarmKit's `ca.MinNodeCertExpiration`.
        Some(expiry) if expiry < 3_600_000_000_000 => {
            Err(ApiError::invalid("minimum certificate expiry time is: 1h0m0s"))
        }
        Some(expiry) => duration("CAConfig.NodeCertExpiry", expiry).map(Some),
    }
}

fn external_authority(
    authority: models::SwarmSpecCaConfigExternalCas,
) -> Result<ExternalAuthority, ApiError> {
    let models::SwarmSpecCaConfigExternalCas { protocol, url, options, ca_cert } = authority;
    match protocol {
        // SwarmKit's only protocol, and so its default.
        None | Some(ExternalProtocol::EMPTY | ExternalProtocol::CFSSL) => {}
    }
    let root = ca_cert.filter(|certificate| !certificate.is_empty());
    Ok(ExternalAuthority { url: url.unwrap_or_default(), options: ordered(options), root })
}

fn external_authority_model(authority: &ExternalAuthority) -> models::SwarmSpecCaConfigExternalCas {
    models::SwarmSpecCaConfigExternalCas {
        protocol: Some(ExternalProtocol::CFSSL),
        url: Some(authority.url.clone()),
        options: Some(unordered(&authority.options)),
        ca_cert: Some(authority.root.clone().unwrap_or_default()),
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
            external_cas: (!spec.external_authorities.is_empty())
                .then(|| spec.external_authorities.iter().map(external_authority_model).collect()),
            // What a user brought along is never shown.
            signing_ca_cert: None,
            signing_ca_key: None,
            force_rotate: (spec.force_rotate != 0).then_some(spec.force_rotate),
        }),
        encryption_config: Some(models::SwarmSpecEncryptionConfig {
            auto_lock_managers: Some(spec.autolock),
        }),
        task_defaults: Some(models::SwarmSpecTaskDefaults::default()),
    }
}

/// What clients compare to see whether a node stands on the cluster's root of today (`docker node ls`: TLS
/// STATUS). While the root is being replaced, the issuer is the new one already, as SwarmKit's
/// `IssuerFromAPIRootCA`.
fn tls_info(authority: &Authority) -> models::TlsInfo {
    let wanted = authority.rotation.as_ref().map_or(&authority.certificate, |rotation| &rotation.certificate);
    let issuer = Issuer::of(wanted);
    models::TlsInfo {
        trust_root: Some(authority.certificate.clone()),
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
        tls_info: Some(tls_info(&cluster.authority)),
        root_rotation_in_progress: Some(cluster.authority.rotation.is_some()),
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
            LocalState::Locked => models::LocalNodeState::LOCKED,
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
        let changed = settings(serde_json::from_str(UPDATE).unwrap(), ClusterSpec::default()).unwrap().spec;
        let expected = ClusterSpec {
            task_history_limit: 3,
            heartbeat: std::time::Duration::from_secs(5),
            ..ClusterSpec::default()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn settings_survive_the_round_trip() {
        let authority = ExternalAuthority {
            url: "https://ca.example/sign".to_owned(),
            options: [("a".to_owned(), "b".to_owned())].into(),
            root: Some("a root".to_owned()),
        };
        let other = ClusterSpec {
            autolock: true,
            force_rotate: 3,
            external_authorities: vec![authority],
            ..ClusterSpec::default()
        };
        for spec in [ClusterSpec::default(), other] {
            let read = settings(spec_model(&spec), ClusterSpec::default());
            assert_eq!(read, Ok(Settings { spec, signing: SigningRoot::default() }));
        }
    }

    #[test]
    fn a_root_that_is_brought_along_is_read_and_never_shown() {
        let body = r#"{"CAConfig":{"SigningCACert":"a","SigningCAKey":"b","ForceRotate":2}}"#;
        let read = settings(serde_json::from_str(body).unwrap(), ClusterSpec::default()).unwrap();
        assert_eq!(read.signing, SigningRoot { certificate: "a".to_owned(), key: "b".to_owned() });
        assert_eq!(read.spec.force_rotate, 2);
        let shown = spec_model(&read.spec).ca_config.unwrap();
        assert_eq!((shown.signing_ca_cert, shown.signing_ca_key), (None, None));
    }

    #[test]
    fn autolock_is_asked_for_in_either_place() {
        for body in
            [r#"{"AutoLockManagers":true}"#, r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}"#]
        {
            assert!(init(serde_json::from_str(body).unwrap()).unwrap().spec.autolock, "{body}");
        }
    }

    #[test]
    fn the_stock_client_s_join_is_read() {
        let body = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathAddr":"",
            "RemoteAddrs":["10.0.0.1:2377"],"JoinToken":"SWMTKN-1-x-y","Availability":"drain"}"#;
        let request = join(serde_json::from_str(body).unwrap()).unwrap();
        assert_eq!(request.remote_addrs, ["10.0.0.1:2377"]);
        assert_eq!(request.availability, skep_types::node::Availability::Drain);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let body = r#"{"Spec":{"Raft":{"KeepOldSnapshots":5}}}"#;
        let error = init(serde_json::from_str(body).unwrap()).unwrap_err();
        assert!(error.to_string().contains("--max-snapshots"), "{error}");
        assert!(init(serde_json::from_str(r#"{"DefaultAddrPool":["10.0.0.1/8"]}"#).unwrap()).is_err());
        assert!(init(serde_json::from_str(r#"{"Availability":"sometimes"}"#).unwrap()).is_err());
        assert!(serde_json::from_str::<InitBody>(r#"{"DataPathPort":-1}"#).is_err());
    }
}
