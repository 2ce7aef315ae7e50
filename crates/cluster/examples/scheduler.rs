//! How fast the brain gives tasks to nodes: SwarmKit's benchmark (manager/scheduler, `BenchmarkScheduler*`),
//! over the whole way through the log. Each size creates nodes, then services, and commits what the brain proposes until every
//! task has a node. What SwarmKit measures, choosing nodes over its store, is the smaller part of that. Then tasks fail, one
//! after the other, until each has its replacement.
//!
//! `cargo run --release -p skep-cluster --example scheduler [tasks nodes services]`
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark reads its arguments and what the kernel counts"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_cluster::{Cluster, Event, Objects, Output, Request, RequestId, check};
use skep_types::assignment::StatusReport;
use skep_types::node::{Availability, Node, NodeDescription, NodeRole, NodeSpec, NodeState};
use skep_types::placement::{Constraint, Placement};
use skep_types::resources::Resources;
use skep_types::service::{
    EndpointMode, RestartPolicy, ServiceContainer, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use skep_types::swarm::{ClusterObject, ClusterSpec};
use skep_types::{ClusterId, Ids, Meta, NodeId, Task, TaskState, TaskStatus, Time};

/// Sizes that are measured where none is named: tasks, nodes, services.
const SIZES: [(u64, u64, u64); 7] = [
    (10_000, 1_000, 1),
    (10_000, 1_000, 100),
    (100_000, 1_000, 1),
    (100_000, 1_000, 100),
    (100_000, 5_000, 1),
    (100_000, 5_000, 100),
    (1_000_000, 10_000, 100),
];

/// How often what takes little time is done.
const REPEATS: u32 = 10;

/// Tasks that fail one after the other.
const FAILURES: usize = 1_000;

/// A cluster whose log commits at once.
struct Stage {
    cluster: Cluster,
    ids: Ids,
    now: Time,
    index: u64,
    entries: u64,
}

impl Stage {
    /// Tells the brain something and commits until it has nothing left to decide.
    fn tell(&mut self, event: Event) {
        let mut output: Output = self.cluster.step(event, self.now, &mut self.ids);
        while !output.propose.is_empty() {
            self.index += 1;
            self.entries += 1;
            output = self.cluster.step(Event::Committed { index: self.index }, self.now, &mut self.ids);
        }
    }

    fn ask(&mut self, request: Request) {
        self.tell(Event::Request(RequestId(self.index), request));
    }
}

fn node(number: u64) -> Node {
    // Every third node is what the constraint asks for.
    let kind = if number.is_multiple_of(3) { "ssd" } else { "disk" };
    Node {
        id: NodeId(u128::from(number + 1) << 64),
        meta: Meta::default(),
        spec: NodeSpec {
            name: String::new(),
            labels: [("store".to_owned(), kind.to_owned())].into(),
            role: if number == 0 { NodeRole::Manager } else { NodeRole::Worker },
            availability: Availability::Active,
        },
        description: NodeDescription {
            hostname: format!("n{number}"),
            nano_cpus: 64_000_000_000,
            memory_bytes: 1 << 40,
            ..NodeDescription::default()
        },
        state: NodeState::Ready,
        message: String::new(),
        address: Ipv4Addr::LOCALHOST.into(),
        manager: None,
        data_path: None,
        ingress_address: None,
        down_since: None,
    }
}

fn spec(number: u64, replicas: u64, constraints: &[Constraint]) -> ServiceSpec {
    let container = ServiceContainer { image: "image".to_owned(), ..ServiceContainer::default() };
    ServiceSpec {
        name: format!("service{number}"),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container,
            limits: Resources::default(),
            reservations: Resources { memory_bytes: 4 << 20, ..Resources::default() },
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Placement { constraints: constraints.to_vec(), ..Placement::default() },
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
    }
}

/// A cluster of so many nodes.
fn stage(nodes: u64) -> Stage {
    let mut stage = Stage {
        cluster: Cluster::new(Objects::default()),
        ids: Ids::new(7),
        now: Time(1_000_000_000),
        index: 0,
        entries: 0,
    };
    stage.tell(Event::Started);
    let cluster = Box::new(ClusterObject {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        address_pools: vec!["10.0.0.0/8".parse().expect("a subnet")],
        subnet_prefix: 16,
        data_path_port: 4789,
        authority: Default::default(),
        unlock_key: None,
        worker_token: String::new(),
        manager_token: String::new(),
        network_keys: Vec::new(),
        network_keys_at: Default::default(),
    });
    stage.ask(Request::CreateCluster { cluster, node: Box::new(node(0)) });
    for number in 1..nodes {
        stage.ask(Request::AddNode(Box::new(node(number))));
    }
    stage
}

/// Bytes of memory that the process has in use.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("the kernel tells a process's size");
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number is the resident pages") * 4096
}

