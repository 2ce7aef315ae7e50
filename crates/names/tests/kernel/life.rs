//! The server's life is not the daemon's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skep_names::{Config, Forwarding, Names};

use crate::resolver::{self, Resolver};
use crate::support::{
    Sandbox, World, at, entry, exchange, exchange_by_tcp, fill_shop, is_running, kill, mode, server, until,
};

const A: RecordType = RecordType::A;
const SOON: Duration = Duration::from_secs(10);

/// Clients that ask all the time, what is known and what is forwarded, by UDP and TCP.
struct Load {
    ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    asked: usize,
    failed: Vec<String>,
    slowest: Duration,
}

impl Load {
    fn start(sandbox: &Sandbox) -> Load {
        let ended = Arc::new(AtomicBool::new(false));
        let asks = [("web", "10.0.1.2"), ("www.example", "192.0.2.1")].into_iter();
        let mut clients: Vec<JoinHandle<Tally>> = Vec::new();
        for (name, expected) in asks {
            let (client, until) = (sandbox.client(), Arc::clone(&ended));
            clients.push(std::thread::spawn(move || {
                tally(&until, || match exchange(&client, name, A) {
                    Some(answer) if answer.data == [expected] => Ok(()),
                    other => Err(format!("{name}: {other:?}")),
                })
            }));
        }
        let (netns, until) = (sandbox.netns.clone(), Arc::clone(&ended));
        clients.push(std::thread::spawn(move || {
            let sandbox = std::mem::ManuallyDrop::new(Sandbox { netns });
            let mut stream = sandbox.connection();
            tally(&until, || {
                let answer = exchange_by_tcp(&mut stream, "web", A).or_else(|_| {
                    // As any client does whose connection was closed between two questions.
                    stream = sandbox.connection();
                    exchange_by_tcp(&mut stream, "web", A)
                });
                match answer {
                    Ok(answer) if answer.data == ["10.0.1.2"] => Ok(()),
                    other => Err(format!("tcp: {other:?}")),
                }
            })
        }));
        Load { ended, clients }
    }

    fn finish(self) -> Tally {
        self.ended.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.join().unwrap();
            all.asked += tally.asked;
            all.failed.extend(tally.failed);
            all.slowest = all.slowest.max(tally.slowest);
        }
        all
    }
}

fn tally(ended: &AtomicBool, mut ask: impl FnMut() -> Result<(), String>) -> Tally {
    let mut tally = Tally::default();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        tally.failed.extend(ask().err());
        tally.slowest = tally.slowest.max(began.elapsed());
        tally.asked += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    tally
}

pub async fn there_is_no_server_without_a_sandbox() {
    let world = World::with_shop();
    assert!(world.names.settled().await);
    assert_eq!(world.server(), None);
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert!(world.server().is_some());
    drop(sandbox);
}

pub async fn a_restarted_daemon_tells_all_anew_and_no_question_fails() {
    let _resolver = Resolver::knowing(at("127.0.0.53"), &[[192, 0, 2, 1]]);
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let (process, load) = (world.server(), Load::start(&sandbox));
    let mut names = world.names.clone();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        names.shutdown().await;
        names = Names::open(world.config.clone());
        // A daemon finds its containers and networks again one by one.
        names.set_sandbox("one", sandbox.view(&["shop-id"], Forwarding::Host));
        assert!(names.settled().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        fill_shop(&names);
        names.complete();
        assert!(names.settled().await);
    }
    let tally = load.finish();
    assert!(tally.failed.is_empty(), "{tally:?}");
    assert!(tally.asked > 50, "{tally:?}");
    assert_eq!(world.server(), process, "it is the same process");
    names.shutdown().await;
}

