//! What images take of the disk, and how it is had back: `system df`, the prunes, and a daemon that dies amid all that.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::archive::{Image, Layer, busybox_layer};
use skep_conformance::registry::Registry;
use skep_conformance::{Host, Output, eventually, finish};

const SOON: Duration = Duration::from_secs(20);

fn image<'a>(tag: Option<&'a str>, layers: &[File<'_>], labels: Value) -> Image<'a> {
    let layers =
        layers.iter().map(|(name, size)| Layer::new().file(name, 0o644, &vec![b'x'; *size]).finish());
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": labels});
    Image { tag, layers: [busybox_layer()].into_iter().chain(layers).collect(), config }
}

/// A file's name and size.
type File<'a> = (&'a str, usize);

fn load(host: &Host, image: &Image<'_>) {
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
}

/// A machine with Docker's daemon, and one with ours.
fn pair() -> [Host; 2] {
    std::thread::scope(|scope| {
        let docker = scope.spawn(Host::of_dockerd);
        let skep = Host::new();
        [docker.join().unwrap(), skep]
    })
}

/// What of `GET /system/df` does not depend on the moment.
fn usage(host: &Host) -> Value {
    let answer = host.api_get("/v1.41/system/df").unwrap();
    let found: Value = serde_json::from_str(&answer.body).unwrap();
    let row = |image: &Value| {
        let keys = ["Id", "RepoTags", "SharedSize", "Size", "Containers", "ParentId"];
        keys.map(|key| image[key].clone()).to_vec()
    };
    let mut images: Vec<_> = found["Images"].as_array().unwrap().iter().map(row).collect();
    images.sort_by_key(|row| row[0].to_string());
    json!({"LayersSize": found["LayersSize"], "Images": images})
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_images_take_is_told_as_by_docker() {
    let hosts = pair();
    let shown = hosts.each_ref().map(|host| {
        load(host, &image(Some("plain:1"), &[], json!({})));
        load(host, &image(Some("small:1"), &[("a", 70_000)], json!({})));
        load(host, &image(Some("large:1"), &[("a", 70_000), ("b", 1_300_000)], json!({})));
        load(host, &image(Some("alone:1"), &[("c", 5_000)], json!({})));
        host.docker(&["tag", "alone:1", "second:name"]).ok();
        load(host, &image(None, &[("d", 9_000)], json!({})));
        host.docker(&["create", "--name", "used", "large:1"]).ok();
        host.docker(&["create", "--name", "used-too", "large:1"]).ok();
        host.docker(&["volume", "create", "box"]).ok();
        let text = host.docker(&["system", "df"]).ok();
        // The last row is of BuildKit; the one of containers has Docker's own files.
        let rows: Vec<String> =
            text.lines().filter(|row| !row.starts_with("Containers")).map(str::to_owned).collect();
        (usage(host), rows)
    });
    let [docker, skep] = shown;
    assert_eq!(docker, skep);
    assert_eq!(docker.1.len(), 4);
    let verbose = hosts.each_ref().map(|host| {
        let text = host.docker(&["system", "df", "--verbose"]).ok();
        let images = text.split("\n\n").nth(1).unwrap();
        let row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Without when it was created, which is the same but for the second that passed.
            [&words[..3], &words[words.len() - 4..]].concat().join(" ")
        };
        sorted(images).into_iter().filter(|line| line.contains("B  ")).map(row).collect::<Vec<_>>()
    });
    assert_eq!(verbose[0], verbose[1]);
    assert_eq!(verbose[0].len(), 5);
}

#[test]
fn pruning_takes_what_docker_takes() {
    let hosts = pair();
    let seen = hosts.each_ref().map(|host| {
        load(host, &image(Some("used:1"), &[("a", 10)], json!({})));
        load(host, &image(Some("running:1"), &[("r", 10)], json!({})));
        load(host, &image(Some("kept:1"), &[("a", 10), ("b", 20)], json!({"keep": "yes"})));
        load(host, &image(Some("idle:1"), &[("a", 10), ("c", 40)], json!({})));
        load(host, &image(None, &[("d", 80)], json!({})));
        load(host, &image(None, &[("d", 80), ("e", 160)], json!({"keep": "no"})));
        host.docker(&["create", "--name", "stopped", "used:1"]).ok();
        host.docker(&["run", "--detach", "--name", "running", "running:1", "sleep", "1000"]).ok();
        let prune = |flags: &[&str]| {
            let text = host.docker(&[&["image", "prune", "--force"], flags].concat()).ok();
            sorted(&text).join("\n")
        };
        [
            prune(&["--filter", "label=keep=yes"]),
            prune(&["--filter", "until=2000-01-01T00:00:00"]),
            prune(&["--filter", "label!=keep"]),
            prune(&[]),
            prune(&["--all", "--filter", "label!=keep=yes", "--filter", "until=1h"]),
            prune(&["--all"]),
            host.docker(&["image", "prune", "--force", "--filter", "color=red"]).fails(1, "").stderr,
        ]
    });
    let [docker, skep] = seen;
    assert_eq!(docker[..6], skep[..6]);
    assert!(skep[6].contains("invalid filter 'color'"), "{}", skep[6]);
    let host = &hosts[1];
    assert_eq!(sorted(&host.docker(&["images", "--format", "{{.Repository}}"]).ok()), ["running", "used"]);
    host.docker(&["start", "--attach", "stopped"]).ok();
    Store::of(host).check();
}