/// Time on a processor, so that whatever else the machine does is not measured.
fn timed(work: impl FnOnce()) -> Duration {
    let start = processor_time();
    work();
    processor_time().saturating_sub(start)
}

fn processor_time() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts a thread's time");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is the time on a processor"))
}

fn measure(tasks: u64, nodes: u64, services: u64, constraints: &[Constraint], alone: bool) {
    let mut stage = stage(nodes);
    let (before, entries) = (memory(), stage.entries);
    let placing = timed(|| {
        for number in 0..services {
            let spec = spec(number, tasks / services, constraints);
            stage.ask(Request::CreateService(Box::new(spec)));
        }
    });
    // What an earlier size gave back is used again and does not count as growth.
    let grown = memory().saturating_sub(before) / tasks;
    let grown = if alone { format!(", {grown} bytes a task") } else { String::new() };
    let placed = stage.cluster.objects().tasks().filter(|task| task.node.is_some()).count() as u64;
    assert_eq!(placed, tasks, "every task has a node");
    if tasks <= 10_000 {
        assert_eq!(check(stage.cluster.objects()), []);
    }
    let entries = stage.entries - entries;
    let mut leaders: Vec<Cluster> =
        (0..REPEATS).map(|_| Cluster::new(stage.cluster.objects().clone())).collect();
    let taking_over = timed(|| {
        for leader in &mut leaders {
            leader.step(Event::Started, stage.now, &mut stage.ids);
        }
    }) / REPEATS;
    drop(leaders);
    let before = stage.entries;
    let losing = timed(|| {
        for number in 0..REPEATS {
            // Nodes of the kind that the constraint asks for.
            let node = node(u64::from(number + 1) * 3).id;
            stage.tell(Event::NodeLost { node, reason: "benchmark".to_owned() });
        }
    }) / REPEATS;
    let mut answers = fail(&mut stage);
    answers.sort();
    let (median, nearly) = (answers[FAILURES / 2], answers[FAILURES * 99 / 100]);
    let seconds = placing.as_secs_f64();
    println!(
        "{tasks:>8} tasks {nodes:>6} nodes {services:>4} services {} constraints: {seconds:>7.3} s, {:>8.0} \
         tasks/s, {entries:>5} entries{grown}; new leader {taking_over:.1?}; a lost node's tasks \
         elsewhere {losing:.1?}, {} entries; a failed task's replacement {median:.1?}, p99 {nearly:.1?}",
        constraints.len(),
        tasks as f64 / seconds,
        (stage.entries - before) / u64::from(REPEATS),
    );
}

/// Lets tasks run, and some of them fail; the times from each failure's report to nothing being left to decide.
fn fail(stage: &mut Stage) -> Vec<Duration> {
    let report = |task: &Task, state| StatusReport {
        task: task.id,
        status: TaskStatus { state, message: "benchmark".to_owned(), ..task.status.clone() },
    };
    let mut running: BTreeMap<NodeId, Vec<StatusReport>> = BTreeMap::new();
    for task in stage.cluster.objects().tasks().filter(|task| task.desired == TaskState::Running) {
        let node = task.node.expect("every task has a node");
        running.entry(node).or_default().push(report(task, TaskState::Running));
    }
    for (node, reports) in running {
        stage.tell(Event::Reports(node, reports));
    }
    let runs = |task: &&Task| task.status.state == TaskState::Running && task.desired == TaskState::Running;
    let step = (stage.cluster.objects().tasks().filter(runs).count() / FAILURES).max(1);
    let failing: Vec<Task> =
        stage.cluster.objects().tasks().filter(runs).step_by(step).take(FAILURES).cloned().collect();
    assert_eq!(failing.len(), FAILURES, "enough tasks run");
    let times = failing.iter().map(|task| {
        let node = task.node.expect("it runs");
        // The kernel counts a thread's time in steps that are longer than this.
        let began = Instant::now();
        stage.tell(Event::Reports(node, vec![report(task, TaskState::Failed)]));
        let took = began.elapsed();
        let after = stage.cluster.objects().tasks_of(task.service);
        let replaced = after.filter(|other| other.slot == task.slot).any(|other| other.id != task.id);
        assert!(replaced, "a failed task has a replacement");
        took
    });
    times.collect()
}

fn main() {
    let none: [Constraint; 0] = [];
    let some = ["node.labels.store==ssd", "node.role!=manager", "node.platform.os!=windows"];
    let some = some.map(|text| text.parse::<Constraint>().expect("a constraint"));
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if let [tasks, nodes, services] = numbers[..] {
        return measure(tasks, nodes, services, &none, true);
    }
    for (tasks, nodes, services) in SIZES {
        measure(tasks, nodes, services, &none, false);
        if nodes == 5_000 {
            measure(tasks, nodes, services, &some, false);
        }
    }
}
