//! What the agent makes of what a former one left.

use super::*;

#[test]
fn a_running_container_is_adopted_without_a_restart() {
    check(
        [
            found(&[(1, Observed::Running(7)), (2, Observed::Running(8))]),
            complete([
                in_state(TaskState::Running, task(1, TaskState::Running)),
                // Its managers had not heard yet.
                in_state(TaskState::Starting, task(2, TaskState::Running)),
            ]),
            exited(1, 0),
        ],
        expect![[r#"
            1
            2
              watch 1
              watch 2
              report 2 running at 2 "started" pid 8 exit None
            3
              report 1 complete at 3 "finished" pid 0 exit Some(0)
        "#]],
    );
}

#[test]
fn exits_that_nobody_saw_are_told() {
    check(
        [
            found(&[(1, Observed::Exited(0)), (2, Observed::Exited(137)), (3, Observed::Exited(143))]),
            complete([
                in_state(TaskState::Running, task(1, TaskState::Running)),
                in_state(TaskState::Running, task(2, TaskState::Running)),
                in_state(TaskState::Running, task(3, TaskState::Shutdown)),
                // Its container is gone altogether.
                in_state(TaskState::Running, task(4, TaskState::Running)),
            ]),
        ],
        expect![[r#"
            1
            2
              report 1 complete at 2 "finished" pid 0 exit Some(0)
              report 2 failed at 2 "scheduler assigned task to node" error "task: non-zero exit (137)" pid 0 exit Some(137)
              report 3 shutdown at 2 "shutdown" pid 0 exit Some(143)
              report 4 failed at 2 "scheduler assigned task to node" error "No such container: web.4.0000000000000000000000004"
        "#]],
    );
}

#[test]
fn what_was_under_way_is_taken_up() {
    check(
        [
            found(&[(1, Observed::Created), (2, Observed::Created), (5, Observed::Running(9))]),
            complete([
                in_state(TaskState::Preparing, task(1, TaskState::Running)),
                in_state(TaskState::Ready, task(2, TaskState::Ready)),
                in_state(TaskState::Preparing, task(3, TaskState::Running)),
                in_state(TaskState::Ready, task(4, TaskState::Running)),
                in_state(TaskState::Running, task(5, TaskState::Shutdown)),
            ]),
            prepared(4),
        ],
        expect![[r#"
            1
            2
              watch 5
              start 1
              prepare 3 at []
              prepare 4 at []
              stop 5 "SIGINT" Some(3s)
              report 1 starting at 2 "starting" pid 0 exit None
            3
              start 4
              report 4 starting at 3 "starting" pid 0 exit None
        "#]],
    );
}

#[test]
fn what_no_manager_knows_is_removed() {
    let left = Recovered {
        containers: vec![
            (TaskId(1), container(1), Observed::Running(7)),
            (TaskId(2), container(2), Observed::Exited(0)),
        ],
        networks: vec![INGRESS],
        endpoints: vec![WEB],
    };
    check(
        [
            AgentEvent::Recovered(left),
            complete([]),
            removed(2),
            AgentEvent::EndpointApplied { service: WEB, result: Ok(()) },
            stopped(1, 0),
            removed(1),
            AgentEvent::NetworkRemoved { network: INGRESS, result: Ok(()) },
        ],
        expect![[r#"
            1
            2
              remove endpoint
              remove 2
            3
            4
              stop 1 "" None
            5
              remove 1
            6
              remove network
            7
        "#]],
    );
}

#[test]
fn history_is_left_alone_after_a_restart() {
    check(
        [
            found(&[(1, Observed::Exited(1)), (2, Observed::Running(7))]),
            complete([
                in_state(TaskState::Failed, task(1, TaskState::Shutdown)),
                // Given up by its managers, yet it runs: it is stopped, and its state stays.
                in_state(TaskState::Failed, task(2, TaskState::Shutdown)),
            ]),
            stopped(2, 0),
        ],
        expect![[r#"
            1
            2
              watch 2
              stop 2 "SIGINT" Some(3s)
            3
        "#]],
    );
}

#[test]
fn what_managers_gave_up_while_they_did_not_hear_of_it_is_stopped() {
    let orphan = |number| in_state(TaskState::Orphaned, task(number, TaskState::Running));
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            started(1),
            AgentEvent::Alone,
            complete([orphan(1)]),
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
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
            5
              stop 1 "SIGINT" Some(3s)
              report 1 running at 3 "started" pid 101 exit None
            6
              report 1 shutdown at 6 "shutdown" pid 0 exit Some(0)
        "#]],
    );
    check(
        [found(&[(2, Observed::Running(8))]), complete([orphan(2)]), stopped(2, 0)],
        expect![[r#"
        1
        2
          watch 2
          stop 2 "SIGINT" Some(3s)
        3
    "#]],
    );
}

#[test]
fn new_managers_are_told_what_the_old_ones_may_not_have_heard() {
    check(
        [
            complete([duty(1, TaskState::Running), duty(2, TaskState::Running)]),
            prepared(1),
            started(1),
            // The second task was given to another node meanwhile.
            complete([in_state(TaskState::Assigned, task(1, TaskState::Running))]),
            prepared(2),
        ],
        expect![[r#"
            1
              prepare 1 at []
              prepare 2 at []
              report 1 preparing at 1 "preparing"
              report 2 preparing at 1 "preparing"
            2
              start 1
              report 1 starting at 2 "starting" pid 0 exit None
            3
              watch 1
              report 1 running at 3 "started" pid 101 exit None
            4
              abandon 2
              report 1 running at 3 "started" pid 101 exit None
            5
              remove 2
        "#]],
    );
}
