//! Services as clients see them.

use std::collections::BTreeMap;

use bollard_stubs::models;
use models::{
    EndpointPortConfigProtocolEnum as ProtocolName, EndpointPortConfigPublishModeEnum as PublishName,
    EndpointSpecModeEnum as EndpointModeName, ServiceSpecUpdateConfigFailureActionEnum as FailureName,
    ServiceSpecUpdateConfigOrderEnum as OrderName, ServiceUpdateStatusStateEnum as UpdateStateName,
    TaskSpecContainerSpecIsolationEnum as Isolation, TaskSpecRestartPolicyConditionEnum as ConditionName,
};
use serde::Serialize;
use skep_types::ServiceId;
use skep_types::network::Network;
use skep_types::placement::{Constraint, Placement, Platform, Preference};
use skep_types::port::Protocol;
use skep_types::service::{
    EndpointMode, FailureAction, NetworkAttachment, PortSpec, PublishMode, RestartCondition, RestartPolicy,
    Service, ServiceContainer, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};
use skep_types::task::{Task, TaskState};

use super::spelling::Spelt;
use super::{generic, health, kernel, mount, nanoseconds, unordered};

/// A service, with the field that the models lack.
#[derive(Serialize)]
pub struct ServiceView {
    #[serde(flatten)]
    service: models::Service,
    #[serde(rename = "Spec")]
    spec: Spelt<models::ServiceSpec>,
    #[serde(rename = "PreviousSpec", skip_serializing_if = "Option::is_none")]
    previous_spec: Option<Spelt<models::ServiceSpec>>,
}

/// A service as clients see it. `defaults` fills in what nobody set; `status` is for lists that asked for it.
pub fn to_model(
    service: &Service,
    networks: &[Network],
    defaults: bool,
    status: Option<models::ServiceServiceStatus>,
) -> ServiceView {
    let addresses = service.virtual_ips.iter().map(|ip| {
        let prefix = networks
            .iter()
            .find(|network| network.id == ip.network)
            .map_or(32, |network| network.subnet.prefix());
        models::ServiceEndpointVirtualIps {
            network_id: Some(ip.network.to_string()),
            addr: Some(format!("{}/{prefix}", ip.address)),
        }
    });
    let addresses: Vec<_> = addresses.collect();
    let ports: Vec<_> = service.ports.iter().map(port).collect();
    // As Docker: a service that publishes nothing and has no address has no endpoint to speak of.
    let endpoint = models::ServiceEndpoint {
        spec: Some(if service.spec.ports.is_empty() && addresses.is_empty() {
            models::EndpointSpec::default()
        } else {
            endpoint_spec(&service.spec)
        }),
        ports: (!ports.is_empty()).then_some(ports),
        virtual_ips: (!addresses.is_empty()).then_some(addresses),
    };
    ServiceView {
        service: models::Service {
            id: Some(service.id.to_string()),
            version: Some(models::ObjectVersion { index: Some(service.meta.version.0) }),
            created_at: Some(service.meta.created_at.to_string()),
            updated_at: Some(service.meta.updated_at.to_string()),
            // In `ServiceView`.
            spec: None,
            endpoint: Some(endpoint),
            update_status: service.update_status.as_ref().map(update_status),
            service_status: status,
            job_status: service.job.map(|job| models::ServiceJobStatus {
                // As Go leaves out zeros: the first run has no number.
                job_iteration: Some(models::ObjectVersion {
                    index: Some(job.iteration).filter(|run| *run != 0),
                }),
                last_execution: Some(job.last_execution.to_string()),
            }),
        },
        spec: Spelt(spec(&service.spec, defaults)),
        previous_spec: service.previous_spec.as_ref().map(|previous| Spelt(spec(previous, defaults))),
    }
}

/// Tasks of one service, as `docker service ls` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCount {
    running: u64,
    /// Wanted ones that have not completed.
    wanted: u64,
    completed: u64,
}

