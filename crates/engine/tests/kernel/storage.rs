//! Volumes and binds.

use std::path::Path;

use skep_engine::images::Removed;
use skep_engine::options::{RemoveOptions, VolumeCreate};
use skep_types::container::ContainerConfig;
use skep_types::mount::{Mount, MountSource};

use crate::house::{House, script};

fn with_mount(source: MountSource, target: &str, read_only: bool, text: &str) -> ContainerConfig {
    let mut config = script(text);
    config.host.mounts = vec![Mount { target: target.into(), source, read_only }];
    config
}

fn volume(name: &str) -> MountSource {
    MountSource::Volume { name: name.to_owned(), no_copy: false, labels: Default::default() }
}

fn bind(path: &Path, create_missing: bool) -> MountSource {
    MountSource::Bind { path: path.to_owned(), create_missing, propagation: None }
}

pub async fn volumes_receive_the_image_s_content() {
    let house = House::new().await;
    let (code, output) = house
        .run(with_mount(volume("data"), "/seeded", false, "cat /seeded/sub/link; echo new > /seeded/new"))
        .await;
    assert_eq!((code, output.as_str()), (0, "seed\n"));
    let (_, output) =
        house.run(with_mount(volume("data"), "/other", true, "cat /other/new; echo x > /other/x")).await;
    assert!(output.starts_with("new\n") && output.contains("Read-only file system"), "{output}");

    let config = with_mount(volume("data"), "/seeded", false, "true");
    let id = house.engine.create(None, config).await.unwrap().id.to_string();
    let refused = house.engine.remove_volume("data", false).await.unwrap_err();
    assert_eq!(refused.message, format!("remove data: volume is in use - [{id}]"));
    house.engine.remove(&id, RemoveOptions { force: false, volumes: true }).await.unwrap();
    // It has a name, so it stays until it is removed itself.
    house.engine.remove_volume("data", false).await.unwrap();
    assert_eq!(house.engine.inspect_volume("data").unwrap_err().message, "get data: no such volume");
    house.close().await;
}

pub async fn anonymous_volumes_go_with_their_container() {
    let house = House::new().await;
    let id = house.start(script("cat /seeded/file")).await;
    assert_eq!(house.ended(id).await.code, 0);
    assert_eq!(house.logs(id).await, "seed\n");
    let volumes = house.engine.volumes();
    assert_eq!((volumes.len(), volumes[0].anonymous, volumes[0].containers), (1, true, 1));
    house.engine.remove(&id.to_string(), RemoveOptions { force: false, volumes: true }).await.unwrap();
    assert_eq!(house.engine.volumes(), []);
    let made = house.engine.create_volume(VolumeCreate::default()).await.unwrap();
    assert_eq!(made.name.len(), 64);
    house.engine.remove_volume(&made.name, false).await.unwrap();
    house.close().await;
}

pub async fn binds_are_checked_and_made() {
    let house = House::new().await;
    let missing = house.root().join("missing");
    let config = with_mount(bind(&missing, false), "/there", false, "true");
    let refused = house.engine.create(None, config).await.unwrap_err();
    let path = missing.display();
    assert_eq!(
        refused.message,
        format!("invalid mount config for type \"bind\": bind source path does not exist: {path}")
    );
    let (code, _) = house
        .run(with_mount(bind(&missing, true), "/there/deep", false, "echo here > /there/deep/file"))
        .await;
    assert_eq!(code, 0);
    assert_eq!(std::fs::read_to_string(missing.join("file")).unwrap(), "here\n");
    let (_, output) =
        house.run(with_mount(bind(&missing.join("file"), false), "/one", true, "cat /one")).await;
    assert_eq!(output, "here\n");
    house.close().await;
}

pub async fn an_image_removed_amid_a_creation_leaves_no_container_without_one() {
    let house = House::new().await;
    for round in 0..40 {
        let name = format!("victim{round}");
        let import = skep_engine::images::Import {
            reference: Some(name.parse().unwrap()),
            message: name.clone(),
            ..Default::default()
        };
        let image = house.engine.import_image(std::io::Cursor::new(vec![0; 1024]), import).await.unwrap();
        let config = ContainerConfig { image: name.clone(), ..script("true") };
        let (created, removed) =
            tokio::join!(house.engine.create(None, config), house.engine.remove_image(&name, false));
        match created {
            Ok(created) => {
                house.engine.inspect_image(&image.to_string()).await.unwrap();
                // Refused, or overtaken between taking the name away and deleting the image.
                let removed = removed.unwrap_or_default();
                assert!(!removed.iter().any(|what| matches!(what, Removed::Deleted(_))), "{removed:?}");
                house.engine.remove(&created.id.to_string(), RemoveOptions::default()).await.unwrap();
            }
            Err(error) => {
                assert_eq!(error.message, format!("No such image: {name}:latest"));
                removed.unwrap();
            }
        }
    }
    assert_eq!(house.engine.volumes(), []);
    house.close().await;
}
