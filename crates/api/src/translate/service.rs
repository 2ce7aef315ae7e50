//! `docker service create` and `update`: from JSON to a specification.

use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models;
use models::{
    EndpointPortConfigProtocolEnum as ProtocolName, EndpointPortConfigPublishModeEnum as PublishName,
    EndpointSpecModeEnum as EndpointModeName, ServiceSpecUpdateConfigFailureActionEnum as FailureName,
    ServiceSpecUpdateConfigOrderEnum as OrderName, TaskSpecContainerSpecIsolationEnum as Isolation,
    TaskSpecRestartPolicyConditionEnum as ConditionName,
};
use serde::Deserialize;
use skep_engine::images::Reference;
use skep_types::NetworkId;
use skep_types::container::DnsConfig;
use skep_types::generic::GenericRequest;
use skep_types::placement::{Constraint, Placement, Platform, Preference};
use skep_types::port::Protocol;
use skep_types::resources::Resources;
use skep_types::service::{
    EndpointMode, FailureAction, NetworkAttachment, PortSpec, PublishMode, RestartCondition, RestartPolicy,
    ServiceContainer, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};

use super::refuse::{refuse, refuse_if, refuse_unless};
use super::{addresses, duration, generic, health, kernel, mount, ordered, unsigned};
use crate::body;
use crate::error::ApiError;

/// The id of the network that a user means.
pub type FindNetwork<'a> = &'a dyn Fn(&str) -> Result<NetworkId, ApiError>;

/// Reads a service's specification from the text of a body.
pub fn parse(text: &[u8], find: FindNetwork<'_>) -> Result<ServiceSpec, ApiError> {
    let mut model: models::ServiceSpec = body::parse(text)?.ok_or_else(body::missing)?;
    let misspelt: Misspelt = body::parse(text)?.unwrap_or_default();
    let check = misspelt.task_template.unwrap_or_default().container_spec.unwrap_or_default().healthcheck;
    let container = model.task_template.as_mut().and_then(|task| task.container_spec.as_mut());
    if let Some(container) = container
        && check.is_some()
    {
        container.health_check = check;
    }
    spec(model, find)
}

/// A field that Docker's clients write `Healthcheck` and Docker's specification, from which the models are
/// made, `HealthCheck`. Go does not tell them apart; Skep must not overlook it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Misspelt {
    task_template: Option<MisspeltTask>,
}

/// See [`Misspelt`].
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MisspeltTask {
    container_spec: Option<MisspeltContainer>,
}

/// See [`Misspelt`].
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MisspeltContainer {
    healthcheck: Option<models::HealthConfig>,
}

/// Reads a service's specification.
pub fn spec(spec: models::ServiceSpec, find: FindNetwork<'_>) -> Result<ServiceSpec, ApiError> {
    let models::ServiceSpec {
        name,
        labels,
        task_template,
        mode: service_mode,
        update_config,
        rollback_config,
        networks,
        endpoint_spec,
    } = spec;
    let mode = mode(service_mode)?;
    if mode.is_job() && update_config.is_some() {
        return Err(ApiError::invalid("Jobs may not have an update config"));
    }
    let mut template = task_template.unwrap_or_default();
    // As moby: the place for networks before API 1.25 counts where the template names none.
    let networks = template.networks.take().filter(|networks| !networks.is_empty()).or(networks);
    let (endpoint_mode, ports) = endpoint(endpoint_spec.unwrap_or_default())?;
    let ports = addresses::apply(ports, labels.as_ref())?;
    Ok(ServiceSpec {
        name: name.unwrap_or_default(),
        labels: ordered(labels),
        task: Arc::new(TaskSpec { networks: attachments(networks, find)?, ..task(template)? }),
        mode,
        update: update("update", update_config)?,
        rollback: update("rollback", rollback_config.map(as_update_config))?,
        ports,
        endpoint_mode,
    })
}