/// Counts the tasks of every service in one pass, of a job those of its present iteration.
///
/// As moby's `ListServiceStatuses`: a task counts as running when it is wanted and seen running.
pub fn count_tasks(services: &[Service], tasks: &[Task]) -> BTreeMap<ServiceId, TaskCount> {
    let iterations: BTreeMap<ServiceId, u64> =
        services.iter().filter_map(|service| Some((service.id, service.job?.iteration))).collect();
    let mut counts = BTreeMap::<ServiceId, TaskCount>::new();
    let current = |task: &&Task| task.iteration == iterations.get(&task.service).copied();
    for task in tasks.iter().filter(current) {
        let count = counts.entry(task.service).or_default();
        let state = task.status.state;
        count.running += u64::from(state == TaskState::Running && task.desired == task.goal());
        count.wanted += u64::from(state != TaskState::Complete && task.desired == task.goal());
        count.completed += u64::from(state == TaskState::Complete);
    }
    counts
}

/// What `docker service ls` shows of a service: how many tasks a replicated one wants at a time is in its
/// specification, of a global one those that are wanted are counted.
pub fn status(service: &Service, count: TaskCount) -> models::ServiceServiceStatus {
    models::ServiceServiceStatus {
        running_tasks: Some(count.running),
        desired_tasks: Some(match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            ServiceMode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
            ServiceMode::Global | ServiceMode::GlobalJob => count.wanted,
        }),
        completed_tasks: Some(count.completed),
    }
}

/// A specification as a client gave it; `defaults` adds what Docker shows with `insertDefaults`.
pub fn spec(spec: &ServiceSpec, defaults: bool) -> models::ServiceSpec {
    let mut task_template = task_spec(&spec.task);
    task_template.runtime = Some("container".to_owned());
    if defaults {
        task_template.restart_policy.get_or_insert_with(|| restart_policy(&spec.task.restart));
        if let Some(container) = &mut task_template.container_spec {
            container.stop_grace_period.get_or_insert(10_000_000_000);
        }
    }
    // A job has neither, but defaults of both.
    let shown = |config: &UpdateConfig| defaults || !spec.mode.is_job() && *config != UpdateConfig::default();
    models::ServiceSpec {
        name: Some(spec.name.clone()),
        labels: Some(unordered(&spec.labels)),
        task_template: Some(task_template),
        mode: Some(mode(spec.mode)),
        update_config: shown(&spec.update).then(|| update_config(&spec.update)),
        rollback_config: shown(&spec.rollback).then(|| rollback_config(&spec.rollback)),
        networks: None,
        endpoint_spec: Some(endpoint_spec(spec)),
    }
}

fn mode(mode: ServiceMode) -> models::ServiceSpecMode {
    let count = |tasks: u64| i64::try_from(tasks).ok();
    let mut model = models::ServiceSpecMode::default();
    match mode {
        ServiceMode::Replicated { replicas } => {
            model.replicated = Some(models::ServiceSpecModeReplicated { replicas: count(replicas) });
        }
        ServiceMode::Global => model.global = Some(Default::default()),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            model.replicated_job = Some(models::ServiceSpecModeReplicatedJob {
                max_concurrent: count(max_concurrent),
                total_completions: count(total_completions),
            });
        }
        ServiceMode::GlobalJob => model.global_job = Some(Default::default()),
    }
    model
}

/// The models have two types of one shape. A rollback whose failure was to be answered with a rollback is paused.
fn rollback_config(config: &UpdateConfig) -> models::ServiceSpecRollbackConfig {
    use models::{
        ServiceSpecRollbackConfigFailureActionEnum as Failure, ServiceSpecRollbackConfigOrderEnum as Order,
    };
    models::ServiceSpecRollbackConfig {
        parallelism: i64::try_from(config.parallelism).ok(),
        delay: (!config.delay.is_zero()).then(|| nanoseconds(config.delay)),
        failure_action: Some(match config.failure_action {
            FailureAction::Pause | FailureAction::Rollback => Failure::PAUSE,
            FailureAction::Continue => Failure::CONTINUE,
        }),
        monitor: Some(nanoseconds(config.monitor)),
        max_failure_ratio: Some(f64::from(config.max_failure_permille) / 1000.0),
        order: Some(match config.order {
            UpdateOrder::StopFirst => Order::STOP_FIRST,
            UpdateOrder::StartFirst => Order::START_FIRST,
        }),
    }
}

