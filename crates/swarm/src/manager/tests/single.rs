//! One manager: what a cluster of one has to keep over crashes, kills and a full disk.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use skep_cluster::Request;
use skep_consensus::{Consensus, Notice};
use skep_types::{ServiceId, Time, Version};

use super::town::{self, Town, address, cluster};
use super::{PATIENCE, create, running, service, until};
use crate::SwarmError;
use crate::announce::Announcer;
use crate::manager::Manager;

const DIR: &str = "SKEP_TEST_SWARM_DIR";

/// A cluster's only manager over the log in `dir`, with an agent at its side.
async fn open(dir: &Path) -> (Town, Manager, Announcer) {
    let town = Town::default();
    let (manager, announcer) = town.open(dir, 1).await;
    (town, manager, announcer)
}

async fn found(dir: &Path, snapshot_interval: u64) -> (Town, Manager, Announcer) {
    let (town, manager, announcer) = open(dir).await;
    manager.found(address(1), cluster(snapshot_interval)).await.unwrap();
    (town, manager, announcer)
}

#[tokio::test]
async fn a_service_comes_to_run_and_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_town, manager, announcer) = found(dir.path(), 10_000).await;
    let (_, mut events) = announcer.subscribe(None);
    let id = create(&manager, service("web", 3)).await;
    until(&manager, |objects| running(objects) == 3).await;
    let event = events.recv().await.unwrap();
    assert_eq!((event.action.as_str(), event.id), ("create", id.to_string()));
    let before: Vec<_> = manager.read(|objects| objects.tasks().map(|task| task.id).collect());
    manager.stop().await;

    let (_town, manager, _) = open(dir.path()).await;
    let after: Vec<_> =
        manager.read_current(|objects| objects.tasks().map(|task| task.id).collect()).await.unwrap();
    assert_eq!(after, before, "the tasks are the same");
    assert_eq!(manager.read(running), 3);
    assert_eq!(manager.read(|objects| objects.service_named("web").map(|service| service.id)), Some(id));
}

#[tokio::test]
async fn refusals_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (_town, manager, _) = found(dir.path(), 10_000).await;
    let id = create(&manager, service("web", 0)).await;
    let again = manager.request(Request::CreateService(Box::new(service("web", 0)))).await;
    assert!(matches!(again, Err(SwarmError::Conflict(_))), "{again:?}");
    let stale = Request::UpdateService { id, version: Version(0), spec: Box::new(service("web", 1)) };
    let told = manager.request(stale).await.unwrap_err();
    assert_eq!(told, SwarmError::Internal("update out of sequence".to_owned()));
    let gone = manager.request(Request::RemoveService(ServiceId(5))).await;
    assert!(matches!(gone, Err(SwarmError::NotFound(_))), "{gone:?}");
}

#[tokio::test]
async fn events_tell_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (_town, manager, announcer) = found(dir.path(), 10_000).await;
    let id = create(&manager, service("web", 0)).await;
    let version = manager.read(|objects| objects.service(id).unwrap().meta.version);
    let spec = Box::new(service("web", 2));
    manager.request(Request::UpdateService { id, version, spec }).await.unwrap();
    manager.request(Request::RemoveService(id)).await.unwrap();
    let (past, _) = announcer.subscribe(Some(Time(0)));
    let told = |kind: &str| -> Vec<String> {
        let of_kind = past.iter().filter(|event| event.kind.name() == kind);
        of_kind.map(|event| format!("{} {:?}", event.action, event.attributes)).collect()
    };
    assert_eq!(
        told("service"),
        [
            r#"create {"name": "web"}"#,
            r#"update {"name": "web", "replicas.new": "2", "replicas.old": "0"}"#,
            r#"remove {"name": "web"}"#,
        ]
    );
    assert_eq!(told("network"), [r#"create {"name": "ingress"}"#]);
    assert_eq!(told("node")[0], r#"create {"name": "here"}"#);
}

#[tokio::test]
async fn snapshots_keep_the_log_short_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_town, manager, _) = found(dir.path(), 8).await;
    for number in 0..40 {
        create(&manager, service(&format!("service-{number}"), 1)).await;
    }
    until(&manager, |objects| running(objects) == 40).await;
    manager.stop().await;

    let street = town::Street::nowhere();
    let (consensus, mut told) = Consensus::open(town::config(dir.path(), 1), street).await.unwrap();
    assert!(matches!(told.recv().await, Some(Notice::Restored(_))), "a snapshot was taken");
    consensus.stop().await;
    let (_town, manager, _) = open(dir.path()).await;
    let seen = manager.read_current(|objects| (objects.services().count(), running(objects))).await;
    assert_eq!(seen.unwrap(), (40, 40));
}

