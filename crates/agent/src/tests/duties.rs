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

#[test]
fn a_network_does_not_wait_for_containers_that_are_kept_for_their_history() {
    check(
        [
            complete([ingress(), attached(1, TaskState::Running)]),
            AgentEvent::NetworkEnsured { network: INGRESS, result: Ok(()) },
            prepared(1),
            started(1),
            update([attached(1, TaskState::Shutdown)]),
            AgentEvent::Drained { task: TaskId(1) },
            remove([DutyId::Network(INGRESS)]),
            stopped(1, 0),
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
              drain 1 3s
            6
              stop 1 "SIGINT" Some(3s)
            7
            8
              remove network
              report 1 shutdown at 8 "shutdown" pid 0 exit Some(0)
        "#]],
    );
}

#[test]
fn a_network_that_cannot_go_and_is_wanted_again_is_brought_up_anew() {
    let network_removed = |result: Result<(), &str>| AgentEvent::NetworkRemoved {
        network: INGRESS,
        result: result.map_err(str::to_owned),
    };
    let ensured = || AgentEvent::NetworkEnsured { network: INGRESS, result: Ok(()) };
    check(
        [
            complete([ingress()]),
            ensured(),
            remove([DutyId::Network(INGRESS)]),
            update([ingress()]),
            network_removed(Err("network has active endpoints")),
            ensured(),
            remove([DutyId::Network(INGRESS)]),
            network_removed(Err("network has active endpoints")),
            AgentEvent::Tick,
        ],
        expect![[r#"
            1
              ensure network ingress
            2
            3
              remove network
            4
            5
              ensure network ingress
            6
            7
              remove network
            8
              wake at 9
            9
              remove network
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
fn running_tasks_say_why_their_services_ports_are_not_served_here() {
    let refused = "failed to bind host port for 0.0.0.0:80/tcp: address already in use";
    check(
        [
            complete([endpoint(&[1]), duty(1, TaskState::Running)]),
            applied(Err(refused)),
            prepared(1),
            started(1),
            AgentEvent::Tick,
            applied(Err(refused)),
            AgentEvent::Tick,
            AgentEvent::Tick,
            applied(Ok(())),
        ],
        expect![[r#"
            1
              serve web [10.0.0.1]
              prepare 1 at []
              report 1 preparing at 1 "preparing"
            2
              wake at 3
            3
              serve web [10.0.0.1]
              start 1
              report 1 starting at 3 "starting" pid 0 exit None
            4
              watch 1
              report 1 running at 4 "started" error "failed to bind host port for 0.0.0.0:80/tcp: address already in use" pid 101 exit None
            5
            6
              wake at 8
            7
              wake at 8
            8
              serve web [10.0.0.1]
            9
              report 1 running at 4 "started" pid 101 exit None
        "#]],
    );
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
              report 1 running at 4 "started" error "netlink says no" pid 101 exit None
              wake at 7
            7
              serve web [10.0.0.2]
            8
              report 1 running at 4 "started" pid 101 exit None
        "#]],
    );
}

fn change(number: u64, backends: &[u8]) -> AgentEvent {
    assigned(number, Assignment::Incremental { update: vec![endpoint(backends)], remove: Vec::new() })
}

#[test]
fn changes_of_tables_are_acknowledged_once_they_are_in_force() {
    check(
        [
            assigned(5, Assignment::Complete(vec![endpoint(&[1, 2])])),
            applied(Ok(())),
            change(7, &[2]),
            change(9, &[]),
            applied(Ok(())),
            // It is about no table.
            assigned(12, Assignment::Incremental { update: Vec::new(), remove: Vec::new() }),
            applied(Ok(())),
            assigned(13, Assignment::Incremental { update: Vec::new(), remove: Vec::new() }),
            // Other managers have heard nothing.
            assigned(13, Assignment::Complete(vec![endpoint(&[])])),
        ],
        expect![[r#"
            1
              serve web [10.0.0.1, 10.0.0.2]
            2
              acknowledge 5
            3
              serve web [10.0.0.2]
            4
            5
              serve web []
              acknowledge 7
            6
            7
              acknowledge 9
            8
            9
              acknowledge 13
        "#]],
    );
}

#[test]
fn a_table_that_keeps_failing_holds_back_no_acknowledgement() {
    let fails = || applied(Err("netlink says no"));
    check(
        [complete([]), change(5, &[1]), fails(), AgentEvent::Tick, fails(), AgentEvent::Tick],
        expect![[r#"
            1
            2
              serve web [10.0.0.1]
            3
              wake at 4
            4
              serve web [10.0.0.1]
            5
              acknowledge 5
              wake at 7
            6
              wake at 7
        "#]],
    );
}

/// A task with an address that runs, and what follows.
fn attached_then(rest: impl IntoIterator<Item = AgentEvent>) -> impl Iterator<Item = AgentEvent> {
    let before =
        [complete([ingress(), attached(1, TaskState::Running)]), ensured(Ok(())), prepared(1), started(1)];
    before.into_iter().chain(rest)
}

fn drained(id: u128) -> AgentEvent {
    AgentEvent::Drained { task: TaskId(id) }
}

#[test]
fn a_task_with_an_address_is_stopped_when_its_connections_have_ended() {
    let end = || update([attached(1, TaskState::Shutdown)]);
    check(
        attached_then([end(), drained(1), stopped(1, 0), drained(1)]),
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
          drain 1 3s
        6
          stop 1 "SIGINT" Some(3s)
        7
          report 1 shutdown at 7 "shutdown" pid 0 exit Some(0)
        8
    "#]],
    );
    // Whoever stops it meanwhile, and a daemon that comes after this one.
    check(
        attached_then([end(), exited(1, 137), drained(1)]),
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
          drain 1 3s
        6
          report 1 failed at 6 "started" error "task: non-zero exit (137)" pid 0 exit Some(137)
        7
    "#]],
    );
    // A stop that failed does not wait for them again.
    let fails = AgentEvent::Stopped { task: TaskId(1), result: Err("busy".to_owned()) };
    check(
        attached_then([end(), drained(1), fails, AgentEvent::Tick]),
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
          drain 1 3s
        6
          stop 1 "SIGINT" Some(3s)
        7
          wake at 8
        8
          stop 1 "SIGINT" Some(3s)
    "#]],
    );
}

#[test]
fn a_task_that_is_to_end_is_not_restarted_without_managers() {
    let end = || update([attached(1, TaskState::Shutdown)]);
    check(
        attached_then([end(), AgentEvent::Alone, exited(1, 1), drained(1)]),
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
          drain 1 3s
        6
        7
          report 1 failed at 7 "started" error "task: non-zero exit (1)" pid 0 exit Some(1)
        8
    "#]],
    );
}

#[test]
fn a_task_that_is_taken_away_does_not_wait_for_its_connections() {
    let away = || remove([DutyId::Task(TaskId(1))]);
    check(
        attached_then([away()]),
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
    "#]],
    );
    let end = update([attached(1, TaskState::Shutdown)]);
    check(
        attached_then([end, away(), drained(1), stopped(1, 0)]),
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
          drain 1 3s
        6
          stop 1 "SIGINT" Some(3s)
        7
        8
          remove 1
    "#]],
    );
}

#[test]
fn a_task_that_was_told_to_end_is_not_wanted_again() {
    let ends = update([attached(1, TaskState::Shutdown)]);
    let again = complete([ingress(), attached(1, TaskState::Running)]);
    check(
        attached_then([ends, again, drained(1), stopped(1, 0)]),
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
          drain 1 3s
        6
          ensure network ingress
          report 1 running at 4 "started" pid 101 exit None
        7
          stop 1 "SIGINT" Some(3s)
        8
          report 1 shutdown at 8 "shutdown" pid 0 exit Some(0)
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
    let port =
        |protocol, target_port| EndpointPort { protocol, published_port: 8080, target_port, address: None };
    let ports = vec![port(Protocol::Tcp, 80), port(Protocol::Udp, 53)];
    let served = || {
        let ports = ports.clone();
        Duty::Endpoint(Endpoint { service: WEB, name: "web".to_owned(), ports, backends: Vec::new() })
    };
    let listens = || AgentEvent::Ready { task: TaskId(1), result: Ok(()) };
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

fn ensured(result: Result<(), String>) -> AgentEvent {
    AgentEvent::NetworkEnsured { network: INGRESS, result }
}

fn peers_updated(result: Result<(), String>) -> AgentEvent {
    AgentEvent::PeersUpdated { network: INGRESS, result }
}

fn peer_id(last: u8) -> DutyId {
    DutyId::Peer(INGRESS, [10, 0, 0, last].into())
}

#[test]
fn peers_are_told_whole_once_and_then_in_differences_ahead_of_endpoints() {
    check(
        [
            complete([ingress(), place(1), endpoint(&[2]), peer(2, 2), peer(3, 2)]),
            ensured(Ok(())),
            update([peer(3, 3), peer(4, 3)]),
            peers_updated(Ok(())),
            remove([peer_id(2), peer_id(9)]),
            peers_updated(Ok(())),
            peers_updated(Ok(())),
            AgentEvent::EndpointApplied { service: WEB, result: Ok(()) },
            // Nothing is new in it.
            update([peer(3, 3)]),
        ],
        expect![[r#"
            1
              ensure network ingress at 10.0.0.200 on 192.0.2.1:4789
            2
              peers {10.0.0.2: 192.0.2.2, 10.0.0.3: 192.0.2.2}
            3
            4
              peers +{10.0.0.3: 192.0.2.3, 10.0.0.4: 192.0.2.3} -{}
            5
            6
              peers +{} -{10.0.0.2}
            7
              serve web [10.0.0.2]
            8
            9
        "#]],
    );
}

#[test]
fn peers_that_could_not_be_told_are_told_whole_and_hold_nothing_up() {
    check(
        [
            complete([ingress(), place(1), endpoint(&[2])]),
            ensured(Ok(())),
            update([peer(2, 2)]),
            peers_updated(Err("refused".to_owned())),
            update([peer(3, 3)]),
            AgentEvent::Tick,
        ],
        expect![[r#"
            1
              ensure network ingress at 10.0.0.200 on 192.0.2.1:4789
              serve web [10.0.0.2]
            2
            3
              peers {10.0.0.2: 192.0.2.2}
            4
              wake at 5
            5
              peers {10.0.0.2: 192.0.2.2, 10.0.0.3: 192.0.2.3}
            6
        "#]],
    );
}

#[test]
fn a_node_that_moves_brings_its_networks_up_again() {
    check(
        [
            complete([ingress(), place(1), peer(2, 2)]),
            ensured(Ok(())),
            peers_updated(Ok(())),
            update([place(2)]),
            // It moved once more before that was done.
            update([place(3)]),
            ensured(Ok(())),
            ensured(Ok(())),
            peers_updated(Ok(())),
            remove([DutyId::Overlay(INGRESS)]),
        ],
        expect![[r#"
            1
              ensure network ingress at 10.0.0.200 on 192.0.2.1:4789
            2
              peers {10.0.0.2: 192.0.2.2}
            3
            4
              ensure network ingress at 10.0.0.200 on 192.0.2.2:4789
            5
            6
              ensure network ingress at 10.0.0.200 on 192.0.2.3:4789
            7
              peers {10.0.0.2: 192.0.2.2}
            8
            9
              ensure network ingress
        "#]],
    );
}

#[test]
fn peers_of_a_former_agent_go_when_nobody_names_them() {
    let left = Recovered { networks: vec![INGRESS], ..Recovered::default() };
    check(
        [
            AgentEvent::Recovered(left),
            complete([ingress(), place(1)]),
            ensured(Ok(())),
            peers_updated(Ok(())),
            update([peer(2, 2)]),
            peers_updated(Ok(())),
            // Its peers go with the network.
            complete([]),
            AgentEvent::NetworkRemoved { network: INGRESS, result: Ok(()) },
        ],
        expect![[r#"
            1
            2
              ensure network ingress at 10.0.0.200 on 192.0.2.1:4789
            3
              peers {}
            4
            5
              peers +{10.0.0.2: 192.0.2.2} -{}
            6
            7
              remove network
            8
        "#]],
    );
}
