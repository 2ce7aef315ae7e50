//! The manager over a real log, with the agent's real brain and an engine that always succeeds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use skep_agent::{Agent, AgentEvent, Operation};
use skep_types::node::{Availability, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::service::*;
use skep_types::swarm::{ClusterObject, ClusterSpec};
use skep_types::{ClusterId, Meta, ServiceId, TaskState, Version};

use super::*;

const NODE: NodeId = NodeId(7);
/// Patience with a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(60);
const DIR: &str = "SKEP_TEST_SWARM_DIR";

fn service(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container: ServiceContainer { image: "web".to_owned(), ..Default::default() },
            limits: Default::default(),
            reservations: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
        }),
        mode: ServiceMode::Replicated { replicas },
        update: UpdateConfig::default(),
        ports: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
    }
}

fn cluster(snapshot_interval: u64) -> Request {
    let cluster = ClusterObject {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec { snapshot_interval, ..Default::default() },
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix: 24,
        data_path_port: 4789,
        authority: Default::default(),
        unlock_key: None,
        worker_token: "worker".to_owned(),
        manager_token: "manager".to_owned(),
    };
    let node = Node {
        id: NODE,
        meta: Meta::default(),
        spec: NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: NodeRole::Manager,
            availability: Availability::Active,
        },
        description: description(),
        state: NodeState::Ready,
        message: String::new(),
        address: [192, 0, 2, 1].into(),
        manager: None,
        data_path: None,
        ingress_address: None,
    };
    Request::CreateCluster { cluster: Box::new(cluster), node: Box::new(node) }
}

fn description() -> NodeDescription {
    NodeDescription { hostname: "here".to_owned(), os: "linux".to_owned(), ..Default::default() }
}

/// A manager in `dir`, with an agent at its side.
async fn open(dir: &Path) -> (Manager, Announcer) {
    let announcer = Announcer::new();
    // As in a daemon: a seed that came twice would give new objects the ids of old ones.
    let seed = u128::from_be_bytes(crate::founding::random().unwrap());
    let (manager, assigned) = Manager::start(dir.to_owned(), NODE, seed, announcer.clone()).await.unwrap();
    tokio::spawn(fake_agent(assigned, manager.inputs()));
    (manager, announcer)
}

fn ready() -> Event {
    Event::NodeReady { node: NODE, description: Box::new(description()), address: [192, 0, 2, 1].into() }
}

async fn found(dir: &Path, snapshot_interval: u64) -> (Manager, Announcer) {
    let (manager, announcer) = open(dir).await;
    manager.request(cluster(snapshot_interval)).await.unwrap();
    assert!(manager.inputs().send(Input::Event(ready())).await.is_ok());
    (manager, announcer)
}

async fn create(manager: &Manager, spec: ServiceSpec) -> ServiceId {
    match manager.request(Request::CreateService(Box::new(spec))).await.unwrap() {
        Answer::Service(id) => id,
        Answer::Done => panic!("a created service has an id"),
    }
}

/// What an engine without failures answers.
fn succeed(operation: Operation, ids: &mut Ids) -> Option<AgentEvent> {
    Some(match operation {
        Operation::EnsureNetwork(network, _) => {
            AgentEvent::NetworkEnsured { network: network.id, result: Ok(()) }
        }
        Operation::UpdatePeers { network, .. } => AgentEvent::PeersUpdated { network, result: Ok(()) },
        Operation::RemoveNetwork(network) => AgentEvent::NetworkRemoved { network, result: Ok(()) },
        Operation::ServeEndpoint(endpoint) => {
            AgentEvent::EndpointApplied { service: endpoint.service, result: Ok(()) }
        }
        Operation::RemoveEndpoint(service) => AgentEvent::EndpointApplied { service, result: Ok(()) },
        Operation::Prepare { task, .. } => {
            AgentEvent::Prepared { task: task.id, result: Ok(ids.container()) }
        }
        Operation::Start { task, .. } => AgentEvent::Started { task, result: Ok(42) },
        Operation::AwaitListening { task, .. } => AgentEvent::Listens { task },
        Operation::Watch { .. } => return None,
        Operation::Stop { task, .. } => AgentEvent::Stopped { task, result: Ok(Some(0)) },
        Operation::Remove { task, .. } => AgentEvent::Removed { task, result: Ok(()) },
    })
}

