//! Measures the server: its memory, how soon it knows what changed, and how many questions it answers.
//!
//! `questions <services> <endpoints>`; as root, from a build that has `names-for-tests` beside the folder of examples.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::LinkNameSpaceType;
use skep_names::{ADDRESS, Config, Entry, Forwarding, Name, Names, PORT, Record, View, ZoneConfig};

/// How long questions are asked.
const FOR: Duration = Duration::from_secs(3);
/// How many are under way at once.
const DEPTH: usize = 16;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let &[services, endpoints] = numbers.as_slice() else { panic!("questions <services> <endpoints>") };
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let program = program.parent().and_then(Path::parent).unwrap().join("names-for-tests");
    let socket = folder.path().join("names.sock");
    let config = Config { socket: socket.clone(), program, resolv_conf: "/etc/resolv.conf".into() };
    let netns = folder.path().join("netns");
    std::fs::File::create(&netns).unwrap();
    let option = format!("--net={}", netns.display());
    assert!(
        Command::new("unshare").args([&option, "ip", "link", "set", "lo", "up"]).status().unwrap().success()
    );
    let names = Names::open(config);
    names.complete();
    let view = View {
        netns: netns.clone(),
        networks: vec!["shop".to_owned()],
        search: None,
        own: Entry::default(),
        forwarding: Forwarding::Host,
    };
    names.set_sandbox("one", view);
    assert!(names.settled().await);
    println!("empty: {}", memory(server(&socket).unwrap()));
    println!("this process: {}", memory(std::process::id()));
    fill(&names, services, endpoints).await;
    println!("{services} services x {endpoints}: {}", memory(server(&socket).unwrap()));
    println!("this process, with what it must be able to tell again: {}", memory(std::process::id()));
    change(&names, endpoints).await;
    resynchronise(&names, &socket).await;
    println!("afterwards: {}", memory(server(&socket).unwrap()));
    for (name, edns) in
        [("service-0", "a virtual address"), ("tasks.service-0", "all tasks"), ("nobody", "no such name")]
    {
        println!("{name} ({edns}): {:.0} answers a second", answers_a_second(&netns, name));
    }
    names.remove_sandbox("one");
    names.shutdown().await;
    let _ = Command::new("umount").arg("--lazy").arg(&netns).status();
}

fn entry(service: u32, endpoints: u32, changed: u32) -> Entry {
    let address = |number: u32| Ipv4Addr::from_bits(0x0a00_0000 + number).into();
    let first = 100_000 + service * endpoints;
    let tasks: Vec<_> = (0..endpoints).map(|slot| address(first + slot + changed)).collect();
    let record =
        |name: String, addresses, pointer| Record { name: Name::new(&name).unwrap(), addresses, pointer };
    let mut records = vec![
        record(format!("service-{service}"), vec![address(service)], true),
        record(format!("tasks.service-{service}"), tasks.clone(), false),
    ];
    records.extend(tasks.iter().enumerate().map(|(slot, address)| {
        record(format!("service-{service}.{}.{:025x}", slot + 1, first as usize + slot), vec![*address], true)
    }));
    Entry { records }
}

async fn fill(names: &Names, services: u32, endpoints: u32) {
    let began = Instant::now();
    names.set_zone("shop", ZoneConfig { domain: Name::new("shop"), subnets: Vec::new() });
    for service in 0..services {
        names.set_entry("shop", &format!("{service:025}"), entry(service, endpoints, 0));
    }
    while !names.settled().await {}
    println!("told for the first time within {:?}", began.elapsed());
}

async fn change(names: &Names, endpoints: u32) {
    let mut took: Vec<Duration> = Vec::new();
    for round in 0..1000 {
        let entry = entry(7, endpoints, round % 2);
        let began = Instant::now();
        names.set_entry("shop", &format!("{:025}", 7), entry);
        assert!(names.settled().await);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("one service changed until it is in force: median {:?}, 99 of 100 {:?}", took[500], took[990]);
}

async fn resynchronise(names: &Names, socket: &Path) {
    let before = server(socket).unwrap();
    let process = rustix::process::Pid::from_raw(before.cast_signed()).unwrap();
    let began = Instant::now();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    while server(socket).is_none_or(|now| now == before) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A change is told after all else.
    names.set_entry("shop", "last", Entry::default());
    while !names.settled().await {}
    println!("killed until another one knows everything: {:?}", began.elapsed());
}

/// The process id of the server at our own socket: others on the machine are nobody's business here.
fn server(socket: &Path) -> Option<u32> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"\x07\0\0\0\"Hello\"").ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    let welcome: serde_json::Value = serde_json::from_slice(&body).ok()?;
    welcome["Welcome"]["process"].as_u64().and_then(|process| u32::try_from(process).ok())
}

fn memory(process: u32) -> String {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let of = |key: &str| {
        let line = rollup.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    format!("RSS {} KiB, of it private {} KiB", of("Rss:"), of("Private_Dirty:") + of("Private_Clean:"))
}

fn answers_a_second(netns: &Path, name: &str) -> f64 {
    let namespace = std::fs::File::open(netns).unwrap();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect((ADDRESS, PORT)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let labels =
                name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
            let question: Vec<u8> = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
                .into_iter()
                .chain(labels)
                .chain([0, 0, 1, 0, 1])
                .collect();
            for _ in 0..DEPTH {
                client.send(&question).unwrap();
            }
            let (began, mut answers) = (Instant::now(), 0u32);
            while began.elapsed() < FOR {
                client.recv(&mut [0; 4096]).unwrap();
                client.send(&question).unwrap();
                answers += 1;
            }
            f64::from(answers) / began.elapsed().as_secs_f64()
        });
        asking.join().unwrap()
    })
}
