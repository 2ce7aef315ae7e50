//! Images: load, import, ls, inspect, tag, rmi, and the layers as a container sees them.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use serde_json::{Value, json};
use skep_conformance::archive::{Image, Layer, busybox_layer, digest};
use skep_conformance::{Host, finish};
use tar::EntryType;

fn config() -> Value {
    json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]})
}

/// An image of busybox and more layers on top of it.
fn image<'a>(tag: Option<&'a str>, layers: Vec<Layer>) -> Image<'a> {
    let layers = layers.into_iter().map(Layer::finish);
    Image { tag, layers: [busybox_layer()].into_iter().chain(layers).collect(), config: config() }
}

fn load(host: &Host, archive: &[u8]) -> String {
    host.docker_with_input(&["load"], archive).ok()
}

fn run(host: &Host, image: &str, script: &str) -> String {
    host.docker(&["run", "--rm", image, "sh", "-c", script]).ok()
}

#[test]
fn docker_and_oci_layouts_are_loaded() {
    let host = Host::new();
    let made = image(Some("hive:1"), vec![Layer::new().file("mark", 0o644, b"docker layout")]);
    assert_eq!(load(&host, &made.docker_archive()), "Loaded image: hive:1");
    assert_eq!(host.inspect("hive:1", "{{.Id}}"), made.id());
    assert_eq!(run(&host, "hive:1", "cat /mark"), "docker layout");
    let made = image(Some("comb:2"), vec![Layer::new().file("mark", 0o644, b"oci layout")]);
    assert_eq!(load(&host, &made.oci_archive()), "Loaded image: comb:2");
    assert_eq!(run(&host, "comb:2", "cat /mark"), "oci layout");
    let made = image(None, vec![Layer::new().file("mark", 0o644, b"nameless")]);
    assert_eq!(load(&host, &made.docker_archive()), format!("Loaded image ID: {}", made.id()));
    assert_eq!(run(&host, &made.id(), "cat /mark"), "nameless");
    assert_eq!(run(&host, &made.id()["sha256:".len()..][..12], "cat /mark"), "nameless");
    // Again: nothing changes.
    let again = image(Some("hive:1"), vec![Layer::new().file("mark", 0o644, b"docker layout")]);
    assert_eq!(load(&host, &again.docker_archive()), "Loaded image: hive:1");
    assert_eq!(host.docker(&["images", "--quiet"]).ok().lines().count(), 3);
}

#[test]
fn compressed_archives_are_loaded() {
    let host = Host::new();
    let made = image(Some("hive:gz"), vec![Layer::new().file("mark", 0o644, b"gzip")]);
    let plain = host.folder().join("plain.tar");
    std::fs::write(&plain, made.docker_archive()).unwrap();
    let mut command = std::process::Command::new("gzip");
    command.arg("--keep").arg(&plain);
    finish(command, "gzip", b"").ok();
    let compressed = host.folder().join("plain.tar.gz");
    assert_eq!(host.docker(&["load", "--input", compressed.to_str().unwrap()]).ok(), "Loaded image: hive:gz");
    assert_eq!(run(&host, "hive:gz", "cat /mark"), "gzip");
}

#[test]
fn layers_cover_and_remove_what_is_below() {
    let host = Host::new();
    let lower = Layer::new()
        .folder("data/", 0o755)
        .file("data/kept", 0o644, b"lower")
        .file("data/changed", 0o644, b"lower")
        .file("data/removed", 0o644, b"lower")
        .folder("emptied/", 0o755)
        .file("emptied/old", 0o644, b"lower")
        .folder("gone/", 0o755)
        .file("gone/deep", 0o644, b"lower")
        .file("becomes-folder", 0o644, b"lower")
        .folder("becomes-file/", 0o755)
        .file("becomes-file/inner", 0o644, b"lower");
    let upper = Layer::new()
        .file("data/changed", 0o600, b"upper")
        .file("data/.wh.removed", 0o644, b"")
        .file("emptied/.wh..wh..opq", 0o644, b"")
        .file("emptied/new", 0o644, b"upper")
        .file(".wh.gone", 0o644, b"")
        .folder("becomes-folder/", 0o755)
        .file("becomes-folder/inner", 0o644, b"upper")
        .file("becomes-file", 0o644, b"upper");
    let top = Layer::new().file("data/removed", 0o644, b"back again");
    load(&host, &image(Some("stacked:1"), vec![lower, upper]).docker_archive());
    let script = "cd /data; for file in *; do echo $file $(cat $file); done; cd /; ls -A /emptied; ls -d /gone 2>&1; \
                  cat /becomes-folder/inner /becomes-file; ls -A / | grep -F .wh.";
    let seen = run(&host, "stacked:1", &format!("{script}; true"));
    let wanted = "changed upper\nkept lower\nnew\nls: /gone: No such file or directory\nupperupper";
    assert_eq!(seen, wanted);
    let lower = Layer::new().folder("data/", 0o755).file("data/removed", 0o644, b"lower");
    let middle = Layer::new().file("data/.wh.removed", 0o644, b"");
    load(&host, &image(Some("stacked:2"), vec![lower, middle, top]).docker_archive());
    assert_eq!(run(&host, "stacked:2", "cat /data/removed"), "back again");
}

