//! Who belongs, and what proves it: tokens, the root and its replacement, locked managers, a lost quorum.

use std::io::Read;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::papers::{Papers, certificates};
use crate::{SOON, await_answer};

/// How long a root may take to be replaced on three nodes.
const ROTATION: Duration = Duration::from_secs(60);

/// All nodes are ready, on the root of today.
#[track_caller]
pub fn until_all_trust(lab: &Lab, manager: u16, count: usize) {
    let format = ["node", "ls", "--format", "{{.Status}} {{.TLSStatus}}"];
    lab.until(manager, "all stand on one root", ROTATION, &format, |listed| {
        listed.lines().filter(|line| *line == "Ready Ready").count() == count
    });
}

/// A web server with so many replicas that all nodes answer for on port 80.
#[track_caller]
fn serve(lab: &Lab, replicas: &str) {
    let create = ["service", "create", "--detach", "--name", "web", "-p", "80:8000", "--replicas", replicas];
    lab.docker(1, &[&create[..], &["simple_server"]].concat()).ok();
    lab.until_replicas(1, "web", &format!("{replicas}/{replicas}"), SOON);
    for node in lab.nodes() {
        await_answer(lab, node, 80);
    }
}

/// Does `work` while all nodes are asked again and again; nobody may be refused an answer.
fn without_downtime(lab: &Lab, nodes: &[u16], work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut lost) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                for node in nodes {
                    asked += 1;
                    lost.extend(lab.fetch(*node, 80).err());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (asked, lost)
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let (asked, lost) = asking.join().unwrap();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(asked > 10 && lost.is_empty(), "{} of {asked} got no answer: {lost:?}", lost.len());
    });
}

#[test]
fn each_token_gives_its_role_until_it_is_rotated() {
    let lab = Lab::machines(4, &[]);
    lab.docker(1, &["swarm", "init", "--advertise-addr", &lab.address(1).to_string()]).ok();
    let (worker, manager) = (lab.token(1, "worker"), lab.token(1, "manager"));
    let join = |node, token: &str| lab.docker(node, &["swarm", "join", "--token", token, "192.0.2.1:2377"]);
    let role =
        |node: u16| lab.docker(node, &["info", "--format", "{{.Swarm.ControlAvailable}}"]).ok() == "true";

    let told = lab.docker(1, &["swarm", "join-token", "--rotate", "manager"]).ok();
    let rotated = lab.token(1, "manager");
    assert!(told.contains("Successfully rotated manager join token.") && told.contains(&rotated), "{told}");
    assert_ne!(rotated, manager);
    assert_eq!(lab.token(1, "worker"), worker, "the other token stays");
    join(2, &manager).fails(1, "A valid join token is necessary to join this cluster");
    assert_eq!(join(2, &rotated).ok(), "This node joined a swarm as a manager.");
    assert!(role(2));
    assert_eq!(join(3, &worker).ok(), "This node joined a swarm as a worker.");
    assert!(!role(3));

    // Any manager rotates; whoever is in stays in.
    lab.docker(2, &["swarm", "join-token", "--rotate", "--quiet", "worker"]).ok();
    join(4, &worker).fails(1, "A valid join token is necessary to join this cluster");
    join(4, &lab.token(1, "worker")).ok();
    until_all_trust(&lab, 2, 4);
}