fn attachments(
    networks: Option<Vec<models::NetworkAttachmentConfig>>,
    find: FindNetwork<'_>,
) -> Result<Vec<NetworkAttachment>, ApiError> {
    let read = |config: models::NetworkAttachmentConfig| {
        let models::NetworkAttachmentConfig { target, aliases, driver_opts } = config;
        refuse("TaskTemplate.Networks.DriverOpts", &driver_opts)?;
        let network = find(&target.unwrap_or_default())?;
        Ok(NetworkAttachment { network, aliases: aliases.unwrap_or_default() })
    };
    networks.unwrap_or_default().into_iter().map(read).collect()
}

/// As moby's `ServiceSpecToGRPC`: who names no mode gets one replica, and a replicated job runs one task at a time, and
/// as often as at a time.
fn mode(mode: Option<models::ServiceSpecMode>) -> Result<ServiceMode, ApiError> {
    let models::ServiceSpecMode { replicated, global, replicated_job, global_job } = mode.unwrap_or_default();
    let named = [replicated.is_some(), global.is_some(), replicated_job.is_some(), global_job.is_some()];
    if named.into_iter().filter(|is_named| *is_named).count() > 1 {
        return Err(ApiError::invalid("must specify only one service mode"));
    }
    if global.is_some() {
        return Ok(ServiceMode::Global);
    }
    if global_job.is_some() {
        return Ok(ServiceMode::GlobalJob);
    }
    if let Some(models::ServiceSpecModeReplicatedJob { max_concurrent, total_completions }) = replicated_job {
        let max_concurrent = max_concurrent.unwrap_or(1);
        let count = |tasks: i64, message| u64::try_from(tasks).map_err(|_| ApiError::invalid(message));
        return Ok(ServiceMode::ReplicatedJob {
            max_concurrent: count(max_concurrent, "Maximum concurrent jobs must not be negative")?,
            total_completions: count(
                total_completions.unwrap_or(max_concurrent),
                "Total completed jobs must not be negative",
            )?,
        });
    }
    let models::ServiceSpecModeReplicated { replicas } = replicated.unwrap_or_default();
    Ok(ServiceMode::Replicated { replicas: unsigned("Mode.Replicated.Replicas", replicas.unwrap_or(1))? })
}

/// The models have two types of one shape.
fn as_update_config(config: models::ServiceSpecRollbackConfig) -> models::ServiceSpecUpdateConfig {
    use models::{
        ServiceSpecRollbackConfigFailureActionEnum as Failure, ServiceSpecRollbackConfigOrderEnum as Order,
    };
    let models::ServiceSpecRollbackConfig {
        parallelism,
        delay,
        failure_action,
        monitor,
        max_failure_ratio,
        order,
    } = config;
    models::ServiceSpecUpdateConfig {
        parallelism,
        delay,
        failure_action: failure_action.map(|action| match action {
            Failure::EMPTY => FailureName::EMPTY,
            Failure::CONTINUE => FailureName::CONTINUE,
            Failure::PAUSE => FailureName::PAUSE,
        }),
        monitor,
        max_failure_ratio,
        order: order.map(|order| match order {
            Order::EMPTY => OrderName::EMPTY,
            Order::STOP_FIRST => OrderName::STOP_FIRST,
            Order::START_FIRST => OrderName::START_FIRST,
        }),
    }
}

