//! Carrying out what the agent decides: each operation is one or two calls of the engine.

use std::time::Duration;

use skep_agent::{AgentEvent, Launched, Observed, Operation, PeerChange, Recovered, Watched};
use skep_engine::images::{Credentials, Pull, Reference};
use skep_engine::options::{ContainerFilter, RemoveOptions, WaitCondition};
use skep_engine::view::{StateView, Status};
use skep_engine::{Engine, Error, ErrorKind};
use skep_types::container::ClusterAttachment;
use skep_types::health::HealthStatus;
use skep_types::service::{PortSpec, PublishMode};
use skep_types::{ContainerId, NetworkId, Task, TaskId};
use tracing::warn;

use crate::container::{self, LABEL_TASK, LABEL_TASK_ID, Machine};

/// Performs one operation and says how it ended.
pub(crate) async fn perform(engine: &Engine, operation: Operation) -> AgentEvent {
    match operation {
        Operation::EnsureNetwork(network, overlay) => AgentEvent::NetworkEnsured {
            network: network.id,
            result: logged("bring up a network", engine.ensure_network(&network, overlay).await),
        },
        Operation::UpdatePeers { network, change } => AgentEvent::PeersUpdated {
            network,
            result: logged("tell a network its peers", update_peers(engine, network, change).await),
        },
        Operation::UpdateRecords { network, change } => AgentEvent::RecordsUpdated {
            network,
            result: logged("tell a network its names", engine.change_records(network, change).await),
        },
        Operation::SetTunnel { tunnel, peers } => AgentEvent::TunnelSet {
            result: logged("prepare encrypted networks", engine.set_tunnel(tunnel, peers).await),
        },
        Operation::RemoveNetwork(network) => AgentEvent::NetworkRemoved {
            network,
            result: logged("take a network away", engine.remove_network(network).await),
        },
        Operation::ServeEndpoint(endpoint) => AgentEvent::EndpointApplied {
            service: endpoint.service,
            result: logged("serve an endpoint", engine.serve_endpoint(&endpoint).await),
        },
        Operation::RemoveEndpoint(service) => AgentEvent::EndpointApplied {
            service,
            result: logged("serve an endpoint no longer", engine.remove_endpoint(service).await),
        },
        Operation::Prepare { task, attachments } => AgentEvent::Prepared {
            task: task.id,
            result: prepare(engine, &task, attachments).await.map_err(text),
        },
        Operation::Start { task, container } => {
            AgentEvent::Started { task, result: start(engine, container).await }
        }
        Operation::AwaitReady { task, container, ports, limit } => {
            AgentEvent::Ready { task, result: await_ready(engine, container, &ports, limit).await }
        }
        Operation::Watch { task, container } => watch(engine, task, container).await,
        Operation::Drain { task, container, limit } => {
            // One that cannot be found has no connections.
            let _ = engine.drain(&container.to_string(), limit).await;
            AgentEvent::Drained { task }
        }
        Operation::Stop { task, container, signal, grace } => {
            let result = stop(engine, container, &signal, grace).await;
            AgentEvent::Stopped { task, result: logged("stop a task", result) }
        }
        Operation::Remove { task, container } => AgentEvent::Removed {
            task,
            result: logged("remove a task's container", remove(engine, container).await),
        },
    }
}

/// Pulls the image of a task that is to be prepared, unless it is here. As moby's controller: a failure is only logged, for
/// making the container then says what is missing.
///
/// Unlike moby's, a tag that is here is not looked up anew: services are pinned to a digest, and where no registry could be
/// asked about that, asking again would only keep the task from starting.
pub(crate) async fn fetch_image(engine: &Engine, task: &Task) {
    let container = &task.spec.container;
    let is_id = container.image.starts_with("sha256:");
    let Some(reference) = container.image.parse::<Reference>().ok().filter(|_| !is_id) else { return };
    if engine.has_image(&container.image) {
        return;
    }
    let credentials = container.registry_auth.as_ref().and_then(|auth| {
        let parsed = Credentials::from_header(&auth.0);
        parsed
            .inspect_err(|error| warn!(%error, "the credentials of a service cannot be read"))
            .ok()
            .flatten()
    });
    let (report, mut steps) = tokio::sync::mpsc::channel(1);
    let pull = engine.pull_image(Pull { reference, all_tags: false, platform: None, credentials }, report);
    let (pulled, ()) = tokio::join!(pull, async { while steps.recv().await.is_some() {} });
    if let Err(error) = pulled {
        warn!(error = error.message, image = container.image, "pulling image failed");
    }
}

fn text(error: Error) -> String {
    error.message
}

/// Operations without a task's status to show their error in show it in the log; the agent tries again.
fn logged<T>(tried: &'static str, result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| {
        warn!(error = error.message, "could not {tried}; trying again");
        error.message
    })
}

/// Takes the ends that were wished for, however they came about, for success.
fn already<T>(result: Result<T, Error>, default: T) -> Result<T, Error> {
    match result {
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotModified) => Ok(default),
        result => result,
    }
}