async fn fake_agent(mut assigned: mpsc::Receiver<Assignment>, manager: mpsc::Sender<Input>) {
    let (mut agent, mut ids, clock) = (Agent::new(), Ids::new(9), Clock::default());
    while let Some(assignment) = assigned.recv().await {
        let mut events = vec![AgentEvent::Assigned(assignment)];
        while let Some(event) = events.pop() {
            let output = agent.step(event, clock.now());
            events.extend(output.operations.into_iter().filter_map(|operation| succeed(operation, &mut ids)));
            if !output.reports.is_empty() {
                let reports = Event::Reports(NODE, output.reports);
                if manager.send(Input::Event(reports)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits until the committed state is as `wanted`.
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

#[tokio::test]
async fn a_service_comes_to_run_and_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, announcer) = found(dir.path(), 10_000).await;
    let (_, mut events) = announcer.subscribe(None);
    let id = create(&manager, service("web", 3)).await;
    until(&manager, |objects| running(objects) == 3).await;
    let event = events.recv().await.unwrap();
    assert_eq!((event.action.as_str(), event.id), ("create", id.to_string()));
    let before: Vec<_> = manager.read(|objects| objects.tasks().map(|task| task.id).collect());
    manager.stop().await;

    let (manager, _) = open(dir.path()).await;
    let after: Vec<_> = manager.read(|objects| objects.tasks().map(|task| task.id).collect());
    assert_eq!(after, before, "the tasks are the same");
    assert_eq!(manager.read(running), 3);
    assert_eq!(manager.read(|objects| objects.service_named("web").map(|service| service.id)), Some(id));
}

#[tokio::test]
async fn refusals_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, _) = found(dir.path(), 10_000).await;
    let id = create(&manager, service("web", 0)).await;
    let again = manager.request(Request::CreateService(Box::new(service("web", 0)))).await;
    assert!(matches!(again, Err(SwarmError::Conflict(_))), "{again:?}");
    let stale = Request::UpdateService { id, version: Version(0), spec: Box::new(service("web", 1)) };
    let told = manager.request(stale).await.unwrap_err();
    assert_eq!(told, SwarmError::Internal("update out of sequence".to_owned()));
    let gone = manager.request(Request::RemoveService(ServiceId(5))).await;
    assert!(matches!(gone, Err(SwarmError::NotFound(_))), "{gone:?}");
}

#[tokio::test]
async fn events_tell_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, announcer) = found(dir.path(), 10_000).await;
    let id = create(&manager, service("web", 0)).await;
    let version = manager.read(|objects| objects.service(id).unwrap().meta.version);
    let spec = Box::new(service("web", 2));
    manager.request(Request::UpdateService { id, version, spec }).await.unwrap();
    manager.request(Request::RemoveService(id)).await.unwrap();
    let (past, _) = announcer.subscribe(Some(Time(0)));
    let told = |kind: &str| -> Vec<String> {
        let of_kind = past.iter().filter(|event| event.kind.name() == kind);
        of_kind.map(|event| format!("{} {:?}", event.action, event.attributes)).collect()
    };
    assert_eq!(
        told("service"),
        [
            r#"create {"name": "web"}"#,
            r#"update {"name": "web", "replicas.new": "2", "replicas.old": "0"}"#,
            r#"remove {"name": "web"}"#,
        ]
    );
    assert_eq!(told("network"), [r#"create {"name": "ingress"}"#]);
    assert_eq!(told("node")[0], r#"create {"name": "here"}"#);
}

#[tokio::test]
async fn snapshots_keep_the_log_short_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, _) = found(dir.path(), 8).await;
    for number in 0..40 {
        create(&manager, service(&format!("service-{number}"), 1)).await;
    }
    until(&manager, |objects| running(objects) == 40).await;
    manager.stop().await;

    let (log, recovery) = LogWorker::open(dir.path().to_owned()).await.unwrap();
    assert!(recovery.entries.len() <= 8, "{} entries are kept", recovery.entries.len());
    assert!(recovery.snapshot.is_some());
    drop(log);
    let (manager, _) = open(dir.path()).await;
    assert_eq!(manager.read(|objects| (objects.services().count(), running(objects))), (40, 40));
}

