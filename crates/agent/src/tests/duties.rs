//! Networks and endpoints, and the tasks that wait for them.

use skep_types::assignment::EndpointPort;
use skep_types::port::Protocol;

use super::*;

#[test]
fn networks_come_before_containers() {
    let ensured = |result| AgentEvent::NetworkEnsured { network: INGRESS, result };
    check(
        [
            complete([attached(1, TaskState::Running), ingress()]),
            ensured(Ok(())),
            update([attached(2, TaskState::Running)]),
        ],
        expect![[r#"
            1
              ensure network ingress
              report 1 preparing at 1 "preparing"
            2
              prepare 1 at [10.0.0.1]
            3
              prepare 2 at [10.0.0.2]
              report 2 preparing at 3 "preparing"
        "#]],
    );
    check(
        [
            complete([attached(1, TaskState::Running), ingress()]),
            ensured(Err("no bridge for you".to_owned())),
            AgentEvent::Tick,
            ensured(Err("again".to_owned())),
            update([attached(2, TaskState::Running)]),
        ],
        expect![[r#"
            1
              ensure network ingress
              report 1 preparing at 1 "preparing"
            2
              report 1 rejected at 2 "preparing" error "no bridge for you"
              wake at 3
            3
              ensure network ingress
            4
              wake at 6
            5
              ensure network ingress
              report 2 preparing at 5 "preparing"
        "#]],
    );
    check(
        [complete([attached(1, TaskState::Running)])],
        expect![[r#"
        1
          report 1 rejected at 1 "preparing" error "network 000000000000000000000002i not found"
    "#]],
    );
}

#[test]
fn a_network_goes_after_the_last_container_on_it() {
    check(
        [
            complete([ingress(), attached(1, TaskState::Running)]),
            AgentEvent::NetworkEnsured { network: INGRESS, result: Ok(()) },
            prepared(1),
            started(1),
            remove([DutyId::Network(INGRESS), DutyId::Task(TaskId(1))]),
            stopped(1, 0),
            removed(1),
            AgentEvent::NetworkRemoved { network: INGRESS, result: Ok(()) },
        ],
        expect![[r#"
            1
              ensure network ingress
              report 1 preparing at 1 "preparing"
            2
              prepare 1 at [10.0.0.1]
            3
              start 1
              report 1 starting at 3 "starting" pid 0 exit None
            4
              watch 1
              report 1 running at 4 "started" pid 101 exit None
            5
              stop 1 "SIGINT" Some(3s)
            6
              remove 1
            7
              remove network
            8
        "#]],
    );
}

fn applied(result: Result<(), &str>) -> AgentEvent {
    AgentEvent::EndpointApplied { service: WEB, result: result.map_err(str::to_owned) }
}

/// A task that runs behind an endpoint, and what follows.
fn running_then(rest: impl IntoIterator<Item = AgentEvent>) -> impl Iterator<Item = AgentEvent> {
    let before = [
        complete([endpoint(&[1, 2]), duty(1, TaskState::Running)]),
        applied(Ok(())),
        prepared(1),
        started(1),
    ];
    before.into_iter().chain(rest)
}

#[test]
fn an_endpoint_changes_before_a_task_behind_it_stops() {
    let rest = [update([endpoint(&[2]), duty(1, TaskState::Shutdown)]), applied(Ok(())), stopped(1, 0)];
    check(
        running_then(rest),
        expect![[r#"
        1
          serve web [10.0.0.1, 10.0.0.2]
          prepare 1 at []
          report 1 preparing at 1 "preparing"
        2
        3
          start 1
          report 1 starting at 3 "starting" pid 0 exit None
        4
          watch 1
          report 1 running at 4 "started" pid 101 exit None
        5
          serve web [10.0.0.2]
        6
          stop 1 "SIGINT" Some(3s)
        7
          report 1 shutdown at 7 "shutdown" pid 0 exit Some(0)
    "#]],
    );
}

#[test]
fn an_endpoint_goes_before_a_task_behind_it_stops() {
    let rest = [remove([DutyId::Endpoint(WEB), DutyId::Task(TaskId(1))]), applied(Ok(()))];
    check(
        running_then(rest),
        expect![[r#"
        1
          serve web [10.0.0.1, 10.0.0.2]
          prepare 1 at []
          report 1 preparing at 1 "preparing"
        2
        3
          start 1
          report 1 starting at 3 "starting" pid 0 exit None
        4
          watch 1
          report 1 running at 4 "started" pid 101 exit None
        5
          remove endpoint
        6
          stop 1 "SIGINT" Some(3s)
    "#]],
    );
}

#[test]
fn a_table_that_cannot_be_changed_does_not_keep_a_task_alive() {
    let rest = [
        update([endpoint(&[2]), duty(1, TaskState::Shutdown)]),
        applied(Err("netlink says no")),
        AgentEvent::Tick,
        applied(Ok(())),
    ];
    check(
        running_then(rest),
        expect![[r#"
        1
          serve web [10.0.0.1, 10.0.0.2]
          prepare 1 at []
          report 1 preparing at 1 "preparing"
        2
        3
          start 1
          report 1 starting at 3 "starting" pid 0 exit None
        4
          watch 1
          report 1 running at 4 "started" pid 101 exit None
        5
          serve web [10.0.0.2]
        6
          stop 1 "SIGINT" Some(3s)
          wake at 7
        7
          serve web [10.0.0.2]
        8
    "#]],
    );
}

#[test]
fn an_endpoint_s_latest_state_is_served_without_the_ones_between() {
    check(
        [
            complete([endpoint(&[])]),
            update([endpoint(&[1])]),
            update([endpoint(&[1, 2])]),
            applied(Ok(())),
            applied(Ok(())),
            complete([endpoint(&[1, 2])]),
        ],
        expect![[r#"
            1
              serve web []
            2
            3
            4
              serve web [10.0.0.1, 10.0.0.2]
            5
            6
        "#]],
    );
}

#[test]
fn a_task_with_a_published_port_runs_once_it_listens() {
    let port = |protocol, target_port| EndpointPort { protocol, published_port: 8080, target_port };
    let ports = vec![port(Protocol::Tcp, 80), port(Protocol::Udp, 53)];
    let served = || {
        let ports = ports.clone();
        Duty::Endpoint(Endpoint { service: WEB, name: "web".to_owned(), ports, backends: Vec::new() })
    };
    let listens = || AgentEvent::Listens { task: TaskId(1) };
    check(
        [complete([served(), duty(1, TaskState::Running)]), prepared(1), started(1), listens(), listens()],
        expect![[r#"
            1
              serve web []
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              await 1 on [80]
            4
              report 1 running at 4 "started" pid 101 exit None
            5
        "#]],
    );
    check(
        [complete([served(), duty(1, TaskState::Running)]), prepared(1), started(1), exited(1, 1), listens()],
        expect![[r#"
            1
              serve web []
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              await 1 on [80]
            4
              report 1 failed at 4 "starting" error "task: non-zero exit (1)" pid 0 exit Some(1)
            5
        "#]],
    );
}
