//! Starts that fail, and what is left of them.

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
