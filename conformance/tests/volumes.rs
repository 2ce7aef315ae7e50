//! Bind mounts and named volumes.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::os::unix::fs::MetadataExt;

use skep_conformance::Host;
use skep_conformance::archive::{Image, Layer, busybox_layer};

#[test]
fn a_bind_mount_is_the_hosts_folder() {
    let host = Host::with_busybox();
    let folder = host.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("given"), "from the host\n").unwrap();
    let bind = format!("{}:/data", folder.display());
    assert_eq!(
        host.run(&["--volume", &bind], "cat /data/given; echo back > /data/made").ok(),
        "from the host"
    );
    assert_eq!(std::fs::read_to_string(folder.join("made")).unwrap(), "back\n");
    host.run(&["--volume", &format!("{bind}:ro")], "echo no > /data/given").fails(1, "Read-only file system");
    let file = format!("{}:/etc/given:ro", folder.join("given").display());
    assert_eq!(host.run(&["--volume", &file], "cat /etc/given").ok(), "from the host");
}

#[test]
fn a_bind_mounts_missing_source_is_made_by_volume_and_refused_by_mount() {
    let host = Host::with_busybox();
    let missing = host.folder().join("not/there");
    let mount = format!("type=bind,source={},target=/data", missing.display());
    host.run(&["--mount", &mount], "true")
        .fails(125, &format!("bind source path does not exist: {}", missing.display()));
    assert!(!missing.exists());
    host.run(&["--volume", &format!("{}:/data", missing.display())], "touch /data/x").ok();
    assert!(missing.join("x").exists());
    host.run(&["--volume", "relative/path:/data"], "true")
        .fails(125, "includes invalid characters for a local volume name");
    host.run(&["--volume", "nest:relative"], "true")
        .fails(125, "invalid mount path: 'relative' mount path must be absolute");
}

#[test]
fn a_named_volume_outlives_its_containers() {
    let host = Host::with_busybox();
    host.run(&["--volume", "nest:/data"], "echo kept > /data/file").ok();
    assert_eq!(host.run(&["--volume", "nest:/other"], "cat /other/file").ok(), "kept");
    assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), "nest");
    let mountpoint = host.inspect("nest", "{{.Mountpoint}}");
    assert_eq!(std::fs::read_to_string(format!("{mountpoint}/file")).unwrap(), "kept\n");
    let id = host.docker(&["create", "--volume", "nest:/data", "busybox"]).ok();
    host.docker(&["volume", "rm", "nest"]).fails(1, &format!("volume is in use - [{id}]"));
    host.docker(&["rm", "--volumes", &id]).ok();
    assert_eq!(
        host.docker(&["volume", "ls", "--quiet"]).ok(),
        "nest",
        "rm --volumes removes only nameless ones"
    );
    host.docker(&["volume", "rm", "nest"]).ok();
    assert!(!std::path::Path::new(&mountpoint).exists());
    let gone = host.api("DELETE", "/volumes/nest", "").unwrap();
    assert_eq!((gone.status, gone.body.trim()), (404, r#"{"message":"get nest: no such volume"}"#));
}

#[test]
fn an_empty_volume_is_filled_with_what_the_image_has_there() {
    let host = Host::new();
    let layer = Layer::new()
        .folder("seed/", 0o750)
        .folder("seed/deep/", 0o755)
        .file_of("seed/deep/file", 0o640, (1234, 5678), b"from the image")
        .symlink("seed/link", "deep/file");
    let image = Image {
        tag: Some("seeded:1"),
        layers: vec![busybox_layer(), layer.finish()],
        config: serde_json::json!({"Env": ["PATH=/bin"]}),
    };
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
    let run = |mount: &str, script: &str| {
        host.docker(&["run", "--rm", "--volume", mount, "seeded:1", "sh", "-c", script])
    };
    let look = "stat -c '%a %u %g %F' /seed /seed/deep/file; readlink /seed/link; cat /seed/link";
    let wanted = "750 0 0 directory\n640 1234 5678 regular file\ndeep/file\nfrom the image";
    assert_eq!(run("fresh:/seed", look).ok(), wanted);
    let file = format!("{}/deep/file", host.inspect("fresh", "{{.Mountpoint}}"));
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 1234);
    run("fresh:/seed", "echo changed > /seed/deep/file").ok();
    assert_eq!(run("fresh:/seed", "cat /seed/link").ok(), "changed", "a volume with content is left alone");
    assert_eq!(run("bare:/seed:nocopy", "ls -A /seed").ok(), "", "nocopy copies nothing");
    let folder = host.folder().join("bound");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(
        run(&format!("{}:/seed", folder.display()), "ls -A /seed").ok(),
        "",
        "bind mounts are never filled"
    );
}