/// Reads how an update is rolled out, or a rollback, as `what` says. Refused with SwarmKit's words.
fn update(what: &str, config: Option<models::ServiceSpecUpdateConfig>) -> Result<UpdateConfig, ApiError> {
    let default = UpdateConfig::default();
    let Some(config) = config else { return Ok(default) };
    let models::ServiceSpecUpdateConfig {
        parallelism,
        delay,
        failure_action,
        monitor,
        max_failure_ratio,
        order,
    } = config;
    let ratio = max_failure_ratio.unwrap_or_default();
    if !(0.0..=1.0).contains(&ratio) {
        let message = format!("TaskSpec: {what}-maxfailureratio cannot be less than 0 or bigger than 1");
        return Err(ApiError::invalid(message));
    }
    Ok(UpdateConfig {
        // Zero is given on purpose (all at once), nothing means the default.
        parallelism: parallelism
            .map_or(Ok(default.parallelism), |it| unsigned(&format!("{what}-parallelism"), it))?,
        delay: swarm_duration(&format!("{what}-delay"), delay.unwrap_or_default())?,
        failure_action: match failure_action {
            None | Some(FailureName::EMPTY | FailureName::PAUSE) => FailureAction::Pause,
            Some(FailureName::CONTINUE) => FailureAction::Continue,
            Some(FailureName::ROLLBACK) => FailureAction::Rollback,
        },
        monitor: monitor
            .filter(|it| *it != 0)
            .map_or(Ok(default.monitor), |it| swarm_duration(&format!("{what}-monitor"), it))?,
        order: match order {
            None | Some(OrderName::EMPTY | OrderName::STOP_FIRST) => UpdateOrder::StopFirst,
            Some(OrderName::START_FIRST) => UpdateOrder::StartFirst,
        },
        // Thousandths, rounded: no floating point goes below this floor. In 0..=1000 by the check above.
        max_failure_permille: (ratio * 1000.0).round() as u32,
    })
}

/// A duration in nanoseconds, refused with SwarmKit's words.
fn swarm_duration(what: &str, nanoseconds: i64) -> Result<Duration, ApiError> {
    let refusal = || ApiError::invalid(format!("TaskSpec: {what} cannot be negative"));
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| refusal())
}

fn endpoint(spec: models::EndpointSpec) -> Result<(EndpointMode, Vec<PortSpec>), ApiError> {
    let models::EndpointSpec { mode, ports } = spec;
    let mode = match mode {
        None | Some(EndpointModeName::EMPTY | EndpointModeName::VIP) => EndpointMode::Vip,
        Some(EndpointModeName::DNSRR) => EndpointMode::Dnsrr,
    };
    Ok((mode, ports.unwrap_or_default().into_iter().map(port).collect::<Result<_, _>>()?))
}

fn port(port: models::EndpointPortConfig) -> Result<PortSpec, ApiError> {
    let models::EndpointPortConfig { name, protocol, target_port, published_port, publish_mode } = port;
    let number = |field: &str, number: Option<i64>| {
        u16::try_from(number.unwrap_or_default())
            .map_err(|_| ApiError::invalid(format!("{field} must be a port, 0 to 65535")))
    };
    Ok(PortSpec {
        name: name.unwrap_or_default(),
        protocol: match protocol {
            None | Some(ProtocolName::EMPTY | ProtocolName::TCP) => Protocol::Tcp,
            Some(ProtocolName::UDP) => Protocol::Udp,
            Some(ProtocolName::SCTP) => {
                return Err(ApiError::not_built("option EndpointSpec.Ports.Protocol=sctp"));
            }
        },
        target_port: match number("EndpointSpec.Ports.TargetPort", target_port)? {
            0 => return Err(ApiError::invalid("EndpointSpec.Ports.TargetPort must be specified")),
            port => port,
        },
        published_port: number("EndpointSpec.Ports.PublishedPort", published_port)?,
        address: None,
        mode: match publish_mode {
            None | Some(PublishName::EMPTY | PublishName::INGRESS) => PublishMode::Ingress,
            Some(PublishName::HOST) => PublishMode::Host,
        },
    })
}

