//! Tasks whose health is probed.

use super::*;

fn ready(result: Result<(), &str>) -> AgentEvent {
    AgentEvent::Ready { task: TaskId(1), result: result.map_err(str::to_owned) }
}

#[test]
fn a_task_runs_once_it_is_healthy_and_fails_when_it_is_not_any_more() {
    let sick = AgentEvent::Unhealthy { task: TaskId(1) };
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            launched(1, Watched::Yes),
            ready(Ok(())),
            sick,
            stopped(1, 143),
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
              await 1 on []
            4
              report 1 running at 4 "started" pid 101 exit None
            5
              stop 1 "SIGINT" Some(3s)
            6
              report 1 failed at 6 "started" error "unhealthy container" pid 0 exit Some(143)
        "#]],
    );
}

#[test]
fn a_task_that_never_becomes_healthy_has_failed() {
    check(
        [
            complete([duty(1, TaskState::Running)]),
            prepared(1),
            launched(1, Watched::Yes),
            ready(Err("unhealthy container")),
            // The watch says so, too.
            AgentEvent::Unhealthy { task: TaskId(1) },
            stopped(1, 143),
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
              await 1 on []
            4
              stop 1 "SIGINT" Some(3s)
            5
            6
              report 1 failed at 6 "starting" error "unhealthy container" pid 0 exit Some(143)
        "#]],
    );
}

#[test]
fn a_container_that_was_starting_when_the_daemon_died_is_waited_for() {
    check(
        [found(&[(1, Observed::Starting(7))]), complete([duty(1, TaskState::Running)]), ready(Ok(()))],
        expect![[r#"
            1
            2
              watch 1
              await 1 on []
            3
              report 1 running at 3 "started" pid 7 exit None
        "#]],
    );
}
