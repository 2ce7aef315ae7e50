//! Names on networks: told before a container needs them, in order, and acknowledged.

use super::*;

fn lan() -> Duty {
    Duty::Network(Network::new(INGRESS, "lan", "10.0.0.0/24".parse().expect("a subnet"), 4097))
}

fn told(result: Result<(), String>) -> AgentEvent {
    AgentEvent::RecordsUpdated { network: INGRESS, result }
}

fn ensured() -> AgentEvent {
    AgentEvent::NetworkEnsured { network: INGRESS, result: Ok(()) }
}

fn change(number: u64, update: impl IntoIterator<Item = Duty>) -> AgentEvent {
    let update = update.into_iter().collect();
    assigned(number, Assignment::Incremental { update, remove: Vec::new() })
}

#[test]
fn a_container_waits_for_the_names_on_its_network() {
    check(
        [
            complete([lan(), record(7, &[3]), attached(1, TaskState::Running)]),
            ensured(),
            told(Ok(())),
            // One that comes later finds them there.
            update([attached(2, TaskState::Running)]),
        ],
        expect![[r#"
            1
              ensure network lan
              report 1 preparing at 1 "preparing"
            2
              records s7:1
            3
              prepare 1 at [10.0.0.1]
            4
              prepare 2 at [10.0.0.2]
              report 2 preparing at 4 "preparing"
        "#]],
    );
}

#[test]
fn names_that_cannot_be_told_are_told_anew_and_whole_and_hold_nothing_up_for_ever() {
    check(
        [
            complete([lan(), record(7, &[3]), attached(1, TaskState::Running)]),
            ensured(),
            told(Err("refused".to_owned())),
            AgentEvent::Tick,
            told(Ok(())),
            update([record(7, &[3, 4]), record(8, &[])]),
            told(Ok(())),
            remove([DutyId::Record(ServiceId(8), INGRESS)]),
        ],
        expect![[r#"
            1
              ensure network lan
              report 1 preparing at 1 "preparing"
            2
              records s7:1
            3
              prepare 1 at [10.0.0.1]
              wake at 4
            4
              records s7:1
            5
            6
              records +s7:2 s8:0 -0 -0
            7
            8
              records + -1 -0
        "#]],
    );
}

#[test]
fn a_change_of_names_is_acknowledged_when_it_is_in_force() {
    check(
        [
            assigned(2, Assignment::Complete(vec![lan(), record(7, &[3])])),
            ensured(),
            told(Ok(())),
            change(3, [record(7, &[])]),
            change(4, [record(7, &[5])]),
            told(Ok(())),
            told(Ok(())),
        ],
        expect![[r#"
            1
              ensure network lan
            2
              records s7:1
            3
              acknowledge 2
            4
              records +s7:0 -0 -0
            5
            6
              records +s7:1 -0 -0
              acknowledge 3
            7
              acknowledge 4
        "#]],
    );
}

#[test]
fn the_names_of_a_network_that_is_given_up_go_before_its_tasks_stop() {
    check(
        [
            complete([lan(), place(1), record(7, &[1]), attached(1, TaskState::Running)]),
            ensured(),
            told(Ok(())),
            prepared(1),
            started(1),
            // Service and network were removed while this node was away.
            complete([]),
            told(Ok(())),
        ],
        expect![[r#"
            1
              ensure network lan at 10.0.0.200 on 192.0.2.1:4789
              report 1 preparing at 1 "preparing"
            2
              records s7:1
            3
              prepare 1 at [10.0.0.1]
            4
              start 1
              report 1 starting at 4 "starting" pid 0 exit None
            5
              watch 1
              report 1 running at 5 "started" pid 101 exit None
            6
              records + -1 -0
            7
              stop 1 "SIGINT" Some(3s)
        "#]],
    );
}