#[test]
fn what_others_were_made_from_and_what_has_users_keeps_all_its_names() {
    let host = Host::new();
    load(&host, &image(Some("base:1"), &[], json!({})));
    let folder = build_folder(&host, "FROM base:1\nRUN echo one >/one\nRUN echo two >/two\n");
    build(&host, &folder, &["--tag", "made:1"]).ok();
    host.docker(&["tag", "made:1", "made:2"]).ok();
    host.docker(&["create", "--name", "user", "made:1"]).ok();
    let pruned = host.docker(&["image", "prune", "--all", "--force"]).ok();
    assert_eq!(pruned, "Total reclaimed space: 0B");
    assert_eq!(host.docker(&["images", "--quiet"]).ok().lines().count(), 3);
    host.docker(&["rm", "user"]).ok();
    let pruned = host.docker(&["image", "prune", "--all", "--force"]).ok();
    assert!(pruned.contains("untagged: base:1") && pruned.contains("untagged: made:2"), "{pruned}");
    assert_eq!(host.docker(&["images", "--all", "--quiet"]).ok(), "");
    Store::of(&host).check();
}

#[test]
fn a_build_under_way_loses_nothing() {
    let host = Host::new();
    load(&host, &image(Some("base:1"), &[], json!({})));
    let text = "FROM base:1\nRUN echo one >/one\nRUN echo here; while [ ! -e /go ]; do sleep 0.05; done\nRUN cat /one\n";
    let folder = build_folder(&host, text);
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--tag", "made"]).arg(&folder);
    let mut building = skep_conformance::Session::piped(command);
    building.end_input();
    building.expect("here");
    let pruned = host.docker(&["system", "prune", "--all", "--force"]).ok();
    assert!(pruned.ends_with("Total reclaimed space: 0B"), "{pruned}");
    let container = host.docker(&["ps", "--quiet"]).ok();
    host.docker(&["exec", &container, "touch", "/go"]).ok();
    building.finish().ok();
    assert_eq!(host.docker(&["run", "--rm", "made", "cat", "/one"]).ok(), "one");
    Store::of(&host).check();
}

#[test]
fn system_prune_takes_all_that_nobody_uses() {
    let host = Host::new();
    load(&host, &image(Some("used:1"), &[("a", 10)], json!({})));
    load(&host, &image(Some("idle:1"), &[("b", 1000)], json!({})));
    host.docker(&[
        "run",
        "--detach",
        "--name",
        "running",
        "--volume",
        "busy:/data",
        "used:1",
        "sleep",
        "1000",
    ])
    .ok();
    host.docker(&["run", "--name", "over", "idle:1", "sh", "-c", "echo 12345 >/file"]).ok();
    host.docker(&["create", "--name", "spared", "--label", "keep", "used:1"]).ok();
    host.docker(&["volume", "create", "named"]).ok();
    let nameless = host.docker(&["volume", "create"]).ok();
    host.docker(&["network", "create", "empty"]).ok();
    let over = host.inspect("over", "{{.Id}}");
    let filtered = host.docker(&["system", "prune", "--force", "--filter", "label=other"]).ok();
    assert_eq!(filtered, "Total reclaimed space: 0B");
    let pruned = host.docker(&["system", "prune", "--force", "--volumes", "--filter", "label!=keep"]).ok();
    for gone in [&over, &nameless, "empty"] {
        assert!(pruned.contains(gone), "{gone}: {pruned}");
    }
    assert!(!pruned.contains("busy") && !pruned.contains("named"), "{pruned}");
    assert!(pruned.ends_with("Total reclaimed space: 6B"), "{pruned}");
    assert_eq!(sorted(&host.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok()), ["running", "spared"]);
    let pruned = host.docker(&["system", "prune", "--all", "--force"]).ok();
    assert!(pruned.contains("untagged: idle:1"), "{pruned}");
    host.docker(&["volume", "prune", "--all", "--force"]).ok();
    assert_eq!(host.docker(&["volume", "ls", "--quiet"]).ok(), "busy");
    assert_eq!(
        host.docker(&["container", "prune", "--force", "--filter", "until=1h"]).ok(),
        "Total reclaimed space: 0B"
    );
}

