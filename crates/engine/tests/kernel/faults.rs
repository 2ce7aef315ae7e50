//! Starts that fail, and what is left of them.

use std::process::Command;

use skep_engine::ErrorKind;
use skep_engine::options::WaitCondition;
use skep_engine::view::Status;

use crate::house::{House, command, within};

pub async fn programs_that_cannot_run() {
    let house = House::new().await;
    let cases = [
        ("nothing", 127, "exec: \"nothing\": executable file not found in $PATH"),
        ("/no/where", 127, "no such file or directory"),
        ("/etc/noexec", 126, "permission denied"),
    ];
    for (program, code, words) in cases {
        let id = house.engine.create(None, command(&[program])).await.unwrap().id.to_string();
        let output = house.attach(&id).await;
        let refused = house.engine.start(&id).await.unwrap_err();
        assert!(refused.message.contains(words), "{}", refused.message);
        assert!(
            refused.message.starts_with(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: "
            ),
            "{}",
            refused.message
        );
        assert_eq!(refused.kind, ErrorKind::InvalidParameter);
        let state = house.engine.inspect(&id).unwrap().state;
        assert_eq!((state.status, state.exit_code, state.pid), (Status::Created, code, 0), "{program}");
        assert_eq!(state.error, refused.message);
        assert_eq!(within(output).await, "", "the attached client sees the end");
    }
    house.close().await;
}

pub async fn a_full_start_is_undone() {
    let house = House::new().await;
    let mut config = command(&["nothing"]);
    config.host.auto_remove = true;
    let id = house.engine.create(None, config).await.unwrap().id.to_string();
    let gone = house.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    house.engine.start(&id).await.unwrap_err();
    assert_eq!(within(gone).await.code, 127);
    assert_eq!(house.engine.inspect(&id).unwrap_err().kind, ErrorKind::NotFound);
    house.assert_nothing_left();
    assert_eq!(house.engine.volumes(), []);
    house.close().await;
}

pub async fn a_full_disk_is_said_and_survived() {
    let mount = |arguments: &[&str]| {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success())
    };
    let house = House::prepared(|dir| {
        let data = dir.join("data");
        std::fs::create_dir(&data).unwrap();
        mount(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", data.to_str().unwrap()]);
    })
    .await;
    let id = house.start(command(&["sleep", "1000"])).await;
    let fill = house.root().join("data/fill");
    std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&fill).unwrap()).unwrap_err();
    let refused = house.engine.create(Some("more".to_owned()), command(&["true"])).await.unwrap_err();
    assert!(refused.message.ends_with("No space left on device"), "{}", refused.message);
    // Nothing is left of it, not even its name.
    assert_eq!(std::fs::read_dir(house.root().join("data/containers")).unwrap().count(), 1);
    // An end that cannot be written is told by its shim's own record to the next engine.
    house.engine.kill(&id.to_string(), "KILL").await.unwrap();
    let house = house.reopen(async |_| {}).await;
    assert_eq!(house.ended(id).await.code, 137);
    std::fs::remove_file(fill).unwrap();
    house.engine.create(Some("more".to_owned()), command(&["true"])).await.unwrap();
    house.engine.start(&id.to_string()).await.unwrap();
    assert_eq!(house.status(id), Status::Running);
    let data = house.root().join("data");
    let close = house.close_and(|| mount(&["umount", "--lazy", data.to_str().unwrap()]));
    close.await;
}