fn task(spec: models::TaskSpec) -> Result<TaskSpec, ApiError> {
    let models::TaskSpec {
        plugin_spec,
        container_spec,
        network_attachment_spec,
        resources,
        restart_policy,
        placement: placed,
        force_update,
        runtime,
        // Taken by `spec`.
        networks: _,
        log_driver,
    } = spec;
    refuse_if("TaskTemplate.PluginSpec", plugin_spec.is_some())?;
    refuse_if("TaskTemplate.NetworkAttachmentSpec", network_attachment_spec.is_some())?;
    refuse_unless("TaskTemplate.Runtime", runtime.as_deref(), &["container"])?;
    let models::TaskSpecLogDriver { name: log_driver, options } = log_driver.unwrap_or_default();
    refuse("TaskTemplate.LogDriver.Options (--log-opt)", &options)?;
    let log = kernel::log_driver("TaskTemplate.LogDriver (--log-driver)", log_driver.as_deref())?;
    let placement = placement(placed.unwrap_or_default())?;
    let container = container_spec.ok_or_else(|| ApiError::invalid("mismatched Runtime and *Spec fields"))?;
    let (limits, reservations, generic) = bounds(resources.unwrap_or_default())?;
    Ok(TaskSpec {
        container: service_container(container)?,
        limits,
        reservations,
        generic,
        restart: restart(restart_policy)?,
        placement,
        force_update: force_update.unwrap_or_default(),
        networks: Vec::new(),
        log,
    })
}

fn placement(placement: models::TaskSpecPlacement) -> Result<Placement, ApiError> {
    let models::TaskSpecPlacement { constraints, preferences, max_replicas, platforms } = placement;
    // As moby: what is no way of spreading is nothing.
    let spread = |preference: models::TaskSpecPlacementPreferences| {
        let models::TaskSpecPlacementSpread { spread_descriptor } = preference.spread?;
        Some(Preference { spread: spread_descriptor.unwrap_or_default() })
    };
    let max_replicas = unsigned("TaskTemplate.Placement.MaxReplicas", max_replicas.unwrap_or_default())?;
    let constraints = constraints.unwrap_or_default().into_iter().map(Constraint::try_from);
    let platforms = platforms.unwrap_or_default().into_iter().map(|models::Platform { architecture, os }| {
        Platform { architecture: architecture.unwrap_or_default(), os: os.unwrap_or_default() }
    });
    Ok(Placement {
        constraints: constraints
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        platforms: platforms.collect(),
        preferences: preferences.unwrap_or_default().into_iter().filter_map(spread).collect(),
        max_replicas,
    })
}

fn bounds(resources: models::TaskSpecResources) -> Result<(Resources, Resources, GenericRequest), ApiError> {
    let models::TaskSpecResources { limits, reservations } = resources;
    let models::Limit { nano_cpus, memory_bytes, pids } = limits.unwrap_or_default();
    let limits = Resources {
        nano_cpus: nano_cpus.unwrap_or_default(),
        memory_bytes: memory_bytes.unwrap_or_default(),
        pids: not_negative("limits.Pids", pids)?,
    };
    let models::ResourceObject { nano_cpus, memory_bytes, generic_resources } =
        reservations.unwrap_or_default();
    let reservations = Resources {
        nano_cpus: nano_cpus.unwrap_or_default(),
        memory_bytes: memory_bytes.unwrap_or_default(),
        pids: 0,
    };
    Ok((limits, reservations, generic::request(generic_resources.unwrap_or_default())?))
}

fn not_negative(field: &str, number: Option<i64>) -> Result<i64, ApiError> {
    match number.unwrap_or_default() {
        negative @ ..0 => Err(ApiError::invalid(format!("invalid {field}: {negative} is negative"))),
        number => Ok(number),
    }
}

fn restart(policy: Option<models::TaskSpecRestartPolicy>) -> Result<RestartPolicy, ApiError> {
    let default = RestartPolicy::default();
    let Some(policy) = policy else { return Ok(default) };
    let models::TaskSpecRestartPolicy { condition, delay, max_attempts, window } = policy;
    Ok(RestartPolicy {
        condition: match condition {
            None | Some(ConditionName::EMPTY | ConditionName::ANY) => RestartCondition::Any,
            Some(ConditionName::ON_FAILURE) => RestartCondition::OnFailure,
            Some(ConditionName::NONE) => RestartCondition::None,
        },
        delay: delay.map_or(Ok(default.delay), |delay| swarm_duration("restart-delay", delay))?,
        max_attempts: unsigned("RestartPolicy.MaxAttempts", max_attempts.unwrap_or_default())?,
        window: swarm_duration("restart-window", window.unwrap_or_default())?,
    })
}