pub async fn what_a_restarted_daemon_does_not_tell_is_forgotten() {
    let world = World::with_shop();
    let one = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let two = world.sandbox("two", &["shop-id"], Forwarding::Host).await;
    world.names.shutdown().await;
    let names = Names::open(world.config.clone());
    names.set_zone("shop-id", skep_names::ZoneConfig::default());
    names.set_entry("shop-id", "db-id", entry(&[("db", &["10.0.1.50"], false)]));
    names.set_sandbox("one", one.view(&["shop-id"], Forwarding::Host));
    assert!(names.settled().await);
    assert_eq!(one.addresses("db", A), ["10.0.1.50"]);
    assert_eq!(two.addresses("web", A), ["10.0.1.2"], "not told yet is not gone");
    names.complete();
    assert!(names.settled().await);
    assert_eq!(one.code("web", A), ResponseCode::NXDomain);
    assert_eq!(one.addresses("db", A), ["10.0.1.50"]);
    let client = two.client();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // Refused by the kernel: nobody listens.
    let asked = client.send(&[0; 12]).and_then(|_| client.recv(&mut [0; 512]));
    assert_eq!(asked.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    names.shutdown().await;
}

pub async fn a_killed_server_is_back_within_a_second() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    for _ in 0..3 {
        let process = world.server().unwrap();
        kill(process);
        let began = Instant::now();
        until("it answers again", Duration::from_secs(1), || {
            let client = sandbox.client();
            client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            exchange(&client, "web", A).is_some_and(|answer| answer.data == ["10.0.1.2"])
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(1));
        until("another process listens", SOON, || world.server().is_some_and(|now| now != process)).await;
        until("the dead one is reaped", SOON, || !std::path::Path::new(&format!("/proc/{process}")).exists())
            .await;
    }
}

/// The same program in another file, as after an upgrade.
fn newer(world: &World) -> Config {
    let program = world.folder.path().join("newer");
    std::fs::copy(&world.config.program, &program).unwrap();
    Config { program, ..world.config.clone() }
}

pub async fn a_newer_program_takes_over_and_no_question_fails() {
    // Slow enough that there is always a question under way.
    let _resolver = Resolver::start(at("127.0.0.53"), |question, _| {
        std::thread::sleep(Duration::from_millis(60));
        vec![resolver::found(question, &[[192, 0, 2, 1]])]
    });
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let (old, load) = (world.server().unwrap(), Load::start(&sandbox));
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.names.shutdown().await;
    let names = Names::open(newer(&world));
    names.set_sandbox("one", sandbox.view(&["shop-id"], Forwarding::Host));
    assert!(names.settled().await);
    assert_eq!(server(&world.config.socket), Some(old), "it does not know enough yet");
    tokio::time::sleep(Duration::from_millis(50)).await;
    fill_shop(&names);
    names.complete();
    assert!(names.settled().await);
    until("another process listens", SOON, || world.server().is_some_and(|now| now != old)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let tally = load.finish();
    assert!(tally.failed.is_empty(), "{tally:?}");
    assert!(tally.asked > 50, "{tally:?}");
    until("the old one has ended", SOON, || !is_running(old)).await;
    // All of it is the new one's: it follows what changes.
    names.set_entry("shop-id", "web-id", entry(&[("web", &["10.0.1.200"], true)]));
    assert!(names.settled().await);
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.200"]);
    names.shutdown().await;
}

pub async fn a_daemon_that_ends_well_leaves_nothing() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let process = world.server().unwrap();
    drop(sandbox);
    world.names.remove_sandbox("one");
    world.names.shutdown().await;
    until("the server has ended", SOON, || !is_running(process)).await;
    assert!(!world.config.socket.exists());
}

pub async fn a_server_outlives_its_daemon_and_ends_with_the_last_sandbox() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let process = world.server().unwrap();
    world.names.shutdown().await;
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    assert_eq!(world.server(), Some(process));
    // The next daemon finds no container any more.
    let names = Names::open(world.config.clone());
    names.complete();
    let gone = || {
        let client = sandbox.client();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        exchange_or_refused(&client)
    };
    until("the namespace is let go", SOON, gone).await;
    names.shutdown().await;
    until("the server has ended", SOON, || !is_running(process)).await;
    assert!(!world.config.socket.exists());
}

fn exchange_or_refused(client: &std::net::UdpSocket) -> bool {
    let asked = client.send(&[0; 12]).and_then(|_| client.recv(&mut [0; 512]));
    asked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

pub async fn a_namespace_made_anew_is_served() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    drop(sandbox);
    // The container starts again: another namespace at the same path.
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    // One that is not there yet is served as soon as it is.
    let late = world.folder.path().join("late");
    let view = skep_names::View { netns: late.clone(), ..sandbox.view(&["shop-id"], Forwarding::Host) };
    world.names.set_sandbox("late", view);
    assert!(world.names.settled().await);
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"], "the others do not suffer");
    let late = Sandbox::new(&late);
    until("it is served", SOON, || {
        let client = late.client();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        exchange(&client, "web", A).is_some()
    })
    .await;
}

pub async fn nobody_else_reaches_the_servers_socket() {
    let world = World::with_shop();
    let _sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(mode(&world.config.socket), 0o600);
    let process = world.server().unwrap();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().collect();
    assert!(open.len() < 20, "it holds what it needs: {}", open.len());
    let session = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let session: u32 =
        session.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(session, process, "a terminal's signals are not for it");
}