#[test]
fn nameless_volumes_go_with_their_container() {
    let host = Host::with_busybox();
    host.run(&["--volume", "/data"], "touch /data/x").ok();
    assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), "", "--rm takes them along");
    let image = Image {
        tag: Some("voluminous:1"),
        layers: vec![busybox_layer()],
        config: serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["true"], "Volumes": {"/from/image": {}}}),
    };
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
    let id = host.docker(&["create", "voluminous:1"]).ok();
    let name = host.inspect(&id, "{{(index .Mounts 0).Name}}");
    assert_eq!(name.len(), 64);
    assert_eq!(host.inspect(&id, "{{(index .Mounts 0).Destination}}"), "/from/image");
    assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), name);
    host.docker(&["rm", "--volumes", &id]).ok();
    assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), "");
}

#[test]
fn mount_options_of_the_long_form() {
    let host = Host::with_busybox();
    let printed = host
        .run(
            &["--mount", "type=tmpfs,target=/scratch,tmpfs-size=2m,tmpfs-mode=1770"],
            "df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch",
        )
        .ok();
    assert_eq!(printed, "2048\n1770");
    host.run(&["--mount", "type=volume,source=nest,target=/data,readonly"], "touch /data/x")
        .fails(1, "Read-only file system");
    host.run(&["--mount", "type=volume,source=nest,target=/data"], "touch /data/x").ok();
    assert_eq!(host.run(&["--mount", "type=volume,source=nest,target=/data"], "ls /data").ok(), "x");
    host.run(&["--volume", "one:/data", "--volume", "two:/data"], "true")
        .fails(125, "Duplicate mount point: /data");
}

#[test]
fn a_link_in_the_image_cannot_lead_a_mount_outside() {
    let host = Host::new();
    let outside = host.folder().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let layer = Layer::new().symlink("exit", outside.to_str().unwrap()).symlink("up", "../../../../../../..");
    let image = Image {
        tag: Some("crafty:1"),
        layers: vec![busybox_layer(), layer.finish()],
        config: serde_json::json!({"Env": ["PATH=/bin"]}),
    };
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
    for target in ["/exit/made", "/up/escaped-by-a-link"] {
        let mount = format!("nest:{target}");
        let output = host.docker(&[
            "run",
            "--rm",
            "--volume",
            &mount,
            "crafty:1",
            "sh",
            "-c",
            &format!("touch {target}/x; ls {target}"),
        ]);
        assert!(output.code == 125 || output.stdout == "x\n", "{output}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "the mount point was made outside");
    assert!(!std::path::Path::new("/escaped-by-a-link").exists());
}

#[test]
fn volume_ls_create_labels_and_prune() {
    let host = Host::with_busybox();
    assert_eq!(host.docker(&["volume", "create", "--label", "kind=comb", "honey"]).ok(), "honey");
    let made = host.docker(&["volume", "create"]).ok();
    assert_eq!(made.len(), 64);
    assert_eq!(host.docker(&["volume", "ls", "--quiet", "--filter", "label=kind=comb"]).ok(), "honey");
    assert_eq!(host.docker(&["volume", "ls", "--quiet", "--filter", "name=hon"]).ok(), "honey");
    assert_eq!(host.inspect("honey", "{{.Labels.kind}} {{.Scope}}"), "comb local");
    host.docker(&["volume", "create", "honey"]).ok();
    host.docker(&["volume", "create", "-d", "nfs-ish", "x"]).fails(1, "nfs-ish");
    host.docker(&["volume", "create", "../up"]).fails(1, "invalid");
    assert!(!host.data_root().join("up").exists());
}