fn service_container(spec: models::TaskSpecContainerSpec) -> Result<ServiceContainer, ApiError> {
    let models::TaskSpecContainerSpec {
        image,
        labels,
        command,
        args,
        hostname,
        env,
        dir,
        user,
        groups,
        privileges,
        tty,
        open_stdin,
        read_only,
        mounts,
        stop_signal,
        stop_grace_period,
        health_check,
        hosts,
        dns_config,
        secrets,
        oom_score_adj,
        configs,
        isolation,
        init,
        sysctls,
        capability_add,
        capability_drop,
        ulimits,
    } = spec;
    let models::TaskSpecContainerSpecDnsConfig { nameservers, search, options } =
        dns_config.unwrap_or_default();
    refuse("ContainerSpec.Secrets (--secret)", &secrets)?;
    refuse("ContainerSpec.Configs (--config)", &configs)?;
    let odd_isolation = !matches!(isolation, None | Some(Isolation::EMPTY | Isolation::DEFAULT));
    refuse_if("ContainerSpec.Isolation (--isolation)", odd_isolation)?;
    let mounts =
        mounts.unwrap_or_default().into_iter().map(mount::from_model).collect::<Result<Vec<_>, _>>()?;
    mount::refuse_duplicates(&mounts)?;
    let image = image.unwrap_or_default();
    if image.is_empty() {
        return Err(ApiError::invalid("ContainerSpec: image reference must be provided"));
    }
    if !is_id(&image) && image.parse::<Reference>().is_err() {
        return Err(ApiError::invalid(format!("ContainerSpec: {image:?} is not a valid repository/tag")));
    }
    let words = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    Ok(ServiceContainer {
        image,
        labels: ordered(labels),
        command: words(command),
        args: words(args),
        env: env.unwrap_or_default(),
        dir: dir.unwrap_or_default(),
        user: user.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
        hostname: hostname.unwrap_or_default(),
        init: init.unwrap_or_default(),
        tty: tty.unwrap_or_default(),
        open_stdin: open_stdin.unwrap_or_default(),
        read_only: read_only.unwrap_or_default(),
        mounts,
        hosts: hosts.unwrap_or_default(),
        cap_add: capability_add.unwrap_or_default().into_iter().collect(),
        cap_drop: capability_drop.unwrap_or_default().into_iter().collect(),
        stop_signal: stop_signal.unwrap_or_default(),
        stop_grace: stop_grace_period
            .map(|grace| duration("ContainerSpec.StopGracePeriod", grace))
            .transpose()?,
        health: health_check.map(health::from_model).transpose()?,
        dns: DnsConfig {
            servers: nameservers.unwrap_or_default(),
            search: search.unwrap_or_default(),
            options: options.unwrap_or_default(),
        },
        sysctls: ordered(sysctls),
        ulimits: kernel::ulimits(ulimits)?,
        oom_score_adj: kernel::oom_score_adj(oom_score_adj)?,
        privileges: kernel::privileges(privileges)?,
        // It comes in a header.
        registry_auth: None,
    })
}

/// Whether a text is an image's id rather than a name.
fn is_id(image: &str) -> bool {
    let text = image.strip_prefix("sha256:").unwrap_or(image);
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What Docker warns of when no registry told an image's digest; `None` for an image that names exactly one
/// content anyway: by digest, or by id.
pub fn digest_warning(image: &str) -> Option<String> {
    let pinned = image.contains('@') || is_id(image);
    (!pinned).then(|| {
        format!(
            "image {image} could not be accessed on a registry to record its digest. Each node will access {image} \
             independently, possibly leading to different nodes running different versions of the image.\n"
        )
    })
}

#[cfg(test)]
mod tests;
