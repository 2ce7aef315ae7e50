//! What the agent decides, event by event.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::assignment::{Assignment, Duty, DutyId, Endpoint, Overlay, Peer, ServiceRecord, TaskAddress};
use skep_types::network::{Guest, Network};
use skep_types::records::{RecordChange, Records};
use skep_types::resources::Resources;
use skep_types::service::{RestartPolicy, ServiceContainer, TaskSpec};
use skep_types::task::Attachment;
use skep_types::{
    ContainerId, Meta, NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Time, Version,
};

use crate::{Agent, AgentEvent, AgentOutput, Launched, Observed, Operation, PeerChange, Recovered, Watched};

mod alone;
mod duties;
mod health;
mod random;
mod records;
mod recovery;

const INGRESS: NetworkId = NetworkId(90);
const WEB: ServiceId = ServiceId(50);

fn container(task: u128) -> ContainerId {
    ContainerId([task as u8; 32])
}

/// Task number `id` of the service web, without networks, as a manager would assign it.
fn task(id: u128, desired: TaskState) -> Task {
    Task {
        id: TaskId(id),
        meta: Meta::default(),
        service: WEB,
        slot: id as u64,
        node: Some(NodeId(1)),
        spec: Arc::new(TaskSpec {
            container: ServiceContainer {
                image: "web".to_owned(),
                stop_signal: "SIGINT".to_owned(),
                stop_grace: Some(Duration::from_secs(3)),
                ..Default::default()
            },
            limits: Resources::default(),
            reservations: Resources::default(),
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        spec_version: Version(1),
        service_name: "web".to_owned(),
        service_labels: Default::default(),
        desired,
        status: TaskStatus {
            state: TaskState::Assigned,
            since: Time(0),
            message: "scheduler assigned task to node".to_owned(),
            error: String::new(),
            container: None,
        },
        attachments: Vec::new(),
        not_before: None,
        host_ports: Vec::new(),
        pinned: None,
        iteration: None,
        generic: Default::default(),
        moves: false,
    }
}

fn in_state(state: TaskState, mut task: Task) -> Duty {
    task.status.state = state;
    Duty::Task(Box::new(task))
}

fn duty(id: u128, desired: TaskState) -> Duty {
    Duty::Task(Box::new(task(id, desired)))
}

fn attached(id: u128, desired: TaskState) -> Duty {
    let address = [10, 0, 0, id as u8].into();
    Duty::Task(Box::new(Task {
        attachments: vec![Attachment { network: INGRESS, address }],
        ..task(id, desired)
    }))
}

fn ingress() -> Duty {
    Duty::Network(Network {
        ingress: true,
        ..Network::new(INGRESS, "ingress", "10.0.0.0/24".parse().expect("a subnet"), 4096)
    })
}

/// This node's own place on the ingress network.
fn place(host: u8) -> Duty {
    let address = Some([10, 0, 0, 200].into());
    Duty::Overlay(Overlay { network: INGRESS, address, host: [192, 0, 2, host].into(), port: 4789 })
}

fn peer(last: u8, host: u8) -> Duty {
    Duty::Peer(Peer { network: INGRESS, address: [10, 0, 0, last].into(), host: [192, 0, 2, host].into() })
}

fn record(service: u128, tasks: &[u8]) -> Duty {
    let tasks = tasks.iter().map(|last| TaskAddress {
        slot: u64::from(*last),
        node: None,
        task: TaskId(u128::from(*last)),
        address: [10, 0, 0, *last].into(),
    });
    Duty::Record(ServiceRecord {
        service: ServiceId(service),
        network: INGRESS,
        name: format!("s{service}"),
        aliases: Vec::new(),
        virtual_ip: None,
        tasks: tasks.collect(),
    })
}

fn endpoint(backends: &[u8]) -> Duty {
    let backends = backends.iter().map(|last| [10, 0, 0, *last].into()).collect();
    Duty::Endpoint(Endpoint { service: WEB, name: "web".to_owned(), ports: Vec::new(), backends })
}

fn assigned(number: u64, assignment: Assignment) -> AgentEvent {
    AgentEvent::Assigned { number, assignment }
}

fn complete(duties: impl IntoIterator<Item = Duty>) -> AgentEvent {
    assigned(1, Assignment::Complete(duties.into_iter().collect()))
}

fn update(duties: impl IntoIterator<Item = Duty>) -> AgentEvent {
    let update = duties.into_iter().collect();
    assigned(1, Assignment::Incremental { update, remove: Vec::new() })
}

fn remove(duties: impl IntoIterator<Item = DutyId>) -> AgentEvent {
    let remove = duties.into_iter().collect();
    assigned(1, Assignment::Incremental { update: Vec::new(), remove })
}

fn prepared(id: u128) -> AgentEvent {
    AgentEvent::Prepared { task: TaskId(id), result: Ok(container(id)) }
}

fn started(id: u128) -> AgentEvent {
    launched(id, Watched::No)
}

fn launched(id: u128, health: Watched) -> AgentEvent {
    AgentEvent::Started { task: TaskId(id), result: Ok(Launched { pid: 100 + id as u32, health }) }
}

fn exited(id: u128, code: i32) -> AgentEvent {
    AgentEvent::Exited { task: TaskId(id), result: Ok(code) }
}

fn stopped(id: u128, code: i32) -> AgentEvent {
    AgentEvent::Stopped { task: TaskId(id), result: Ok(Some(code)) }
}

fn removed(id: u128) -> AgentEvent {
    AgentEvent::Removed { task: TaskId(id), result: Ok(()) }
}

fn found(containers: &[(u128, Observed)]) -> AgentEvent {
    let containers =
        containers.iter().map(|(id, observed)| (TaskId(*id), container(*id), *observed)).collect();
    AgentEvent::Recovered(Recovered { containers, networks: Vec::new(), endpoints: Vec::new() })
}

fn number(id: impl ToString) -> String {
    id.to_string().trim_start_matches('0').to_owned()
}

/// Each name with how many tasks it leads to.
fn names(records: &Records) -> String {
    let services = records.services.values().map(|it| format!("{}:{}", it.name, it.tasks.len()));
    let guests = records.guests.values().flat_map(|guest| guest.names.clone());
    services.chain(guests).collect::<Vec<_>>().join(" ")
}

fn operation_text(operation: &Operation) -> String {
    match operation {
        Operation::EnsureNetwork(network, None) => format!("ensure network {}", network.name),
        Operation::EnsureNetwork(network, Some(overlay)) => {
            let at = overlay.address.map(|address| format!(" at {address}")).unwrap_or_default();
            format!("ensure network {}{at} on {}:{}", network.name, overlay.host, overlay.port)
        }
        Operation::UpdatePeers { change: PeerChange::All(peers), .. } => format!("peers {peers:?}"),
        Operation::UpdatePeers { change: PeerChange::Changed { update, remove }, .. } => {
            format!("peers +{update:?} -{remove:?}")
        }
        Operation::UpdateRecords { change: RecordChange::All(all), .. } => format!("records {}", names(all)),
        Operation::UpdateRecords { change: RecordChange::Changed { update, services, guests }, .. } => {
            format!("records +{} -{} -{}", names(update), services.len(), guests.len())
        }
        Operation::SetTunnel { tunnel, peers } => {
            format!("tunnel {:?} to {}", tunnel.as_ref().map(|tunnel| tunnel.host), peers.len())
        }
        Operation::RemoveNetwork(_) => "remove network".to_owned(),
        Operation::ServeEndpoint(endpoint) => format!("serve {} {:?}", endpoint.name, endpoint.backends),
        Operation::RemoveEndpoint(_) => "remove endpoint".to_owned(),
        Operation::Prepare { task, attachments } => {
            let addresses: Vec<_> = attachments.iter().map(|attachment| attachment.address).collect();
            format!("prepare {} at {addresses:?}", number(task.id))
        }
        Operation::Start { task, .. } => format!("start {}", number(task)),
        Operation::AwaitReady { task, ports, .. } => format!("await {} on {ports:?}", number(task)),
        Operation::Watch { task, .. } => format!("watch {}", number(task)),
        Operation::Drain { task, limit, .. } => format!("drain {} {limit:?}", number(task)),
        Operation::Stop { task, signal, grace, .. } => format!("stop {} {signal:?} {grace:?}", number(task)),
        Operation::Remove { task, .. } => format!("remove {}", number(task)),
    }
}

fn output_text(output: &AgentOutput) -> String {
    let mut text = String::new();
    for operation in &output.operations {
        let _ = writeln!(text, "  {}", operation_text(operation));
    }
    for task in &output.abandoned {
        let _ = writeln!(text, "  abandon {}", number(task));
    }
    for report in &output.reports {
        let TaskStatus { state, since, message, error, container } = &report.status;
        let _ = write!(text, "  report {} {state} at {} {message:?}", number(report.task), since.as_secs());
        if !error.is_empty() {
            let _ = write!(text, " error {error:?}");
        }
        if let Some(container) = container {
            let _ = write!(text, " pid {} exit {:?}", container.pid, container.exit_code);
        }
        text.push('\n');
    }
    if let Some(number) = output.acknowledged.filter(|number| *number > 1) {
        let _ = writeln!(text, "  acknowledge {number}");
    }
    if let Some(at) = output.wake_at {
        let _ = writeln!(text, "  wake at {}", at.as_secs());
    }
    text
}

/// Feeds events one second apart and compares everything that follows.
fn check(events: impl IntoIterator<Item = AgentEvent>, expected: Expect) {
    let (mut agent, mut text) = (Agent::new(), String::new());
    for (second, event) in (1..).zip(events) {
        let output = agent.step(event, Time(second * 1_000_000_000));
        let _ = write!(text, "{second}\n{}", output_text(&output));
    }
    expected.assert_eq(&text);
}

#[test]
fn a_task_climbs_the_ladder() {
    check(
        [complete([duty(1, TaskState::Running)]), prepared(1), started(1), exited(1, 0)],
        expect![[r#"
        1
          prepare 1 at []
          report 1 preparing at 1 "preparing"
        2
          start 1
          report 1 starting at 2 "starting" pid 0 exit None
        3
          watch 1
          report 1 running at 3 "started" pid 101 exit None
        4
          report 1 complete at 4 "finished" pid 0 exit Some(0)
    "#]],
    );
}

#[test]
fn a_task_that_is_to_be_ready_waits_for_the_word() {
    check(
        [complete([duty(1, TaskState::Ready)]), prepared(1), update([duty(1, TaskState::Running)])],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              report 1 ready at 2 "prepared" pid 0 exit None
            3
              start 1
              report 1 starting at 3 "starting" pid 0 exit None
        "#]],
    );
}

#[test]
fn a_preparation_that_is_for_nothing_is_abandoned() {
    let cut_off = || AgentEvent::Prepared { task: TaskId(1), result: Err("abandoned".to_owned()) };
    check(
        [
            complete([duty(1, TaskState::Running)]),
            update([duty(1, TaskState::Shutdown)]),
            AgentEvent::Tick,
            cut_off(),
            complete([duty(2, TaskState::Running)]),
            complete([]),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              abandon 1
            3
            4
              report 1 shutdown at 4 "shutdown"
            5
              prepare 2 at []
              report 2 preparing at 5 "preparing"
            6
              abandon 2
        "#]],
    );
}

#[test]
fn failures_are_told_in_swarmkit_s_words() {
    let refused = |text: &str| Err(text.to_owned());
    check(
        [
            complete([1, 2, 3, 4].map(|id| duty(id, TaskState::Running))),
            AgentEvent::Prepared { task: TaskId(1), result: Err("No such image: web:latest".to_owned()) },
            prepared(2),
            AgentEvent::Started { task: TaskId(2), result: refused("starting container failed: no") },
            prepared(3),
            started(3),
            exited(3, 137),
            prepared(4),
            started(4),
            AgentEvent::Exited { task: TaskId(4), result: Err("No such container: web.4".to_owned()) },
        ],
        expect![[r#"
            1
              prepare 1 at []
              prepare 2 at []
              prepare 3 at []
              prepare 4 at []
              report 1 preparing at 1 "preparing"
              report 2 preparing at 1 "preparing"
              report 3 preparing at 1 "preparing"
              report 4 preparing at 1 "preparing"
            2
              report 1 rejected at 2 "preparing" error "No such image: web:latest"
            3
              start 2
              report 2 starting at 3 "starting" pid 0 exit None
            4
              report 2 failed at 4 "starting" error "starting container failed: no" pid 0 exit None
            5
              start 3
              report 3 starting at 5 "starting" pid 0 exit None
            6
              watch 3
              report 3 running at 6 "started" pid 103 exit None
            7
              report 3 failed at 7 "started" error "task: non-zero exit (137)" pid 0 exit Some(137)
            8
              start 4
              report 4 starting at 8 "starting" pid 0 exit None
            9
              watch 4
              report 4 running at 9 "started" pid 104 exit None
            10
              report 4 failed at 10 "started" error "No such container: web.4" pid 0 exit None
        "#]],
    );
}

#[test]
fn a_stopped_task_keeps_its_container_until_the_duty_goes() {
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            started(1),
            update([duty(1, TaskState::Shutdown)]),
            exited(1, 130),
            stopped(1, 130),
            remove([DutyId::Task(TaskId(1))]),
            removed(1),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
              stop 1 "SIGINT" Some(3s)
            5
            6
              report 1 shutdown at 6 "shutdown" pid 0 exit Some(130)
            7
              remove 1
            8
        "#]],
    );
}

#[test]
fn a_task_to_be_removed_loses_its_container_at_once() {
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            started(1),
            update([duty(1, TaskState::Remove)]),
            stopped(1, 0),
            removed(1),
            remove([DutyId::Task(TaskId(1))]),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
              stop 1 "SIGINT" Some(3s)
            5
              remove 1
              report 1 shutdown at 5 "shutdown" pid 0 exit Some(0)
            6
            7
        "#]],
    );
}

#[test]
fn a_task_can_be_stopped_on_every_rung() {
    // Before anything was done; while its container is created; while it starts.
    check(
        [complete([duty(1, TaskState::Shutdown)])],
        expect![[r#"
        1
          report 1 shutdown at 1 "shutdown"
    "#]],
    );
    check(
        [complete([duty(1, TaskState::Running)]), update([duty(1, TaskState::Shutdown)]), prepared(1)],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              abandon 1
            3
              report 1 shutdown at 3 "shutdown" pid 0 exit None
        "#]],
    );
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            update([duty(1, TaskState::Shutdown)]),
            started(1),
            stopped(1, 0),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
            4
              watch 1
              stop 1 "SIGINT" Some(3s)
              report 1 running at 4 "started" pid 101 exit None
            5
              report 1 shutdown at 5 "shutdown" pid 0 exit Some(0)
        "#]],
    );
    // A container that appears after its duty went is removed.
    check(
        [complete([duty(1, TaskState::Running)]), remove([DutyId::Task(TaskId(1))]), prepared(1), removed(1)],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              abandon 1
            3
              remove 1
            4
        "#]],
    );
}

#[test]
fn what_ended_by_itself_is_not_told_to_have_been_shut_down() {
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            started(1),
            exited(1, 1),
            update([in_state(TaskState::Running, task(1, TaskState::Shutdown))]),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
              report 1 failed at 4 "started" error "task: non-zero exit (1)" pid 0 exit Some(1)
            5
        "#]],
    );
}

#[test]
fn a_stop_or_removal_that_fails_is_tried_again() {
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            started(1),
            remove([DutyId::Task(TaskId(1))]),
            AgentEvent::Stopped { task: TaskId(1), result: Err("busy".to_owned()) },
            AgentEvent::Tick,
            stopped(1, 0),
            AgentEvent::Removed { task: TaskId(1), result: Err("busy".to_owned()) },
            AgentEvent::Tick,
            removed(1),
        ],
        expect![[r#"
            1
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
              stop 1 "SIGINT" Some(3s)
            5
              wake at 6
            6
              stop 1 "SIGINT" Some(3s)
            7
              remove 1
            8
              wake at 9
            9
              remove 1
            10
        "#]],
    );
}
