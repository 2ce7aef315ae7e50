//! The engine's end and its next start, with containers that run.

use std::net::Ipv4Addr;

use skep_engine::ErrorKind;
use skep_engine::options::{EventQuery, WaitCondition};
use skep_engine::view::Status;
use skep_types::Time;

use crate::house::{House, command, eventually, lives, script, within};
use crate::network::{ask, idle, server};
use crate::streams::says;

pub async fn a_running_container_is_adopted() {
    let house = House::new().await;
    let id = house
        .start(script("trap 'echo bye; exit 6' TERM; n=0; while :; do echo $n; n=$((n+1)); sleep 0.01; done"))
        .await;
    says(&house, id, "3").await;
    let before = house.engine.inspect(&id.to_string()).unwrap();
    let house = house.reopen(async |_| {}).await;
    let after = house.engine.inspect(&id.to_string()).unwrap();
    assert_eq!((after.state.clone(), after.networks), (before.state, before.networks));
    // Its address is not given out again.
    let other = house.start(idle()).await;
    let other = house.engine.inspect(&other.to_string()).unwrap();
    assert_ne!(other.networks[0].address, house.engine.inspect(&id.to_string()).unwrap().networks[0].address);
    house.engine.stop(&id.to_string(), None, None).await.unwrap();
    assert_eq!(house.ended(id).await.code, 6);
    let log = house.logs(id).await;
    let lines: Vec<&str> = log.lines().collect();
    let (last, numbers) = lines.split_last().unwrap();
    assert_eq!(*last, "bye");
    assert!(numbers.iter().enumerate().all(|(index, line)| *line == index.to_string()), "no line is lost");
    house.close().await;
}

pub async fn an_end_meanwhile_is_told() {
    let house = House::new().await;
    let wait_for_file = "while [ ! -e /gate/open ]; do sleep 0.01; done; exit 9";
    let gate = house.root().join("gate");
    let with_gate = |auto_remove| {
        let mut config = script(wait_for_file);
        let source = skep_types::mount::MountSource::Bind {
            path: gate.clone(),
            create_missing: true,
            propagation: None,
        };
        config.host.mounts =
            vec![skep_types::mount::Mount { target: "/gate".into(), source, read_only: true }];
        config.host.auto_remove = auto_remove;
        config
    };
    let (kept, gone) = (house.start(with_gate(false)).await, house.start(with_gate(true)).await);
    let pids: Vec<u32> =
        [kept, gone].map(|id| house.engine.inspect(&id.to_string()).unwrap().state.pid).to_vec();
    let house = house
        .reopen(async |root| {
            std::fs::write(root.join("gate/open"), "").unwrap();
            eventually(|| !pids.iter().any(|pid| lives(*pid))).await;
        })
        .await;
    let view = house.engine.inspect(&kept.to_string()).unwrap();
    assert_eq!((view.state.status, view.state.exit_code), (Status::Exited, 9));
    if let Ok(removed) = house.engine.wait(&gone.to_string(), WaitCondition::Removed).await {
        assert_eq!(within(removed).await.code, 9);
    }
    assert_eq!(house.engine.inspect(&gone.to_string()).unwrap_err().kind, ErrorKind::NotFound);
    let until = Some(std::time::SystemTime::now().into());
    let mut events = house.engine.events(EventQuery { since: Some(Time(0)), until });
    let mut died = Vec::new();
    while let Some(event) = events.next().await {
        if event.action == "die" {
            assert_eq!(event.attributes["exitCode"], "9");
            died.push(event.id);
        }
    }
    assert_eq!(died.len(), 2);
    // Told once only.
    let house = house.reopen(async |_| {}).await;
    let until = Some(std::time::SystemTime::now().into());
    assert_eq!(house.engine.events(EventQuery { since: Some(Time(0)), until }).next().await, None);
    assert_eq!(house.status(kept), Status::Exited);
    house.close().await;
}

pub async fn published_ports_answer_before_and_after() {
    let house = House::new().await;
    let id = house.start(server(Some(0))).await;
    let (_, port) = house.engine.inspect(&id.to_string()).unwrap().ports[0].host.unwrap();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(ask(address).await, id.short());
    let house = house.reopen(async |_| assert_eq!(ask(address).await, id.short())).await;
    assert_eq!(ask(address).await, id.short());
    let taken = house.engine.create(None, server(Some(port))).await.unwrap().id.to_string();
    assert!(house.engine.start(&taken).await.is_err(), "the port is still its own");
    house.close().await;
}

pub async fn damage_to_one_container_is_set_aside() {
    let house = House::new().await;
    let broken = house.engine.create(Some("broken".to_owned()), idle()).await.unwrap().id;
    let whole = house.engine.create(Some("whole".to_owned()), idle()).await.unwrap().id;
    let half = "ab".repeat(32);
    let house = house
        .reopen(async |root| {
            let containers = root.join("data/containers");
            std::fs::write(containers.join(format!("{broken}/container.json")), "{\"form").unwrap();
            std::fs::create_dir_all(containers.join(format!("{half}/upper"))).unwrap();
            std::fs::create_dir_all(containers.join(format!(".removed-{half}/upper"))).unwrap();
        })
        .await;
    assert_eq!(house.engine.inspect("broken").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(house.engine.inspect("whole").unwrap().id, whole);
    let containers = house.root().join("data/containers");
    let aside = containers.join(format!(".damaged-{broken}"));
    assert!(aside.join("container.json").exists());
    assert!(!containers.join(&half).exists() && !containers.join(format!(".removed-{half}")).exists());
    std::fs::remove_dir_all(aside).unwrap();
    house.close().await;
}

pub async fn a_shim_that_cannot_be_asked_is_not_taken_for_dead() {
    let house = House::new().await;
    let id = house.start(command(&["sleep", "1000"])).await;
    let house = house
        .reopen(async |root| {
            let folder = root.join("run/containers").join(id.to_string());
            std::fs::rename(folder.join("shim.sock"), folder.join("aside")).unwrap();
            // A loop: an error that says nothing about the shim.
            std::os::unix::fs::symlink("shim.sock", folder.join("shim.sock")).unwrap();
        })
        .await;
    assert_eq!(house.status(id), Status::Running);
    let folder = house.root().join("run/containers").join(id.to_string());
    std::fs::rename(folder.join("aside"), folder.join("shim.sock")).unwrap();
    house.engine.kill(&id.to_string(), "KILL").await.unwrap();
    assert_eq!(house.ended(id).await.code, 137);
    house.close().await;
}