#[tokio::test]
async fn a_log_of_another_program_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let open = async || Consensus::open(town::config(dir.path(), 1), town::Street::nowhere()).await.unwrap();
    let (consensus, mut told) = open().await;
    consensus.found(address(1)).await.unwrap();
    let term = loop {
        if let Notice::Leads { term } = told.recv().await.unwrap() {
            break term;
        }
    };
    consensus.propose(term, 1, vec![9, 9]);
    let index = loop {
        if let Notice::Committed { index, own: Some(1), .. } = told.recv().await.unwrap() {
            break index;
        }
    };
    consensus.stop().await;

    let (_town, manager, _) = self::open(dir.path()).await;
    let given_up = async {
        while manager.trouble().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.unwrap();
    let reason = format!(
        "cannot read entry {index} of the swarm's state: it was written in format 9; this program reads format 1"
    );
    assert_eq!(manager.trouble().as_ref(), Some(&reason));
    let refused = manager.request(Request::RemoveService(ServiceId(5))).await;
    assert_eq!(refused, Err(SwarmError::Unavailable(reason)));
    manager.stop().await;
    let (consensus, mut told) = open().await;
    let kept =
        async { while !matches!(told.recv().await.unwrap(), Notice::Committed { payload: Some(_), .. }) {} };
    tokio::time::timeout(PATIENCE, kept).await.expect("the entry is kept");
    consensus.stop().await;
}

/// Not a test of its own: the process that is killed. It creates services for ever, tells each, and takes
/// snapshots often.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let (_town, manager, _) = open(dir).await;
    if !dir.join("founded").exists() {
        manager.found(address(1), cluster(16)).await.unwrap();
        std::fs::write(dir.join("founded"), "").unwrap();
    }
    let first = manager.read_current(|objects| objects.services().count()).await.unwrap();
    for number in first.. {
        create(&manager, service(&format!("service-{number}"), 1)).await;
        println!("\n{number}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_service_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "manager::tests::single::child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Not a time but a number of services: it is the moment after one of them that varies.
        let moment = next + round * 5 % 13;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Ok(number) = line.unwrap().parse::<usize>() {
                next = number + 1;
                if number == moment {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(next > moment, "the child died by itself");

        let (_town, manager, _) = open(dir.path()).await;
        let known = manager.read_current(|objects| objects.services().count()).await.unwrap();
        assert!(known >= next, "{known} of {next} services");
        for number in 0..known {
            let name = format!("service-{number}");
            assert!(manager.read(|objects| objects.service_named(&name).is_some()), "{name}");
        }
        next = known;
        manager.stop().await;
    }
}

/// Not a test of its own: runs in a mount namespace of its own, on a disk that fills up.
#[tokio::test]
async fn on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir).status();
    assert!(mounted.unwrap().success());
    let (_town, manager, _) = found(&dir.join("log"), 10_000).await;
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);

    let attempt =
        |number: usize| manager.request(Request::CreateService(Box::new(service(&format!("s{number}"), 1))));
    let mut acknowledged = 0;
    let refusal = loop {
        match attempt(acknowledged).await {
            Ok(_) => acknowledged += 1,
            Err(refusal) => break refusal,
        }
        assert!(acknowledged < 10_000, "the disk never fills up");
    };
    let told = refusal.to_string();
    assert!(told.contains("the disk is full"), "{told}");

    std::fs::remove_file(&filler).unwrap();
    let again = async {
        while let Err(refusal) = attempt(acknowledged).await {
            // It may have been taken after all, and only its fate been unknown.
            if matches!(refusal, SwarmError::Conflict(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
    until(&manager, |objects| running(objects) == acknowledged + 1).await;
    manager.stop().await;
    let (_town, manager, _) = open(&dir.join("log")).await;
    manager.read_current(|_| ()).await.unwrap();
    for number in 0..=acknowledged {
        let name = format!("s{number}");
        assert!(manager.read(|objects| objects.service_named(&name).is_some()), "{name}");
    }
}

#[test]
fn a_full_disk_is_said_and_the_manager_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "manager::tests::single::on_a_small_disk", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