#[tokio::test]
async fn a_log_of_another_program_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = LogWorker::open(dir.path().to_owned()).await.unwrap();
    assert!(matches!(log.propose(vec![9, 9]).await.unwrap(), Fate::Committed(1)));
    drop(log);
    let refused = Manager::start(dir.path().to_owned(), NODE, 1, Announcer::new()).await.unwrap_err();
    assert_eq!(
        chain(&refused),
        "cannot read entry 1 of the swarm's state: it was written in format 9; this program reads format 1"
    );
    let (_log, recovery) = LogWorker::open(dir.path().to_owned()).await.unwrap();
    assert_eq!(recovery.entries.len(), 1);
}

/// Not a test of its own: the process that is killed. It creates services for ever, tells each, and takes
/// snapshots often.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let (manager, _) = open(dir).await;
    if manager.read(|objects| objects.cluster().is_none()) {
        manager.request(cluster(16)).await.unwrap();
    }
    assert!(manager.inputs().send(Input::Event(ready())).await.is_ok());
    for number in manager.read(|objects| objects.services().count()).. {
        create(&manager, service(&format!("service-{number}"), 1)).await;
        println!("\n{number}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_service_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lone::tests::child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Not a time but a number of services: it is the moment after one of them that varies.
        let moment = next + round * 5 % 13;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Ok(number) = line.unwrap().parse::<usize>() {
                next = number + 1;
                if number == moment {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(next > moment, "the child died by itself");

        let (manager, _) = open(dir.path()).await;
        let known = manager.read(|objects| objects.services().count());
        assert!(known >= next, "{known} of {next} services");
        for number in 0..known {
            let name = format!("service-{number}");
            assert!(manager.read(|objects| objects.service_named(&name).is_some()), "{name}");
        }
        next = known;
        manager.stop().await;
    }
}

/// Not a test of its own: runs in a mount namespace of its own, on a disk that fills up.
#[tokio::test]
async fn on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir).status();
    assert!(mounted.unwrap().success());
    let (manager, _) = found(&dir.join("log"), 10_000).await;
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);

    let attempt =
        |number: usize| manager.request(Request::CreateService(Box::new(service(&format!("s{number}"), 1))));
    let mut acknowledged = 0;
    let refusal = loop {
        match attempt(acknowledged).await {
            Ok(_) => acknowledged += 1,
            Err(refusal) => break refusal,
        }
        assert!(acknowledged < 10_000, "the disk never fills up");
    };
    let told = refusal.to_string();
    assert!(told.contains("the disk is full"), "{told}");

    std::fs::remove_file(&filler).unwrap();
    let again = async {
        while let Err(refusal) = attempt(acknowledged).await {
            // It may have been taken after all, and only its fate been unknown.
            if matches!(refusal, SwarmError::Conflict(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
    until(&manager, |objects| running(objects) == acknowledged + 1).await;
    manager.stop().await;
    let (manager, _) = open(&dir.join("log")).await;
    for number in 0..=acknowledged {
        let name = format!("s{number}");
        assert!(manager.read(|objects| objects.service_named(&name).is_some()), "{name}");
    }
}

#[test]
fn a_full_disk_is_said_and_the_manager_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "lone::tests::on_a_small_disk", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
