//! Simulated agents for `bench/cluster`: they join a real cluster over the network and report every task as running,
//! without containers. What a manager costs with many tasks is measured so.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use skep_identity::{Credentials, JoinToken, NodeCertificate, NodeKey, Trust};
use skep_types::assignment::{Assignment, Duty, StatusReport};
use skep_types::node::{Availability, NodeDescription};
use skep_types::task::ContainerStatus;
use skep_types::{ContainerId, TaskId, TaskState, TaskStatus, Time};

use super::{FromAgent, Hello, Link, ToAgent};
use crate::wire::{Connections, JoinCall};

/// Half of the time between two heartbeats at defaults.
const BEAT: Duration = Duration::from_millis(500);

/// Runs until it is killed. `CROWD` is `address token count`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "bench/cluster runs it beside a real manager"]
async fn crowd() {
    let asked = std::env::var("CROWD").unwrap();
    let words: Vec<&str> = asked.split(' ').collect();
    let (address, token, count) = (words[0], words[1], words[2].parse::<u32>().unwrap());
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..count {
        let link = open(address, token, number).await;
        agents.spawn(serve(link));
    }
    println!("the crowd is there");
    while agents.join_next().await.is_some() {}
}

/// Joins as a worker and opens a session.
async fn open(address: &str, token: &str, number: u32) -> Link {
    let token: JoinToken = token.parse().unwrap();
    let root = Connections::fetch_root(address, &token).await.unwrap();
    let key = NodeKey::generate().unwrap();
    let call =
        JoinCall { token: token.to_string(), csr: key.csr().unwrap(), availability: Availability::Active };
    let answer = Connections::join(address, &root, call).await.unwrap();
    let certificate = NodeCertificate::new(answer.chain, &key);
    let trust = Trust::parse(&answer.roots).unwrap();
    let credentials = Credentials::new(certificate, trust, SystemTime::now()).unwrap();
    let [_, high, low, _] = number.to_be_bytes();
    let hello = Hello {
        description: NodeDescription {
            hostname: format!("crowd-{number}"),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            nano_cpus: 64_000_000_000,
            memory_bytes: 1 << 40,
            ..NodeDescription::default()
        },
        // Nobody sends anything there.
        address: [198, 18, high, low].into(),
        data_path: None,
    };
    Connections::new(credentials).session(address, hello).await.unwrap()
}

/// Reports whatever is assigned as being what it is wanted to be, until the session ends.
async fn serve(mut link: Link) {
    let mut beat = tokio::time::interval(BEAT);
    let mut known: BTreeMap<TaskId, TaskState> = BTreeMap::new();
    loop {
        let said = tokio::select! {
            _ = beat.tick() => FromAgent::Beat,
            said = link.from_manager.recv() => match said {
                Some(ToAgent::Assignment { number, assignment }) => {
                    if link.to_manager.send(FromAgent::Acknowledged(number)).await.is_err() {
                        return;
                    }
                    FromAgent::Reports(reports(assignment, &mut known))
                }
                Some(_) => continue,
                None => return,
            },
        };
        if link.to_manager.send(said).await.is_err() {
            return;
        }
    }
}

fn reports(assignment: Assignment, known: &mut BTreeMap<TaskId, TaskState>) -> Vec<StatusReport> {
    let duties = match assignment {
        Assignment::Complete(duties) => duties,
        Assignment::Incremental { update, remove: _ } => update,
    };
    let tasks = duties.into_iter().filter_map(|duty| match duty {
        Duty::Task(task) => Some(task),
        _ => None,
    });
    let changed = tasks.filter(|task| known.insert(task.id, task.desired) != Some(task.desired));
    let report = |task: Box<skep_types::Task>| StatusReport {
        task: task.id,
        status: TaskStatus {
            state: task.desired.min(TaskState::Shutdown),
            since: Time::default(),
            message: "started".to_owned(),
            error: String::new(),
            container: Some(ContainerStatus { id: ContainerId([7; 32]), pid: 1, exit_code: None }),
        },
    };
    changed.map(report).collect()
}
