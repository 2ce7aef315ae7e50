//! Three managers: requests and reads on any of them, and what is left when some are lost.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use skep_cluster::Request;
use skep_types::node::NodeRole;
use tokio::time::Instant;

use super::town::{Town, id};
use super::{create, running, service, until};
use crate::manager::Manager;
use crate::{Reachability, SwarmError};

const DIR: &str = "SKEP_TEST_SMALL_DISK";

async fn names(manager: &Manager) -> Vec<String> {
    let read = |objects: &skep_cluster::Objects| {
        let mut names: Vec<String> = objects.services().map(|service| service.spec.name.clone()).collect();
        names.sort();
        names
    };
    manager.read_current(read).await.unwrap()
}

#[tokio::test]
async fn every_manager_takes_requests_and_sees_what_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    let mut expected = Vec::new();
    for (number, manager) in managers.iter().cycle().take(12).enumerate() {
        create(manager, service(&format!("service-{number:02}"), 1)).await;
        expected.push(format!("service-{number:02}"));
        for reader in &managers {
            assert_eq!(names(reader).await, expected, "each sees it at once");
        }
    }
    let refused = managers[2].request(Request::CreateService(Box::new(service("service-00", 1)))).await;
    assert!(matches!(refused, Err(SwarmError::Conflict(_))), "{refused:?}");
    until(&managers[1], |objects| running(objects) == 12).await;
}

#[tokio::test]
async fn reads_at_the_same_time_share_a_point_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    create(&managers[0], service("web", 0)).await;
    let reads: Vec<_> = (0..500)
        .map(|_| {
            let manager = managers[1].clone();
            tokio::spawn(async move { names(&manager).await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap(), ["web"]);
    }
}

#[tokio::test]
async fn the_next_leader_goes_on_without_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    for number in 0..5 {
        create(&managers[1], service(&format!("service-{number}"), 2)).await;
    }
    assert!(managers[0].leads());
    town.stop(1).await;
    create(&managers[1], service("service-5", 2)).await;
    for manager in &managers[1..] {
        assert_eq!(names(manager).await.len(), 6);
    }
    until(&managers[2], |objects| running(objects) == 12).await;
    assert_eq!(town.leader().await.read(|objects| objects.services().count()), 6);
}

#[tokio::test]
async fn managers_stand_as_their_leader_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    town.cut(3);
    let standing = async || {
        let read = managers[1].read_nodes(|objects, managers| {
            let views = objects.nodes().map(|node| managers.view(node).manager.unwrap());
            views.map(|manager| (manager.leads, manager.reachability)).collect::<Vec<_>>()
        });
        read.await.unwrap()
    };
    let expected = [
        (true, Reachability::Reachable),
        (false, Reachability::Reachable),
        (false, Reachability::Unreachable),
    ];
    let told = async {
        while standing().await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_minority_says_so_in_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    town.cut(1);
    create(&managers[1], service("web", 1)).await;
    town.cut(2);
    for manager in &managers {
        let begun = Instant::now();
        let (request, read) = tokio::join!(
            manager.request(Request::CreateService(Box::new(service("lost", 1)))),
            manager.read_current(|_| ())
        );
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        for told in [request.map(|_| ()), read] {
            let Err(SwarmError::Unavailable(told)) = told else { panic!("{told:?}") };
            assert!(told.contains("does not have a leader") || told.contains("is not known"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_demoted_manager_loses_its_seat() {
    let dir = tempfile::tempdir().unwrap();
    let town = Town::default();
    let managers = town.found(dir.path(), 3).await;
    for number in [3, 1] {
        let demoted = id(number);
        let node = managers[1].read_current(|objects| objects.node(demoted).cloned()).await.unwrap().unwrap();
        let mut spec = node.spec.clone();
        spec.role = NodeRole::Worker;
        let request = Request::UpdateNode { id: demoted, version: node.meta.version, spec: Box::new(spec) };
        managers[1].request(request).await.unwrap();
        until(&managers[1], |objects| objects.node(demoted).is_some_and(|node| node.manager.is_none())).await;
        town.stop(number).await;
    }
    // It alone is left, and that is enough.
    create(&managers[1], service("web", 1)).await;
    assert_eq!(names(&managers[1]).await, ["web"]);
}

/// Not a test of its own: runs in a mount namespace of its own, where the leader's disk fills up.
#[tokio::test]
async fn with_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let small = dir.join("1");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    let town = Town::default();
    let managers = town.found(dir, 3).await;
    assert!(managers[0].leads());
    let mut file = std::fs::File::create(small.join("filler")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);

    let mut acknowledged = Vec::new();
    for number in 0.. {
        let name = format!("service-{number:04}");
        // In between nobody knows; afterwards the next leader answers.
        if managers[1].request(Request::CreateService(Box::new(service(&name, 0)))).await.is_ok() {
            acknowledged.push(name);
        }
        if !managers[0].leads() && managers[0].trouble().is_some() {
            break;
        }
        assert!(number < 10_000, "the disk never fills up");
    }
    create(&managers[2], service("after", 1)).await;
    acknowledged.push("after".to_owned());
    let seen = names(&managers[1]).await;
    assert!(acknowledged.iter().all(|name| seen.contains(name)), "{acknowledged:?} are not all in {seen:?}");

    // With room again it comes back and catches up.
    std::fs::remove_file(small.join("filler")).unwrap();
    until(&managers[0], |objects| objects.service_named("after").is_some()).await;
}

#[test]
fn another_leads_when_the_leader_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "manager::tests::several::with_a_small_disk", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