/// Passes connections on to a manager, and cuts each after so many bytes of its answers.
fn cutting(lab: &Lab, port: u16, after: usize, work: impl FnOnce()) {
    let to = SocketAddr::new(IpAddr::V4(lab.address(1)), 2377);
    let here = SocketAddr::new(IpAddr::V4(lab.address(0)), port);
    let listener = lab.inside(0, || TcpListener::bind(here).unwrap());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let manager = lab.inside(0, || TcpStream::connect(to).unwrap());
                let (mut from, mut into) = (client.try_clone().unwrap(), manager.try_clone().unwrap());
                scope.spawn(move || std::io::copy(&mut from, &mut into));
                scope.spawn(move || {
                    let _ = std::io::copy(&mut (&manager).take(after as u64), &mut &client);
                    for stream in [&manager, &client] {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        lab.inside(0, || drop(TcpStream::connect(here)));
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_join_that_is_cut_off_leaves_nothing() {
    let lab = Lab::machines(2, &[]);
    lab.docker(1, &["swarm", "init", "--advertise-addr", &lab.address(1).to_string()]).ok();
    // So that who never came is given up soon.
    lab.docker(1, &["swarm", "update", "--dispatcher-heartbeat", "1s"]).ok();
    let token = lab.token(1, "worker");
    let nodes = || lab.docker(1, &["node", "ls", "--quiet"]).ok().lines().count();
    let mut let_in = 0;
    for after in (100..3000).step_by(100) {
        cutting(&lab, 4000, after, || {
            let join = ["swarm", "join", "--token", &token, "192.0.2.254:4000"];
            assert_eq!(lab.docker(2, &join).code, 1, "cut after {after} bytes");
        });
        let state = lab.docker(2, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok();
        assert_eq!(state, "inactive", "cut after {after} bytes");
        let_in = let_in.max(nodes() - 1);
        if let_in > 0 {
            break;
        }
    }
    assert!(let_in > 0, "one was cut off just when it had been let in");
    eventually("who never came is forgotten", SOON, || match nodes() {
        1 => Ok(()),
        other => Err(format!("{other} nodes")),
    });
    lab.docker(2, &["swarm", "join", "--token", &token, "192.0.2.1:2377"]).ok();
    assert_eq!(nodes(), 2);
}

#[test]
fn the_root_is_replaced_while_services_answer() {
    let lab = Lab::up(2, 1, &["simple_server"]);
    let folder = tempfile::tempdir().unwrap();
    serve(&lab, "3");
    let old_root = lab.docker(1, &["swarm", "ca"]).ok();
    let old_tokens = [lab.token(1, "worker"), lab.token(1, "manager")];
    let old = [Papers::of(&lab, 1, folder.path()), Papers::of(&lab, 3, folder.path())];
    for papers in &old {
        assert_eq!(papers.shown_to(&lab, 1), "", "what is in use is taken");
    }
    root_is_told(&lab, &old_root);

    without_downtime(&lab, &[1, 2, 3], || {
        let told = lab.docker(1, &["swarm", "ca", "--rotate"]).ok();
        assert!(told.contains("BEGIN CERTIFICATE"), "{told}");
        until_all_trust(&lab, 1, 3);
    });
    let root = lab.docker(2, &["swarm", "ca"]).ok();
    assert_ne!(root, old_root);
    root_is_told(&lab, &root);
    let rotating = ["info", "--format", "{{.Swarm.Cluster.RootRotationInProgress}}"];
    lab.until(1, "the rotation has ended", SOON, &rotating, |shown| shown == "false");
    assert_ne!([lab.token(1, "worker"), lab.token(1, "manager")], old_tokens);
    for (manager, papers) in [(1, &old[0]), (1, &old[1]), (2, &old[1])] {
        eventually("the old root is trusted no more", SOON, || match papers.shown_to(&lab, manager) {
            told if told.is_empty() => Err("it is taken".to_owned()),
            // Roots are all called the same, so it is the signature that is wrong.
            told if told.contains("decrypt error") || told.contains("unknown ca") => Ok(()),
            told => panic!("{told}"),
        });
    }
    restart_each(&lab);
}

/// Each daemon comes back by itself with what it has on its disk.
#[track_caller]
fn restart_each(lab: &Lab) {
    for node in lab.nodes() {
        lab.run(&["kill", &node.to_string()]).ok();
        lab.run(&["start", &node.to_string()]).ok();
        until_all_trust(lab, if node == 1 { 2 } else { 1 }, usize::from(lab.nodes().last().unwrap()));
    }
    for node in lab.nodes() {
        await_answer(lab, node, 80);
    }
    lab.docker(1, &["service", "scale", "--detach", "web=4"]).ok();
    lab.until_replicas(2, "web", "4/4", SOON);
}

/// `docker info` and `docker node inspect` name the root that `docker swarm ca` prints.
#[track_caller]
fn root_is_told(lab: &Lab, root: &str) {
    let info = lab.docker(1, &["info", "--format", "{{.Swarm.Cluster.TLSInfo.TrustRoot}}"]).ok();
    assert_eq!(info.trim(), root.trim());
    let all = lab.docker(1, &["node", "ls", "--quiet"]).ok();
    let issuer = "{{.CertIssuerSubject}} {{.CertIssuerPublicKey}}";
    let format = format!("{{{{with .Swarm.Cluster.TLSInfo}}}}{issuer}{{{{end}}}}");
    let wanted = lab.docker(1, &["info", "--format", &format]).ok();
    for node in all.lines() {
        let format = format!("{{{{with .Description.TLSInfo}}}}{issuer} {{{{.TrustRoot}}}}{{{{end}}}}");
        let inspect = ["node", "inspect", "--format", &format, node];
        lab.until(1, "the node tells its root", SOON, &inspect, |told| {
            told.trim() == format!("{wanted} {}", root.trim())
        });
    }
}

#[test]
fn a_root_is_brought_along_and_what_it_did_not_sign_for_today_is_refused() {
    let lab = Lab::up(2, 1, &["simple_server"]);
    let folder = tempfile::tempdir().unwrap();
    serve(&lab, "3");
    lab.docker(1, &["swarm", "update", "--cert-expiry", "48h"]).ok();
    let info = lab.docker(1, &["info"]).ok();
    assert!(info.contains("Expiry Duration: 2 days"), "{info}");
    lab.docker(1, &["swarm", "update", "--cert-expiry", "30m"])
        .fails(1, "minimum certificate expiry time is: 1h0m0s");

    let root = Papers::root(folder.path(), "root");
    let (certificate, key) = (root.certificate.to_str().unwrap(), root.key.to_str().unwrap());
    let other = Papers::root(folder.path(), "other");
    let rotate = |certificate: &str, key: &str| {
        lab.docker(1, &["swarm", "ca", "--rotate", "--ca-cert", certificate, "--ca-key", key])
    };
    assert_ne!(rotate(certificate, other.key.to_str().unwrap()).code, 0, "another root's key");
    without_downtime(&lab, &[1, 2, 3], || {
        rotate(certificate, key).ok();
        until_all_trust(&lab, 2, 3);
    });
    let told = lab.docker(1, &["swarm", "ca"]).ok();
    assert_eq!(told.trim(), std::fs::read_to_string(&root.certificate).unwrap().trim());
    for node in lab.nodes() {
        let file = certificates(&lab, node).join("swarm-node.crt");
        let end = |seconds: &str| {
            let check = ["x509", "-noout", "-checkend", seconds, "-in", file.to_str().unwrap()];
            std::process::Command::new("openssl").args(check).status().unwrap().success()
        };
        assert!(end("169200") && !end("176400"), "node {node} has a certificate of 48 hours");
    }
    restart_each(&lab);

    // With the root's key whatever can be forged is forged.
    let cluster = lab.docker(1, &["info", "--format", "{{.Swarm.Cluster.ID}}"]).ok();
    let worker = lab.docker(3, &["info", "--format", "{{.Swarm.NodeID}}"]).ok();
    let subject = format!("/O={cluster}/OU=swarm-worker/CN={worker}");
    let cases = [
        (root.issue(folder.path(), "good", &subject, "1"), ""),
        (root.issue(folder.path(), "expired", &subject, "-1"), "certificate expired"),
        (other.issue(folder.path(), "unknown", &subject, "1"), "decrypt error"),
    ];
    for (papers, told) in cases {
        let shown = papers.shown_to(&lab, 1);
        assert!(shown.contains(told) && shown.is_empty() == told.is_empty(), "{shown:?}, not {told:?}");
    }
    let elsewhere = format!("/O=another/OU=swarm-manager/CN={worker}");
    let elsewhere = root.issue(folder.path(), "elsewhere", &elsewhere, "1");
    assert_ne!(elsewhere.shown_to(&lab, 1), "", "another cluster's node");
}

/// Files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Asserts that nobody who takes a manager's disk reads any of these in its swarm's folder.
#[track_caller]
fn nothing_to_steal(lab: &Lab, node: u16, secrets: &[&str]) {
    let mut found = Vec::new();
    files(&lab.folder(node).join("data/swarm"), &mut found);
    assert!(found.len() > 3, "{found:?}");
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        for secret in secrets {
            // As Docker's, an agent's memory of its tasks is as open as their containers' settings beside it.
            if *secret == ENVIRONMENT && path.ends_with("duties") {
                continue;
            }
            let has = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!has, "{} holds {secret:?} in clear", path.display());
        }
    }
}

/// A service's setting that is confidential.
const ENVIRONMENT: &str = "hunter2hunter2";

const ENCRYPTED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
                         unlock\" to unlock it.";

fn unlock(lab: &Lab, node: u16, key: &str) -> (u16, String) {
    let answer = lab.api(node, "POST", "/swarm/unlock", &format!("{{\"UnlockKey\":\"{key}\"}}")).unwrap();
    (answer.status, answer.body)
}

/// The key among what a command printed.
#[track_caller]
fn unlock_key(printed: &str) -> String {
    let mut words = printed.split_whitespace();
    words.find(|word| word.starts_with("SWMKEY-1-")).unwrap_or_else(|| panic!("no key: {printed}")).to_owned()
}

#[test]
fn a_locked_manager_gives_nothing_away() {
    let lab = Lab::machines(1, &["busybox"]);
    let init = lab.docker(1, &["swarm", "init", "--autolock", "--advertise-addr", "192.0.2.1"]).ok();
    let key = unlock_key(&init);
    assert!(init.contains("To unlock a swarm manager after it restarts"), "{init}");
    assert_eq!(lab.docker(1, &["swarm", "unlock-key", "--quiet"]).ok(), key);
    let create = ["service", "create", "--detach", "--name", "web", "--env"];
    let setting = format!("PASSWORD={ENVIRONMENT}");
    lab.docker(1, &[&create[..], &[&setting, "busybox", "sleep", "1000"]].concat()).ok();
    lab.until_replicas(1, "web", "1/1", SOON);
    let (worker, manager) = (lab.token(1, "worker"), lab.token(1, "manager"));
    let secrets = [
        ENVIRONMENT,
        "BEGIN PRIVATE KEY",
        "BEGIN EC PRIVATE KEY",
        worker.rsplit('-').next().unwrap(),
        manager.rsplit('-').next().unwrap(),
        key.trim_start_matches("SWMKEY-1-"),
    ];
    nothing_to_steal(&lab, 1, &secrets);

    let restart = || {
        lab.run(&["kill", "1"]).ok();
        lab.run(&["start", "1"]).ok();
        lab.docker(1, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok()
    };
    assert_eq!(restart(), "locked");
    nothing_to_steal(&lab, 1, &secrets);
    for command in [
        &["service", "ls"][..],
        &["node", "ls"],
        &["swarm", "join-token", "worker"],
        &["swarm", "unlock-key"],
        &["swarm", "ca"],
        &["service", "rm", "web"],
    ] {
        lab.docker(1, command).fails(1, ENCRYPTED);
    }
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    let (status, told) = unlock(&lab, 1, &wrong);
    assert!(status == 401 && told.contains("swarm could not be unlocked: invalid key provided"), "{told}");
    assert_eq!(unlock(&lab, 1, "nonsense").0, 400);
    assert_eq!(unlock(&lab, 1, &key).0, 200);
    assert_eq!(unlock(&lab, 1, &key).0, 409, "it is not locked any more");
    lab.until_replicas(1, "web", "1/1", SOON);

    // A new key takes the old one's place.
    let new = unlock_key(&lab.docker(1, &["swarm", "unlock-key", "--rotate"]).ok());
    assert_ne!(new, key);
    assert_eq!(lab.docker(1, &["swarm", "unlock-key", "--quiet"]).ok(), new);
    nothing_to_steal(&lab, 1, &[new.trim_start_matches("SWMKEY-1-")]);
    until_locked_with(&lab, 1, &new, &key);
    assert_eq!(unlock(&lab, 1, &new).0, 200);

    lab.until(1, "it can be unlocked", SOON, &["swarm", "update", "--autolock=false"], |_| true);
    eventually("it starts without a key", SOON, || match restart().as_str() {
        "active" => Ok(()),
        other if unlock(&lab, 1, &new).0 == 200 => Err(other.to_owned()),
        other => panic!("{other}"),
    });
    lab.until_replicas(1, "web", "1/1", SOON);
    let told = lab.docker(1, &["swarm", "update", "--autolock=true"]).ok();
    let third = unlock_key(&told);
    assert_ne!(third, new);
    eventually("it is locked again", SOON, || match restart().as_str() {
        "locked" => Ok(()),
        other => Err(other.to_owned()),
    });
    nothing_to_steal(&lab, 1, &["BEGIN PRIVATE KEY", ENVIRONMENT]);
    assert_eq!(unlock(&lab, 1, &third).0, 200);
    lab.until_replicas(1, "web", "1/1", SOON);
    // Locked nodes can leave.
    assert_eq!(restart(), "locked");
    lab.docker(1, &["swarm", "leave", "--force"]).ok();
}

/// Restarts a manager until its key file follows the rotated key: it is locked then with the new one only.
#[track_caller]
fn until_locked_with(lab: &Lab, node: u16, new: &str, old: &str) {
    eventually("only the new key unlocks", SOON, || {
        lab.run(&["kill", &node.to_string()]).ok();
        lab.run(&["start", &node.to_string()]).ok();
        match unlock(lab, node, old).0 {
            401 => Ok(()),
            200 => Err("the old key unlocks".to_owned()),
            other => panic!("{other} for {new}"),
        }
    });
}

#[test]
fn one_manager_goes_on_without_the_others() {
    let lab = Lab::up(3, 1, &["simple_server"]);
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "4", "-p", "80:8000"];
    lab.docker(1, &[&create[..], &["simple_server"]].concat()).ok();
    lab.until_replicas(1, "web", "4/4", SOON);
    await_answer(&lab, 1, 80);
    let before = crate::containers(&lab, 1);
    lab.run(&["kill", "2", "3", "--power"]).ok();
    lab.docker(1, &["service", "scale", "--detach", "web=5"]).fails(1, "The swarm does not have a leader");
    let force = ["swarm", "init", "--force-new-cluster", "--advertise-addr", "192.0.2.1"];
    lab.docker(1, &force).ok();
    let roles = ["node", "ls", "--format", "{{.ManagerStatus}}"];
    lab.until(1, "it is the only manager", SOON, &roles, |shown| {
        shown.lines().filter(|role| !role.is_empty()).eq(["Leader"])
    });
    lab.until_replicas(1, "web", "4/4", SOON);
    let here = crate::containers(&lab, 1);
    assert!(before.iter().all(|container| here.contains(container)), "{before:?} are kept: {here:?}");
    await_answer(&lab, 1, 80);
    await_answer(&lab, 4, 80);

    // One comes back with what it had, finds that it is no manager any more, and is made one again.
    lab.run(&["start", "2"]).ok();
    lab.until(2, "it is a worker", SOON, &["info", "--format", "{{.Swarm.ControlAvailable}}"], |shown| {
        shown == "false"
    });
    let name = lab.docker(2, &["info", "--format", "{{.Name}}"]).ok();
    lab.until(1, "it is promoted", SOON, &["node", "promote", &name], |_| true);
    // The other joins as if it were new.
    lab.run(&["start", "3"]).ok();
    lab.docker(3, &["swarm", "leave", "--force"]).ok();
    lab.docker(3, &["swarm", "join", "--token", &lab.token(1, "manager"), "192.0.2.1:2377"]).ok();
    lab.until(2, "there are three managers", SOON, &roles, |shown| {
        let mut roles: Vec<&str> =
            shown.lines().filter(|role| ["Leader", "Reachable"].contains(role)).collect();
        roles.sort_unstable();
        roles == ["Leader", "Reachable", "Reachable"]
    });
    lab.docker(3, &["service", "scale", "--detach", "web=6"]).ok();
    lab.until_replicas(2, "web", "6/6", SOON);
}