#[test]
fn owners_modes_links_and_attributes_are_kept() {
    let host = Host::new();
    // A PAX record begins with its own length.
    let attribute = "29 SCHILY.xattr.user.bee=yes\n";
    assert_eq!(attribute.len(), 29);
    let layer = Layer::new()
        .file_of("owned", 0o640, (4321, 8765), b"owned")
        .file("setuid", 0o4755, b"")
        .folder("sticky/", 0o1777)
        .file("first", 0o644, b"one content")
        .hard_link("second", "first")
        .symlink("third", "first")
        .entry(EntryType::Fifo, "pipe", "", 0o600, (0, 0), b"")
        .entry(EntryType::XHeader, "attributes", "", 0o644, (0, 0), attribute.as_bytes())
        .file("marked", 0o644, b"");
    load(&host, &image(Some("kept:1"), vec![layer]).docker_archive());
    let look = "stat -c '%n %a %u %g %F' owned setuid sticky pipe; stat -c '%h' first; cat second third; readlink third; \
                [ first -ef second ] && echo same; stat -c %y owned | cut -c1-10";
    let wanted = "owned 640 4321 8765 regular file\nsetuid 4755 0 0 regular empty file\nsticky 1777 0 0 directory\n\
                  pipe 600 0 0 fifo\n2\none contentone contentfirst\nsame\n2026-01-01";
    assert_eq!(run(&host, "kept:1", look), wanted);
    host.docker(&["run", "--detach", "--name", "held", "kept:1", "sleep", "1000"]).ok();
    let path = format!("/proc/{}/root/marked", host.inspect("held", "{{.State.Pid}}"));
    let mut value = [0; 16];
    let count = rustix::fs::getxattr(&path, "user.bee", &mut value).unwrap();
    assert_eq!(&value[..count], b"yes");
}

#[test]
fn twenty_layers_are_one_file_system() {
    let host = Host::new();
    let layers = (0..20).map(|number| {
        let content = number.to_string();
        Layer::new().file(&format!("file{number}"), 0o644, content.as_bytes()).file(
            "last",
            0o644,
            content.as_bytes(),
        )
    });
    load(&host, &image(Some("deep:1"), layers.collect()).docker_archive());
    let seen = run(
        &host,
        "deep:1",
        "cat /last; echo; for i in $(seq 0 19); do cat /file$i; echo; done | sort -n | uniq | wc -l",
    );
    assert_eq!(seen, "19\n20");
}