fn endpoint_spec(spec: &ServiceSpec) -> models::EndpointSpec {
    models::EndpointSpec {
        mode: Some(match spec.endpoint_mode {
            EndpointMode::Vip => EndpointModeName::VIP,
            EndpointMode::Dnsrr => EndpointModeName::DNSRR,
        }),
        ports: (!spec.ports.is_empty()).then(|| spec.ports.iter().map(port).collect()),
    }
}

pub(super) fn port(port: &PortSpec) -> models::EndpointPortConfig {
    models::EndpointPortConfig {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        protocol: Some(match port.protocol {
            Protocol::Tcp => ProtocolName::TCP,
            Protocol::Udp => ProtocolName::UDP,
        }),
        target_port: Some(i64::from(port.target_port)),
        published_port: (port.published_port != 0).then_some(i64::from(port.published_port)),
        publish_mode: Some(match port.mode {
            PublishMode::Ingress => PublishName::INGRESS,
            PublishMode::Host => PublishName::HOST,
        }),
    }
}

fn update_config(config: &UpdateConfig) -> models::ServiceSpecUpdateConfig {
    models::ServiceSpecUpdateConfig {
        parallelism: i64::try_from(config.parallelism).ok(),
        delay: (!config.delay.is_zero()).then(|| nanoseconds(config.delay)),
        failure_action: Some(match config.failure_action {
            FailureAction::Pause => FailureName::PAUSE,
            FailureAction::Continue => FailureName::CONTINUE,
            FailureAction::Rollback => FailureName::ROLLBACK,
        }),
        monitor: Some(nanoseconds(config.monitor)),
        max_failure_ratio: Some(f64::from(config.max_failure_permille) / 1000.0),
        order: Some(match config.order {
            UpdateOrder::StopFirst => OrderName::STOP_FIRST,
            UpdateOrder::StartFirst => OrderName::START_FIRST,
        }),
    }
}

/// What a task runs, of a service's specification or of the task itself. How it is restarted is only said where it is
/// not as it is by default: Docker leaves out what nobody set.
pub fn task_spec(spec: &TaskSpec) -> models::TaskSpec {
    models::TaskSpec {
        container_spec: Some(container_spec(&spec.container)),
        resources: Some(resources(spec)),
        restart_policy: (spec.restart != RestartPolicy::default()).then(|| restart_policy(&spec.restart)),
        placement: Some(placement(&spec.placement)),
        force_update: Some(spec.force_update),
        networks: (!spec.networks.is_empty()).then(|| spec.networks.iter().map(attachment).collect()),
        log_driver: spec
            .log
            .map(|driver| models::TaskSpecLogDriver { name: Some(driver.name().to_owned()), options: None }),
        ..Default::default()
    }
}

fn attachment(attachment: &NetworkAttachment) -> models::NetworkAttachmentConfig {
    let aliases = &attachment.aliases;
    models::NetworkAttachmentConfig {
        target: Some(attachment.network.to_string()),
        aliases: (!aliases.is_empty()).then(|| aliases.clone()),
        driver_opts: None,
    }
}

fn placement(placement: &Placement) -> models::TaskSpecPlacement {
    let constraints: Vec<String> = placement.constraints.iter().map(Constraint::to_string).collect();
    let platform = |platform: &Platform| {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        models::Platform { architecture: some(&platform.architecture), os: some(&platform.os) }
    };
    let platforms: Vec<_> = placement.platforms.iter().map(platform).collect();
    let preference = |preference: &Preference| models::TaskSpecPlacementPreferences {
        spread: Some(models::TaskSpecPlacementSpread { spread_descriptor: Some(preference.spread.clone()) }),
    };
    let preferences: Vec<_> = placement.preferences.iter().map(preference).collect();
    models::TaskSpecPlacement {
        constraints: (!constraints.is_empty()).then_some(constraints),
        platforms: (!platforms.is_empty()).then_some(platforms),
        preferences: (!preferences.is_empty()).then_some(preferences),
        max_replicas: i64::try_from(placement.max_replicas).ok().filter(|most| *most > 0),
    }
}

