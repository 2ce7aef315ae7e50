//! Both sides of a session in one process, without a network. Time is tokio's own and stands until all wait.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_cluster::Event;
use skep_types::assignment::{Assignment, StatusReport, TaskUsage};
use skep_types::node::NodeDescription;
use skep_types::{NodeId, ServiceId, TaskId, TaskState, TaskStatus, Time};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::*;
use crate::manager::Input;
use crate::wire::CallError;

const BEAT: Duration = Duration::from_secs(1);
const NODE: NodeId = NodeId(1);
const LIMIT: Duration = Duration::from_secs(60);

fn hello(hostname: &str) -> Hello {
    let description = NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() };
    Hello { description, address: "192.0.2.1".parse().unwrap(), data_path: None }
}

fn report(task: u128) -> StatusReport {
    let (message, error) = ("started".to_owned(), String::new());
    let status = TaskStatus { state: TaskState::Running, since: Time(1), message, error, container: None };
    StatusReport { task: TaskId(task), status }
}

/// Opens sessions with a leader in the same process.
struct Near(Sessions);

impl Connector for Near {
    async fn connect(&self, hello: Hello) -> Result<Link, CallError> {
        self.0.open(NODE, hello).await
    }
}

/// A leader's sessions and an agent that keeps one.
struct Scene {
    sessions: Sessions,
    inputs: mpsc::Receiver<Input>,
    hello: watch::Sender<Hello>,
    told: mpsc::Receiver<Told>,
    words: mpsc::Sender<Word>,
}

impl Scene {
    fn new() -> Scene {
        let (sender, inputs) = mpsc::channel(64);
        let sessions = Sessions::new(sender);
        let (hello, greetings) = watch::channel(hello("first"));
        let (agent, told) = mpsc::channel(1);
        let (words, said) = mpsc::channel(1);
        let (news, _) = mpsc::channel(1);
        let connector = Arc::new(Near(sessions.clone()));
        tokio::spawn(Keeper { connector, hello: greetings, agent, news, words: said }.run());
        Scene { sessions, inputs, hello, told, words }
    }

    async fn event(&mut self) -> Event {
        match timeout(LIMIT, self.inputs.recv()).await.unwrap().unwrap() {
            Input::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    /// The next session's opening: what the node is called in it.
    async fn opened(&mut self) -> String {
        match self.event().await {
            Event::NodeReady { node: NODE, description, .. } => description.hostname,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_is_found_soon_and_kept_as_long_as_it_leads() {
    let mut scene = Scene::new();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let elected = Instant::now();
    scene.sessions.lead(BEAT, [NODE]);
    scene.opened().await;
    assert!(elected.elapsed() < Duration::from_millis(500), "{:?}", elected.elapsed());
    // Beats alone keep it.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(scene.inputs.try_recv().is_err());
    scene.sessions.depose();
    let told = timeout(LIMIT, scene.told.recv()).await.unwrap();
    assert_eq!(told, Some(Told::Alone));
    scene.sessions.lead(BEAT, [NODE]);
    scene.opened().await;
    scene.sessions.send(NODE, 7, Assignment::Complete(Vec::new()));
    let told = timeout(LIMIT, scene.told.recv()).await.unwrap();
    assert_eq!(told, Some(Told::Assigned { number: 7, assignment: Assignment::Complete(Vec::new()) }));
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_says_waits_for_a_leader() {
    let mut scene = Scene::new();
    let usage = TaskUsage { task: TaskId(1), nano_cpus: 5, milli_connections: None };
    let word = Word { reports: vec![report(1)], acknowledged: Some(7), usage: vec![usage] };
    scene.words.send(word).await.unwrap();
    scene.sessions.lead(BEAT, []);
    scene.opened().await;
    assert_eq!(scene.event().await, Event::Reports(NODE, vec![report(1)]));
    assert_eq!(scene.event().await, Event::Acknowledged { node: NODE, number: 7 });
    // What was measured before is of no use to a new leader.
    let usage = TaskUsage { nano_cpus: 6, ..usage };
    scene.words.send(Word { usage: vec![usage], ..Word::default() }).await.unwrap();
    assert_eq!(scene.event().await, Event::Usage(NODE, vec![usage]));
    let services = BTreeSet::from([ServiceId(3)]);
    scene.sessions.measure_all(&services);
    assert_eq!(timeout(LIMIT, scene.told.recv()).await.unwrap(), Some(Told::Measure(services)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_something_new_to_say_opens_a_new_session() {
    let mut scene = Scene::new();
    scene.sessions.lead(BEAT, []);
    assert_eq!(scene.opened().await, "first");
    scene.hello.send_replace(hello("second"));
    assert_eq!(timeout(LIMIT, scene.told.recv()).await.unwrap(), Some(Told::Alone));
    assert_eq!(scene.opened().await, "second");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(scene.inputs.try_recv().is_err(), "the first session's end is no loss");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_do_not_find_their_new_leader_are_lost() {
    let mut scene = Scene::new();
    let began = Instant::now();
    scene.sessions.lead(BEAT, [NODE, NodeId(2), NodeId(3)]);
    scene.opened().await;
    scene.sessions.end(NodeId(3));
    let reason = "heartbeat failure for node in \"unknown\" state".to_owned();
    assert_eq!(scene.event().await, Event::NodeLost { node: NodeId(2), reason });
    assert!(began.elapsed() >= 6 * BEAT);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(scene.inputs.try_recv().is_err(), "the others are there, or were removed");
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_lost_after_three_beats_and_a_new_period_counts_at_once() {
    let (sender, mut inputs) = mpsc::channel(64);
    let sessions = Sessions::new(sender);
    sessions.lead(10 * BEAT, []);
    let mut link = sessions.open(NODE, hello("silent")).await.unwrap();
    assert_eq!(link.from_manager.recv().await, Some(ToAgent::Beat(10 * BEAT)));
    sessions.set_period(BEAT);
    assert_eq!(link.from_manager.recv().await, Some(ToAgent::Beat(BEAT)));
    let began = Instant::now();
    assert!(matches!(inputs.recv().await, Some(Input::Event(Event::NodeReady { .. }))));
    let lost = timeout(LIMIT, inputs.recv()).await.unwrap();
    assert!(matches!(lost, Some(Input::Event(Event::NodeLost { .. }))), "{lost:?}");
    assert!(began.elapsed() >= 3 * BEAT && began.elapsed() < 4 * BEAT, "{:?}", began.elapsed());
    let ended = async { while link.from_manager.recv().await.is_some() {} };
    timeout(LIMIT, ended).await.expect("it is told that it has no session");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_let_in_and_never_comes_is_lost() {
    let mut scene = Scene::new();
    scene.sessions.lead(BEAT, []);
    scene.opened().await;
    let began = Instant::now();
    for node in [NODE, NodeId(2), NodeId(3), NodeId(2)] {
        scene.sessions.expect(node);
    }
    scene.sessions.end(NodeId(3));
    let reason = "the node never came after it was let in".to_owned();
    assert_eq!(scene.event().await, Event::NodeLost { node: NodeId(2), reason });
    assert!(began.elapsed() >= 6 * BEAT);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(scene.inputs.try_recv().is_err(), "the others are there, or were removed");
}