#[test]
fn ls_shows_and_filters() {
    let host = Host::with_busybox();
    let mut labelled = image(Some("hive:1"), vec![Layer::new().file("a", 0o644, b"1")]);
    labelled.config["Labels"] = json!({"kind": "box"});
    load(&host, &labelled.docker_archive());
    host.docker(&["tag", "hive:1", "garden.example:5000/hive:new"]).ok();
    let list = |arguments: &[&str]| {
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let printed = host.docker(&[&format[..], arguments].concat()).ok();
        let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(list(&[]), ["busybox:latest", "garden.example:5000/hive:new", "hive:1"]);
    assert_eq!(list(&["hive"]), ["hive:1"]);
    assert_eq!(list(&["hive:2"]), [""; 0]);
    assert_eq!(list(&["--filter", "reference=*/hive"]), ["garden.example:5000/hive:new"]);
    assert_eq!(list(&["--filter", "label=kind=box"]).len(), 2);
    assert_eq!(list(&["--filter", "dangling=true"]), [""; 0]);
    let header = host
        .docker(&["images"])
        .ok()
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(header, "REPOSITORY TAG IMAGE ID CREATED SIZE");
    let short = host.docker(&["images", "--format", "{{.ID}}", "hive"]).ok();
    assert!(labelled.id().contains(&short), "{short}");
    let size = host.docker(&["images", "--format", "{{.Size}}", "busybox"]).ok();
    assert!(size.ends_with("MB") && !size.starts_with('0'), "{size}");
    // A new image takes the name; the old one loses it.
    let next = image(Some("hive:1"), vec![Layer::new().file("a", 0o644, b"2")]);
    let printed = load(&host, &next.docker_archive());
    assert!(printed.ends_with("Loaded image: hive:1"), "{printed}");
    host.docker(&["rmi", "garden.example:5000/hive:new"]).ok();
    assert_eq!(host.inspect("hive:1", "{{.Id}}"), next.id());
}

#[test]
fn inspect_and_history_tell_the_whole_configuration() {
    let host = Host::new();
    let mut made = image(Some("hive:1"), vec![Layer::new().file("a", 0o644, b"1")]);
    made.config = json!({
        "Env": ["PATH=/bin", "A=1"], "Cmd": ["serve"], "Entrypoint": ["/bin/bee"], "WorkingDir": "/hive", "User": "nobody",
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/honey": {}}, "Labels": {"kind": "box"}, "StopSignal": "SIGUSR1",
    });
    load(&host, &made.docker_archive());
    let seen = host.inspect_json("hive:1");
    assert_eq!(seen["Id"], made.id());
    assert_eq!(seen["RepoTags"], json!(["hive:1"]));
    assert_eq!((&seen["Os"], &seen["Created"]), (&json!("linux"), &json!("2026-01-01T00:00:00Z")));
    for field in
        ["Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels", "StopSignal"]
    {
        assert_eq!(seen["Config"][field], made.config[field], "{field}");
    }
    let diff_ids: Vec<String> = made.layers.iter().map(|layer| digest(layer)).collect();
    assert_eq!(seen["RootFS"], json!({"Type": "layers", "Layers": diff_ids}));
    assert!(seen["Size"].as_u64().unwrap() > 1_000_000);
    let history = host.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "hive:1"]).ok();
    assert_eq!(history.lines().collect::<Vec<_>>(), [diff_ids[1].as_str(), diff_ids[0].as_str()]);
}

#[test]
fn tags_are_names_and_are_checked() {
    let host = Host::with_busybox();
    let id = host.inspect("busybox", "{{.Id}}");
    host.docker(&["tag", "busybox", "hive"]).ok();
    host.docker(&["tag", &id, "garden.example/hive:v1"]).ok();
    host.docker(&["tag", &id["sha256:".len()..][..10], "docker.io/library/comb:x"]).ok();
    let mut tags: Vec<String> = serde_json::from_str(&host.inspect("busybox", "{{json .RepoTags}}")).unwrap();
    tags.sort_unstable();
    assert_eq!(tags, ["busybox:latest", "comb:x", "garden.example/hive:v1", "hive:latest"]);
    host.docker(&["tag", "absent", "x"]).fails(1, "No such image: absent:latest");
    let answer = host.api("POST", "/images/busybox/tag?repo=UPPER&tag=x", "").unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("invalid reference format"), "{answer:?}");
    assert_eq!(host.run(&[], "true").code, 0);
    assert_eq!(run(&host, "docker.io/library/busybox:latest", "echo long"), "long");
}