fn restart_policy(policy: &RestartPolicy) -> models::TaskSpecRestartPolicy {
    models::TaskSpecRestartPolicy {
        condition: Some(match policy.condition {
            RestartCondition::None => ConditionName::NONE,
            RestartCondition::OnFailure => ConditionName::ON_FAILURE,
            RestartCondition::Any => ConditionName::ANY,
        }),
        delay: Some(nanoseconds(policy.delay)),
        max_attempts: i64::try_from(policy.max_attempts).ok(),
        window: (!policy.window.is_zero()).then_some(nanoseconds(policy.window)),
    }
}

fn resources(TaskSpec { limits, reservations, generic, .. }: &TaskSpec) -> models::TaskSpecResources {
    let discrete = |(kind, count): (&String, &u64)| generic::discrete(kind, *count);
    let generic: Vec<_> = generic.iter().map(discrete).collect();
    let some = |number: i64| (number != 0).then_some(number);
    models::TaskSpecResources {
        limits: Some(models::Limit {
            nano_cpus: some(limits.nano_cpus),
            memory_bytes: some(limits.memory_bytes),
            pids: some(limits.pids),
        }),
        reservations: Some(models::ResourceObject {
            nano_cpus: some(reservations.nano_cpus),
            memory_bytes: some(reservations.memory_bytes),
            generic_resources: (!generic.is_empty()).then_some(generic),
        }),
    }
}

fn container_spec(container: &ServiceContainer) -> models::TaskSpecContainerSpec {
    let ServiceContainer {
        image,
        labels,
        command,
        args,
        env,
        dir,
        user,
        groups,
        hostname,
        init,
        tty,
        open_stdin,
        read_only,
        mounts,
        hosts,
        cap_add,
        cap_drop,
        stop_signal,
        stop_grace,
        health,
        dns,
        sysctls,
        ulimits,
        oom_score_adj,
        privileges,
        // A secret.
        registry_auth: _,
    } = container;
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let set =
        |set: &std::collections::BTreeSet<String>| (!set.is_empty()).then(|| set.iter().cloned().collect());
    models::TaskSpecContainerSpec {
        image: Some(image.clone()),
        labels: (!labels.is_empty()).then(|| unordered(labels)),
        command: command.clone(),
        args: args.clone(),
        hostname: text(hostname),
        env: list(env),
        dir: text(dir),
        user: text(user),
        groups: list(groups),
        tty: tty.then_some(true),
        open_stdin: open_stdin.then_some(true),
        read_only: read_only.then_some(true),
        mounts: (!mounts.is_empty()).then(|| mounts.iter().map(mount::to_model).collect()),
        stop_signal: text(stop_signal),
        stop_grace_period: stop_grace.map(nanoseconds),
        health_check: health.as_ref().map(health::to_model),
        hosts: list(hosts),
        dns_config: Some(models::TaskSpecContainerSpecDnsConfig {
            nameservers: list(&dns.servers),
            search: list(&dns.search),
            options: list(&dns.options),
        }),
        sysctls: (!sysctls.is_empty()).then(|| unordered(sysctls)),
        ulimits: kernel::ulimit_models(ulimits),
        oom_score_adj: (*oom_score_adj != 0).then_some(i64::from(*oom_score_adj)),
        privileges: privileges.as_ref().map(kernel::privileges_model),
        isolation: Some(Isolation::DEFAULT),
        init: Some(*init),
        capability_add: set(cap_add),
        capability_drop: set(cap_drop),
        ..Default::default()
    }
}

fn update_status(status: &UpdateStatus) -> models::ServiceUpdateStatus {
    models::ServiceUpdateStatus {
        state: Some(match status.state {
            UpdateState::Updating => UpdateStateName::UPDATING,
            UpdateState::Paused => UpdateStateName::PAUSED,
            UpdateState::Completed => UpdateStateName::COMPLETED,
            UpdateState::RollbackStarted => UpdateStateName::ROLLBACK_STARTED,
            UpdateState::RollbackPaused => UpdateStateName::ROLLBACK_PAUSED,
            UpdateState::RollbackCompleted => UpdateStateName::ROLLBACK_COMPLETED,
        }),
        started_at: Some(status.started_at.to_string()),
        completed_at: status.completed_at.map(|time| time.to_string()),
        message: Some(status.message.clone()),
    }
}