async fn prepare(
    engine: &Engine,
    task: &Task,
    attachments: Vec<ClusterAttachment>,
) -> Result<ContainerId, Error> {
    let name = task.container_name();
    let (hostname, architecture) = skep_engine::machine();
    let machine = Machine { hostname, architecture, os: "linux".to_owned() };
    let config = container::config(task, attachments, &machine);
    let config = config.map_err(|error| Error::invalid(error.to_string()))?;
    match engine.create(Some(name.clone()), config).await {
        Ok(created) => Ok(created.id),
        // As moby's controller: a container that exists under the task's name is the task's.
        Err(error) if error.kind == ErrorKind::Conflict => {
            let found = engine.inspect(&name).map_err(|_| error.clone())?;
            let ours = found.config.labels.get(LABEL_TASK_ID) == Some(&task.id.to_string());
            if ours { Ok(found.id) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

async fn start(engine: &Engine, container: ContainerId) -> Result<Launched, String> {
    let name = container.to_string();
    already(engine.start(&name).await, ())
        // As moby's controller.
        .map_err(|error| format!("starting container failed: {}", error.message))?;
    let state = engine.inspect(&name).ok().map(|view| view.state);
    let is_probed = state.as_ref().is_some_and(|state| state.health.is_some());
    Ok(Launched {
        pid: state.map_or(0, |state| state.pid),
        health: if is_probed { Watched::Yes } else { Watched::No },
    })
}

/// Errors only for one that is unhealthy: that it ended meanwhile is told by the watch.
async fn await_ready(
    engine: &Engine,
    container: ContainerId,
    ports: &[u16],
    limit: Duration,
) -> Result<(), String> {
    let name = container.to_string();
    let _ = engine.await_listening(&name, ports, limit).await;
    match engine.await_healthy(&name).await {
        Ok(false) => Err("unhealthy container".to_owned()),
        Ok(true) | Err(_) => Ok(()),
    }
}

async fn watch(engine: &Engine, task: TaskId, container: ContainerId) -> AgentEvent {
    let name = container.to_string();
    let ended = async {
        let ended = engine.wait(&name, WaitCondition::NotRunning).await?.await;
        Ok::<_, Error>(ended.code)
    };
    tokio::select! {
        result = ended => AgentEvent::Exited { task, result: result.map_err(text) },
        Ok(()) = engine.await_unhealthy(&name) => AgentEvent::Unhealthy { task },
    }
}

async fn stop(
    engine: &Engine,
    container: ContainerId,
    signal: &str,
    grace: Option<Duration>,
) -> Result<Option<i32>, Error> {
    let name = container.to_string();
    let signal = Some(signal).filter(|signal| !signal.is_empty());
    // The engine counts whole seconds; a part of one counts as one.
    let seconds = grace.map(|grace| grace.as_millis().div_ceil(1000));
    let timeout = seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    already(engine.stop(&name, signal, timeout).await, ())?;
    Ok(engine.inspect(&name).ok().map(|view| view.state.exit_code))
}

/// Removes a task's container and its anonymous volumes, killing it if it runs.
pub(crate) async fn remove(engine: &Engine, container: ContainerId) -> Result<(), Error> {
    already(engine.remove(&container.to_string(), RemoveOptions { force: true, volumes: true }).await, ())
}

/// The containers of tasks on this machine, of whichever swarm.
pub(crate) async fn task_containers(
    engine: &Engine,
) -> Result<Vec<(Option<TaskId>, ContainerId, Observed)>, Error> {
    let filter = ContainerFilter {
        all: true,
        label: vec![(LABEL_TASK.to_owned(), None)],
        ..ContainerFilter::default()
    };
    let found = engine.list(&filter).await?.into_iter().map(|summary| {
        let task = summary.labels.get(LABEL_TASK_ID).and_then(|id| id.parse().ok());
        let observed = match summary.state.status {
            Status::Created => Observed::Created,
            Status::Running if is_starting(&summary.state) => Observed::Starting(summary.state.pid),
            Status::Running => Observed::Running(summary.state.pid),
            Status::Exited | Status::Removing | Status::Dead => Observed::Exited(summary.state.exit_code),
        };
        (task, summary.id, observed)
    });
    Ok(found.collect())
}

/// The ports of this machine that lead to a container, each once.
pub(crate) fn host_ports(engine: &Engine, container: ContainerId) -> Vec<PortSpec> {
    let mut ports: Vec<PortSpec> = Vec::new();
    for port in engine.published_ports(container) {
        let Some((_, published_port)) = port.host else { continue };
        let told = PortSpec {
            name: String::new(),
            protocol: port.container.protocol,
            target_port: port.container.port,
            published_port,
            mode: PublishMode::Host,
            address: None,
        };
        // One line for each family.
        if !ports.contains(&told) {
            ports.push(told);
        }
    }
    ports
}

fn is_starting(state: &StateView) -> bool {
    state.health.is_some_and(|health| health.status == HealthStatus::Starting)
}

async fn update_peers(engine: &Engine, network: NetworkId, change: PeerChange) -> Result<(), Error> {
    match change {
        PeerChange::All(peers) => engine.set_peers(network, peers).await,
        PeerChange::Changed { update, remove } => engine.change_peers(network, update, remove).await,
    }
}

/// What a former agent left on this machine.
pub(crate) async fn recover(engine: &Engine) -> Result<Recovered, Error> {
    let containers = task_containers(engine).await?;
    let containers = containers.into_iter().filter_map(|(task, id, observed)| Some((task?, id, observed)));
    Ok(Recovered {
        containers: containers.collect(),
        networks: engine.cluster_networks(),
        endpoints: engine.endpoints(),
    })
}

/// Takes away what serves a swarm on this machine besides containers. What fails is logged: the node leaves.
pub(crate) async fn clear_networks(engine: &Engine) {
    for service in engine.endpoints() {
        warn_of("serve an endpoint no longer", engine.remove_endpoint(service).await);
    }
    for network in engine.cluster_networks() {
        warn_of("take a network away", engine.remove_network(network).await);
    }
}

fn warn_of(tried: &'static str, result: Result<(), Error>) {
    if let Err(error) = result {
        warn!(error = error.message, "could not {tried}");
    }
}