#[test]
fn rmi_untags_then_deletes() {
    let host = Host::with_busybox();
    let id = host.inspect("busybox", "{{.Id}}");
    host.docker(&["tag", "busybox", "hive:1"]).ok();
    assert_eq!(host.docker(&["rmi", "hive:1"]).ok(), "Untagged: hive:1");
    let printed = host.docker(&["rmi", "busybox"]).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["Untagged: busybox:latest".to_owned(), format!("Deleted: {id}")]);
    assert!(lines[2].starts_with("Deleted: sha256:"), "its layer: {printed}");
    assert_eq!(host.docker(&["images", "--quiet", "--all"]).ok(), "");
    host.docker(&["rmi", "busybox"]).fails(1, "No such image: busybox");
    let gone = host.api("DELETE", "/images/busybox", "").unwrap();
    assert_eq!((gone.status, gone.body.trim()), (404, r#"{"message":"No such image: busybox:latest"}"#));
    host.load_image("busybox");
    assert_eq!(host.run(&[], "echo again").ok(), "again");
}

#[test]
fn rmi_refuses_what_is_used() {
    let host = Host::with_busybox();
    let id = host.inspect("busybox", "{{.Id}}");
    let short = &id["sha256:".len()..][..12];
    let container = host.docker(&["create", "--name", "user", "busybox", "sleep", "1000"]).ok();
    let message = format!(
        "conflict: unable to remove repository reference \"busybox\" (must force) - container {} is using its referenced image {short}",
        &container[..12]
    );
    host.docker(&["rmi", "busybox"]).fails(1, &message);
    host.docker(&["tag", "busybox", "second:1"]).ok();
    host.docker(&["rmi", &id]).fails(1, "(must be forced) - image is referenced in multiple repositories");
    assert_eq!(host.docker(&["rmi", "second:1"]).ok(), "Untagged: second:1", "another name is no conflict");
    host.docker(&["start", "user"]).ok();
    let message = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {}",
        &container[..12]
    );
    host.docker(&["rmi", "--force", &id]).fails(1, &message);
    host.docker(&["kill", "user"]).ok();
    host.docker(&["wait", "user"]).ok();
    host.docker(&["rm", "user"]).ok();
    host.docker(&["rmi", "busybox"]).ok();
}

#[test]
fn images_that_share_layers_do_not_take_them_from_each_other() {
    let host = Host::with_busybox();
    load(&host, &image(Some("one:1"), vec![Layer::new().file("mark", 0o644, b"one")]).docker_archive());
    load(&host, &image(Some("two:1"), vec![Layer::new().file("mark", 0o644, b"two")]).oci_archive());
    host.docker(&["rmi", "one:1"]).ok();
    host.docker(&["rmi", "busybox"]).ok();
    assert_eq!(run(&host, "two:1", "cat /mark"), "two");
    host.docker(&["rmi", "two:1"]).ok();
    assert_eq!(host.docker(&["images", "--quiet", "--all"]).ok(), "");
}

#[test]
fn a_root_file_system_is_imported() {
    let host = Host::new();
    let file = host.folder().join("root.tar");
    std::fs::write(&file, busybox_layer()).unwrap();
    let options = [
        "import",
        "--change",
        "CMD [\"echo\", \"from import\"]",
        "--change",
        "ENV PATH=/bin A=1",
        "--message",
        "brought in",
    ];
    let printed = host.docker(&[&options[..], &[file.to_str().unwrap(), "brought:1"]].concat()).ok();
    assert!(printed.starts_with("sha256:"), "{printed}");
    assert_eq!(host.docker(&["run", "--rm", "brought:1"]).ok(), "from import");
    assert_eq!(host.inspect("brought:1", "{{.Id}} {{.Comment}}"), format!("{printed} brought in"));
    let printed = host.docker_with_input(&["import", "-"], &busybox_layer()).ok();
    assert_eq!(host.docker(&["run", "--rm", &printed, "/bin/echo", "nameless"]).ok(), "nameless");
    host.docker_with_input(&["import", "--change", "HONEY sweet", "-"], &busybox_layer()).fails(1, "HONEY");
}

#[test]
fn images_survive_the_daemons_death() {
    let mut host = Host::with_busybox();
    load(&host, &image(Some("hive:1"), vec![Layer::new().file("mark", 0o644, b"kept")]).docker_archive());
    // Killed amid a load: that one is there whole or not at all.
    let big = vec![7; 24 << 20];
    let half = image(Some("half:1"), vec![Layer::new().file("big", 0o644, &big)]).docker_archive();
    let mut loading = host.session(&["load"]);
    let (most, _) = half.split_at(half.len() - (1 << 20));
    loading.send_bytes(most);
    host.kill_daemon();
    loading.finish();
    host.start_daemon();
    assert_eq!(run(&host, "hive:1", "cat /mark"), "kept");
    assert_eq!(host.docker(&["images", "--format", "{{.Repository}}"]).ok().lines().count(), 2);
    assert_eq!(load(&host, &half), "Loaded image: half:1");
    assert_eq!(run(&host, "half:1", "wc -c < /big"), big.len().to_string());
}
