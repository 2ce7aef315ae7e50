//! What an agent does while no manager is heard.

use skep_types::service::RestartCondition;

use super::*;

fn restarting(id: u128, condition: RestartCondition, max_attempts: u64) -> Duty {
    let mut task = task(id, TaskState::Running);
    let restart = RestartPolicy { condition, max_attempts, ..RestartPolicy::default() };
    task.spec = Arc::new(TaskSpec { restart, ..TaskSpec::clone(&task.spec) });
    in_state(TaskState::Running, task)
}

#[test]
fn a_task_of_a_job_that_succeeded_is_done_and_one_that_failed_is_restarted() {
    let job = |id| {
        let Duty::Task(mut task) = restarting(id, RestartCondition::Any, 0) else { unreachable!() };
        task.desired = TaskState::Complete;
        in_state(TaskState::Running, *task)
    };
    check(
        [
            found(&[(1, Observed::Running(7)), (2, Observed::Running(8))]),
            complete([job(1), job(2)]),
            AgentEvent::Alone,
            exited(1, 0),
            exited(2, 1),
        ],
        expect![[r#"
            1
            2
              watch 1
              watch 2
            3
            4
              report 1 complete at 4 "finished" pid 0 exit Some(0)
            5
              wake at 10
        "#]],
    );
}

/// Time passes.
const TICK: AgentEvent = AgentEvent::Tick;

#[test]
fn what_ends_is_restarted_as_its_policy_says() {
    let any = RestartCondition::Any;
    check(
        [
            found(&[(1, Observed::Running(7)), (2, Observed::Running(8)), (3, Observed::Running(9))]),
            complete([
                restarting(1, any, 0),
                restarting(2, RestartCondition::OnFailure, 0),
                restarting(3, any, 1),
            ]),
            AgentEvent::Alone,
            exited(1, 0),
            exited(2, 0),
            exited(3, 1),
            // The delay of five seconds passes.
            TICK,
            TICK,
            TICK,
            started(1),
            TICK,
            started(3),
            // A second try is not allowed.
            exited(3, 1),
            complete([restarting(1, any, 0), restarting(2, any, 0), restarting(3, any, 1)]),
        ],
        expect![[r#"
            1
            2
              watch 1
              watch 2
              watch 3
            3
            4
              wake at 9
            5
              report 2 complete at 5 "finished" pid 0 exit Some(0)
              wake at 9
            6
              wake at 9
            7
              wake at 9
            8
              wake at 9
            9
              start 1
              wake at 11
            10
              watch 1
              report 1 running at 0 "scheduler assigned task to node" pid 101 exit None
              wake at 11
            11
              start 3
            12
              watch 3
              report 3 running at 0 "scheduler assigned task to node" pid 103 exit None
            13
              report 3 failed at 13 "scheduler assigned task to node" error "task: non-zero exit (1)" pid 0 exit Some(1)
            14
              report 1 running at 0 "scheduler assigned task to node" pid 101 exit None
              report 2 complete at 5 "finished" pid 0 exit Some(0)
              report 3 failed at 13 "scheduler assigned task to node" error "task: non-zero exit (1)" pid 0 exit Some(1)
        "#]],
    );
}

#[test]
fn managers_that_come_back_in_time_decide() {
    check(
        [
            found(&[(1, Observed::Running(7))]),
            complete([restarting(1, RestartCondition::Any, 0)]),
            AgentEvent::Alone,
            exited(1, 3),
            complete([restarting(1, RestartCondition::Any, 0)]),
            TICK,
        ],
        expect![[r#"
            1
            2
              watch 1
            3
            4
              wake at 9
            5
              report 1 failed at 5 "scheduler assigned task to node" error "task: non-zero exit (3)" pid 0 exit Some(3)
            6
        "#]],
    );
}

#[test]
fn a_restarted_daemon_goes_by_what_it_remembers() {
    check(
        [
            found(&[(1, Observed::Running(7)), (2, Observed::Exited(255)), (9, Observed::Running(8))]),
            AgentEvent::Remembered(vec![
                restarting(1, RestartCondition::Any, 0),
                restarting(2, RestartCondition::Any, 0),
                endpoint(&[1, 2]),
            ]),
            TICK,
            TICK,
            TICK,
            TICK,
            TICK,
            started(2),
            // What was never remembered is given up only by the managers' word.
            complete([restarting(1, RestartCondition::Any, 0), restarting(2, RestartCondition::Any, 0)]),
            // What may stand behind a service is stopped when nobody sends to it any more.
            AgentEvent::EndpointApplied { service: WEB, result: Ok(()) },
            AgentEvent::EndpointApplied { service: WEB, result: Ok(()) },
        ],
        expect![[r#"
            1
            2
              watch 1
              serve web [10.0.0.1, 10.0.0.2]
              wake at 7
            3
              wake at 7
            4
              wake at 7
            5
              wake at 7
            6
              wake at 7
            7
              start 2
            8
              watch 2
              report 2 running at 0 "scheduler assigned task to node" pid 102 exit None
            9
              report 1 running at 0 "scheduler assigned task to node" pid 7 exit None
              report 2 running at 0 "scheduler assigned task to node" pid 102 exit None
            10
              remove endpoint
            11
              stop 9 "" None
        "#]],
    );
}

#[test]
fn what_a_former_agent_served_is_served_until_managers_are_heard() {
    let recovered = Recovered { endpoints: vec![WEB], ..Recovered::default() };
    check(
        [AgentEvent::Recovered(recovered), TICK, complete([])],
        expect![[r#"
        1
        2
        3
          remove endpoint
    "#]],
    );
}