fn build_folder(host: &Host, dockerfile: &str) -> PathBuf {
    let folder = host.folder().join("build");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    folder
}

fn build(host: &Host, folder: &Path, flags: &[&str]) -> Output {
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").arg("build").args(flags).arg(folder);
    finish(command, "docker build", b"")
}

/// The folders of a host's images.
struct Store {
    root: PathBuf,
    builds: PathBuf,
}

impl Store {
    fn of(host: &Host) -> Store {
        Store { root: host.data_root().join("images"), builds: host.data_root().join("builds") }
    }

    fn list(&self, folder: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.root.join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Whether something is being unpacked or removed.
    fn works(&self) -> bool {
        !self.list("tmp").is_empty()
    }

    /// Holds the folders against the index: nothing is missing, and nothing is there that the index does not name.
    #[track_caller]
    fn check(&self) {
        let text = std::fs::read(self.root.join("store.json")).unwrap();
        let index: Value = serde_json::from_slice(&text).unwrap();
        let images = index["images"].as_object().unwrap();
        let configs = images.keys().map(|id| id.trim_start_matches("sha256:").to_owned()).collect();
        let layers: BTreeSet<String> = images
            .values()
            .flat_map(|record| record["layers"].as_array().unwrap())
            .map(|layer| layer["folder"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(self.list("configs"), configs);
        assert_eq!(self.list("layers"), layers);
        assert!(self.list("recipes").is_subset(&layers));
        assert_eq!(self.list("tmp"), BTreeSet::new());
        for id in index["references"].as_object().unwrap().values() {
            assert!(images.contains_key(id.as_str().unwrap()), "{id} has a name and is not there");
        }
        let left: Vec<_> = std::fs::read_dir(&self.builds).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// An image of many small files: removing it takes its time.
fn many_files(tag: &str) -> Vec<u8> {
    let layer =
        (0..3000).fold(Layer::new(), |layer, number| layer.file(&format!("{tag}{number}"), 0o644, b"x"));
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
    Image { tag: Some(tag), layers: vec![busybox_layer(), layer.finish()], config }.docker_archive()
}

fn start(host: &Host, arguments: &[&str], input: Option<&Path>) -> Child {
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    match input {
        Some(path) => command.stdin(std::fs::File::open(path).unwrap()),
        None => command.stdin(Stdio::null()),
    };
    command.spawn().unwrap()
}

/// Kills the daemon while what `arguments` ask for is under way, starts it again and looks at the store.
fn kill_amid(host: &mut Host, arguments: &[&str], input: Option<&Path>) {
    let store = Store::of(host);
    let mut client = start(host, arguments, input);
    eventually("work in the store", SOON, || {
        let is_over = client.try_wait().unwrap().is_some();
        if store.works() || is_over { Ok(()) } else { Err(format!("{arguments:?} does nothing")) }
    });
    host.kill_daemon();
    client.wait().unwrap();
    host.start_daemon();
    store.check();
}

#[test]
fn a_daemon_killed_amid_changes_leaves_nothing_half() {
    let mut host = Host::with_busybox();
    let registry = Registry::new(host.namespace(), host.folder(), "127.0.0.1:5000");
    let archive = host.folder().join("many.tar");
    std::fs::write(&archive, many_files("many:1")).unwrap();
    let pulled = registry.name("many:1");
    host.docker(&["load", "--input", archive.to_str().unwrap()]).ok();
    host.docker(&["tag", "many:1", &pulled]).ok();
    host.docker(&["push", &pulled]).ok();
    kill_amid(&mut host, &["rmi", "--force", "many:1", &pulled], None);
    kill_amid(&mut host, &["load"], Some(&archive));
    host.docker(&["load", "--input", archive.to_str().unwrap()]).ok();
    kill_amid(&mut host, &["image", "prune", "--all", "--force"], None);
    assert_eq!(host.docker(&["images", "--quiet"]).ok(), "", "it was decided before it was done");
    kill_amid(&mut host, &["pull", &pulled], None);
    host.docker(&["pull", &pulled]).ok();
    host.docker(&["tag", &pulled, "many:1"]).ok();
    let folder = build_folder(&host, "FROM many:1\nRUN rm -rf /many*; echo done\n");
    kill_amid(&mut host, &["build", folder.to_str().unwrap()], None);
    build(&host, &folder, &["--tag", "built"]).ok();
    Store::of(&host).check();
}

#[test]
fn a_build_that_was_cut_off_leaves_no_container() {
    let mut host = Host::with_busybox();
    let folder = build_folder(&host, "FROM busybox\nRUN sleep 1000\n");
    let mut client = start(&host, &["build", folder.to_str().unwrap()], None);
    eventually("the step runs", SOON, || match host.docker(&["ps", "--quiet"]).ok() {
        empty if empty.is_empty() => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    host.docker(&["create", "--name", "mine", "busybox"]).ok();
    host.kill_daemon();
    client.wait().unwrap();
    host.start_daemon();
    assert_eq!(host.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok(), "mine");
    Store::of(&host).check();
}

/// What a load of `archive` by `host` makes of the image that was `name`: id and names.
fn loaded(host: &Host, archive: &Path, name: &str) -> (String, String) {
    host.docker(&["load", "--input", archive.to_str().unwrap()]).ok();
    (host.inspect(name, "{{.Id}}"), host.inspect(name, "{{.RepoTags}}"))
}

#[test]
fn what_is_saved_is_loaded_by_docker_and_back() {
    let [docker, skep] = pair();
    load(&skep, &image(Some("small:1"), &[("a", 70_000)], json!({})));
    load(&skep, &image(Some("large:1"), &[("a", 70_000), ("b", 300_000)], json!({})));
    let folder =
        build_folder(&skep, "FROM large:1\nRUN ln /a /linked; rm /b; mkdir /c; chmod 700 /c\nENV X=1\n");
    build(&skep, &folder, &["--tag", "made:1", "--tag", "made:2"]).ok();
    let file = |host: &Host, name: &str| host.folder().join(name);
    let ours = file(&skep, "ours.tar");
    skep.docker(&["save", "--output", ours.to_str().unwrap(), "small:1", "made", "large:1"]).ok();
    for name in ["small:1", "large:1", "made:1", "made:2"] {
        let wanted = (skep.inspect(name, "{{.Id}}"), skep.inspect(name, "{{.RepoTags}}"));
        assert_eq!(loaded(&docker, &ours, name), wanted, "{name}");
    }
    let run = |host: &Host| {
        host.docker(&[
            "run",
            "--rm",
            "made:1",
            "sh",
            "-c",
            "ls / /c; stat -c '%a %h' /c /linked; cat /a | md5sum",
        ])
        .ok()
    };
    assert_eq!(run(&docker), run(&skep));
    // And what dockerd makes of it is loaded here.
    let theirs = file(&docker, "theirs.tar");
    docker.docker(&["save", "--output", theirs.to_str().unwrap(), "made:1", "small"]).ok();
    let ids = ["made:1", "small:1"].map(|name| docker.inspect(name, "{{.Id}}"));
    skep.docker(&["rmi", "--force", "made:1", "made:2", "small:1", "large:1"]).ok();
    for (name, id) in ["made:1", "small:1"].iter().zip(ids) {
        assert_eq!(loaded(&skep, &theirs, name), (id, format!("[{name}]")));
    }
    // By an id there is no name, and a pipe will do.
    let id = skep.inspect("small:1", "{{.Id}}");
    let mut command = skep.docker_command();
    command.args(["save", &id]);
    let saved = command.output().unwrap();
    assert!(saved.status.success());
    skep.docker(&["rmi", "small:1"]).ok();
    assert_eq!(skep.docker_with_input(&["load"], &saved.stdout).ok(), format!("Loaded image ID: {id}"));
    let refused = skep.docker(&["save", "--output", file(&skep, "x").to_str().unwrap(), "nothing:1"]);
    refused.fails(1, "No such image: nothing:1");
    Store::of(&skep).check();
}

#[test]
fn a_save_that_cannot_be_finished_fails_at_the_client() {
    let host = Host::new();
    load(&host, &image(Some("small:1"), &[("a", 700_000)], json!({})));
    let layers = Store::of(&host).root.join("layers");
    let damaged = std::fs::read_dir(layers).unwrap().map(|entry| entry.unwrap().path().join("a"));
    let damaged = damaged.into_iter().find(|path| path.exists()).unwrap();
    std::fs::write(damaged, vec![b'y'; 700_000]).unwrap();
    let out = host.folder().join("x.tar");
    host.docker(&["save", "--output", out.to_str().unwrap(), "small:1"]).fails(1, "unexpected EOF");
}
