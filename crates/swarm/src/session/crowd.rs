//! Simulated agents for `bench/cluster`: they join a real cluster over the network and report every task as running,
//! without containers. What a manager costs with many tasks is measured so, and how soon it answers to a task that failed.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use skep_identity::{Credentials, JoinToken, NodeCertificate, NodeKey, Trust};
use skep_types::assignment::{Assignment, Duty, DutyId, StatusReport};
use skep_types::node::{Availability, NodeDescription};
use skep_types::task::ContainerStatus;
use skep_types::{ContainerId, ServiceId, Task, TaskId, TaskState, TaskStatus, Time};
use tokio::sync::mpsc;

use super::{FromAgent, Hello, Link, ToAgent};
use crate::wire::{Connections, JoinCall};

/// Time between two failures: each is over by then.
const BETWEEN: Duration = Duration::from_millis(20);

/// A place of a service, which the replacement of its task takes over.
type Slot = (ServiceId, u64);

/// What the agents share: since when tasks that failed are to be replaced, and how long that took.
#[derive(Debug, Default)]
struct Failures {
    open: BTreeMap<Slot, (TaskId, Instant)>,
    answered: Vec<Duration>,
}

/// Runs until it is killed. `CROWD` is `address token count`; each line that it reads is a number of tasks to let fail one
/// after the other, and is answered with the 50th and 99th percentile and the longest of the times, in microseconds, from
/// a failure's report to the assignment of the task that comes instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "bench/cluster runs it beside a real manager"]
async fn crowd() {
    let asked = std::env::var("CROWD").unwrap();
    let words: Vec<&str> = asked.split(' ').collect();
    let (address, token, count) = (words[0], words[1], words[2].parse::<u32>().unwrap());
    let failures = Arc::new(Mutex::new(Failures::default()));
    let mut agents = Vec::new();
    for number in 0..count {
        let link = open(address, token, number).await;
        let (fail, failing) = mpsc::channel(1);
        agents.push(fail);
        tokio::spawn(serve(link, failing, failures.clone()));
    }
    while let Some(line) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.unwrap() {
        for agent in agents.iter().cycle().take(line.unwrap().parse().unwrap()) {
            agent.send(()).await.unwrap();
            tokio::time::sleep(BETWEEN).await;
        }
        let mut answered = std::mem::take(&mut failures.lock().unwrap().answered);
        answered.sort();
        let at = |percent: usize| answered[(answered.len() - 1) * percent / 100].as_micros();
        // Past what the test harness writes.
        println!("\nanswered {} {} {} {}", answered.len(), at(50), at(99), at(100));
    }
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
async fn serve(mut link: Link, mut failing: mpsc::Receiver<()>, failures: Arc<Mutex<Failures>>) {
    let mut known: BTreeMap<TaskId, Task> = BTreeMap::new();
    loop {
        let said = tokio::select! {
            Some(()) = failing.recv() => {
                let runs = |task: &&Task| task.desired == TaskState::Running;
                let Some(task) = known.values().find(runs).cloned() else { continue };
                known.remove(&task.id);
                let since = (task.id, Instant::now());
                failures.lock().unwrap().open.insert((task.service, task.slot), since);
                FromAgent::Reports(vec![report(&task, TaskState::Failed)])
            }
            said = link.from_manager.recv() => match said {
                Some(ToAgent::Assignment { number, assignment }) => {
                    if link.to_manager.send(FromAgent::Acknowledged(number)).await.is_err() {
                        return;
                    }
                    let changed = changed(assignment, &mut known);
                    failures.lock().unwrap().close(&changed);
                    let reports = changed.iter().map(|task| report(task, task.desired.min(TaskState::Shutdown)));
                    FromAgent::Reports(reports.collect())
                }
                Some(ToAgent::Beat(_)) => FromAgent::Beat,
                Some(_) => continue,
                None => return,
            },
        };
        if link.to_manager.send(said).await.is_err() {
            return;
        }
    }
}

impl Failures {
    /// Takes note of what comes instead of tasks that failed.
    fn close(&mut self, tasks: &[Task]) {
        for task in tasks {
            let slot = (task.service, task.slot);
            let open = self.open.get(&slot).filter(|(failed, _)| *failed != task.id);
            if let Some((_, since)) = open {
                self.answered.push(since.elapsed());
                self.open.remove(&slot);
            }
        }
    }
}

/// The tasks that are to be something else than they were.
fn changed(assignment: Assignment, known: &mut BTreeMap<TaskId, Task>) -> Vec<Task> {
    let duties = match assignment {
        Assignment::Complete(duties) => duties,
        Assignment::Incremental { update, remove } => {
            remove.iter().for_each(|duty| {
                if let DutyId::Task(task) = duty {
                    known.remove(task);
                }
            });
            update
        }
    };
    let tasks = duties.into_iter().filter_map(|duty| match duty {
        Duty::Task(task) => Some(*task),
        _ => None,
    });
    let mut is_new =
        |task: &Task| known.insert(task.id, task.clone()).is_none_or(|before| before.desired != task.desired);
    tasks.filter(|task| is_new(task)).collect()
}

fn report(task: &Task, state: TaskState) -> StatusReport {
    StatusReport {
        task: task.id,
        status: TaskStatus {
            state,
            since: Time::default(),
            message: "started".to_owned(),
            error: String::new(),
            container: Some(ContainerStatus {
                id: ContainerId([7; 32]),
                pid: 1,
                exit_code: None,
                ports: Vec::new(),
            }),
        },
    }
}
