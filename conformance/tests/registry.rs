//! Pull, push, login and `/distribution` with Debian's `docker-registry` on loopback, and with nginx and its passwords before it.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use skep_conformance::archive::{Image, Layer, busybox_layer};
use skep_conformance::registry::{Registry, pushed_digest};
use skep_conformance::{Host, eventually, finish};

const SOON: Duration = Duration::from_secs(10);

/// A registry on loopback.
fn at(host: &Host, port: u16) -> Registry {
    Registry::new(host.namespace(), host.folder(), &format!("127.0.0.1:{port}"))
}

fn config() -> Value {
    serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]})
}

/// Loads an image of three layers; its id.
fn load(host: &Host, tag: &str) -> String {
    let mark = Layer::new().file("mark", 0o644, tag.as_bytes()).finish();
    let data = Layer::new().file("data", 0o644, &vec![b'x'; 3 << 20]).finish();
    let image = Image { tag: Some(tag), layers: vec![busybox_layer(), data, mark], config: config() };
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
    image.id()
}

/// W2, step 6, and what follows: push, then pull elsewhere.
#[test]
fn what_is_pushed_is_pulled_as_the_same_image() {
    let host = Host::new();
    let registry = at(&host, 5000);
    let id = load(&host, "hive:1");
    let (name, other) = (registry.name("bees/hive:1"), registry.name("wasps/hive:2"));
    host.docker(&["tag", "hive:1", &name]).ok();
    let pushed = host.docker(&["push", &name]).ok();
    assert!(
        pushed.starts_with(&format!("The push refers to repository [{}]", registry.name("bees/hive"))),
        "{pushed}"
    );
    assert_eq!(pushed.matches(": Pushed").count(), 3, "{pushed}");
    let digest = pushed_digest(&pushed);
    let by_digest = format!("{}@{digest}", registry.name("bees/hive"));
    assert_eq!(host.inspect(&name, "{{json .RepoDigests}}"), format!("[\"{by_digest}\"]"));
    let again = host.docker(&["push", &name]).ok();
    assert_eq!(again.matches(": Layer already exists").count(), 3, "{again}");
    host.docker(&["tag", "hive:1", &other]).ok();
    let lent = host.docker(&["push", &other]).ok();
    assert_eq!(lent.matches(": Mounted from bees/hive").count(), 3, "{lent}");
    assert_eq!(pushed_digest(&lent), digest);

    host.docker(&["rmi", "--force", &id]).ok();
    let pulled = host.docker(&["pull", &name]).ok();
    assert!(pulled.starts_with("1: Pulling from bees/hive"), "{pulled}");
    assert_eq!(pulled.matches(": Pull complete").count(), 3, "{pulled}");
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert!(pulled.ends_with(&format!("Status: Downloaded newer image for {name}\n{name}")), "{pulled}");
    assert_eq!(host.inspect(&name, "{{.Id}}"), id);
    assert_eq!(host.docker(&["run", "--rm", &name, "cat", "/mark"]).ok(), "hive:1");
    let listed =
        host.docker(&["images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}"]).ok();
    assert_eq!(listed, format!("{name} {digest}"));
    let again = host.docker(&["pull", &name]).ok();
    assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    let shared = host.docker(&["pull", &other]).ok();
    assert_eq!(shared.matches(": Already exists").count(), 3, "{shared}");

    host.docker(&["rmi", "--force", &id]).ok();
    let pulled = host.docker(&["pull", &by_digest]).ok();
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {by_digest}")), "{pulled}");
    assert_eq!(host.inspect(&by_digest, "{{.Id}}"), id);
    // What is not here is pulled by `run` itself.
    host.docker(&["rmi", "--force", &id]).ok();
    let run = host.docker(&["run", "--rm", &name, "cat", "/mark"]);
    assert!(run.stderr.contains(&format!("Unable to find image '{name}' locally")), "{run}");
    assert_eq!(run.ok(), "hive:1");
}

#[test]
fn the_same_image_is_pushed_under_the_digest_that_docker_gives_it() {
    let host = Host::of_dockerd();
    let registry = at(&host, 5000);
    let theirs = load(&host, "hive:1");
    let name = registry.name("hive:1");
    host.docker(&["tag", "hive:1", &name]).ok();
    let digest = pushed_digest(&host.docker(&["push", &name]).ok());

    drop(registry);

    // The other machine gets the same store: layers that are there are not compressed by another hand.
    let ours = Host::new();
    let store = "registry-127.0.0.1:5000";
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(host.folder().join(store)).arg(ours.folder().join(store));
    finish(copy, "copying the registry's store", b"").ok();
    let registry = at(&ours, 5000);
    ours.docker(&["pull", &name]).ok();
    assert_eq!(ours.inspect(&name, "{{.Id}}"), theirs);
    let other = registry.name("again:1");
    ours.docker(&["tag", &name, &other]).ok();
    assert_eq!(pushed_digest(&ours.docker(&["push", &other]).ok()), digest);
}

#[test]
fn a_guarded_registry_is_pulled_from_after_a_login() {
    let host = Host::new();
    let open = at(&host, 5000);
    let guarded = Registry::guarded(host.namespace(), host.folder(), "127.0.0.1:5001", &open);
    let id = load(&host, "hive:1");
    let name = guarded.name("hive:1");
    host.docker(&["tag", "hive:1", &name]).ok();
    host.docker(&["push", &name]).fails(1, "no basic auth credentials");
    let log_in = |password: &str| {
        let arguments = ["login", "--username", "ann", "--password-stdin", guarded.address()];
        host.docker_with_input(&arguments, password.as_bytes())
    };
    log_in("wrong").fails(1, "401 Unauthorized");
    let output = log_in("secret").ok();
    assert!(output.contains("Login Succeeded"), "{output}");
    host.docker(&["push", &name]).ok();
    host.docker(&["rmi", "--force", &id]).ok();
    host.docker(&["pull", &name]).ok();
    assert_eq!(host.inspect(&name, "{{.Id}}"), id);
    host.docker(&["logout", guarded.address()]).ok();
    host.docker(&["pull", &name]).fails(1, "no basic auth credentials");
}

#[test]
fn what_is_not_there_is_told_in_docker_s_words() {
    let (host, reference) = (Host::new(), Host::of_dockerd());
    let (_registry, _other) = (at(&host, 5000), at(&reference, 5000));
    load(&host, "hive:1");
    load(&reference, "hive:1");
    for host in [&host, &reference] {
        host.docker(&["tag", "hive:1", "127.0.0.1:5000/hive:1"]).ok();
        host.docker(&["push", "127.0.0.1:5000/hive:1"]).ok();
    }
    let absent = format!("127.0.0.1:5000/hive@sha256:{}", "1".repeat(64));
    for arguments in [
        &["pull", "127.0.0.1:5000/hive:absent"][..],
        &["pull", "127.0.0.1:5000/absent"],
        &["pull", &absent],
        &["pull", "127.0.0.1:5999/absent"],
        &["push", "127.0.0.1:5000/absent"],
        &["push", "127.0.0.1:5000/hive:absent"],
        &["pull", "--platform", "linux/s390x/", "127.0.0.1:5000/UPPER"],
    ] {
        let (ours, theirs) = (host.docker(arguments), reference.docker(arguments));
        assert_eq!((ours.code, &ours.stderr), (theirs.code, &theirs.stderr), "{arguments:?}");
    }
}

#[test]
fn what_only_dockers_hub_has_is_refused() {
    let host = Host::new();
    host.docker(&["search", "bees"]).fails(1, "it asks Docker's hub");
}

#[test]
fn what_a_registry_has_is_described() {
    let host = Host::new();
    let registry = at(&host, 5000);
    load(&host, "hive:1");
    let name = registry.name("hive:1");
    host.docker(&["tag", "hive:1", &name]).ok();
    let digest = pushed_digest(&host.docker(&["push", &name]).ok());
    let answer = host.api_get(&format!("/v1.50/distribution/{name}/json")).unwrap();
    let found: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(found["Descriptor"]["digest"], digest);
    assert_eq!(found["Platforms"][0]["os"], "linux");
    let answer = host.api_get("/v1.50/distribution/127.0.0.1:5000/absent/json").unwrap();
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn all_tags_are_pushed_and_pulled() {
    let host = Host::new();
    let registry = at(&host, 5000);
    let ids = ["one", "two"].map(|tag| {
        let id = load(&host, &format!("hive:{tag}"));
        host.docker(&["tag", &format!("hive:{tag}"), &registry.name(&format!("hive:{tag}"))]).ok();
        id
    });
    let repository = registry.name("hive");
    let pushed = host.docker(&["push", "--all-tags", &repository]).ok();
    assert!(pushed.contains("one: digest: sha256:") && pushed.contains("two: digest: sha256:"), "{pushed}");
    for id in &ids {
        host.docker(&["rmi", "--force", id]).ok();
    }
    let pulled = host.docker(&["pull", "--all-tags", &repository]).ok();
    assert!(
        pulled.ends_with(&format!("Status: Downloaded newer image for {repository}\n{repository}")),
        "{pulled}"
    );
    for (tag, id) in ["one", "two"].iter().zip(&ids) {
        assert_eq!(host.inspect(&registry.name(&format!("hive:{tag}")), "{{.Id}}"), *id);
    }
}

#[test]
fn two_who_pull_the_same_get_it_once() {
    let host = Host::new();
    let registry = at(&host, 5000);
    let id = load(&host, "hive:1");
    let name = registry.name("hive:1");
    host.docker(&["tag", "hive:1", &name]).ok();
    host.docker(&["push", &name]).ok();
    host.docker(&["rmi", "--force", &id]).ok();
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| host.docker(&["pull", "--quiet", &name]).ok())).collect();
        for pull in pulls {
            assert_eq!(pull.join().unwrap(), name);
        }
    });
    assert_eq!(host.inspect(&name, "{{.Id}}"), id);
    host.docker(&["rmi", "--force", &id]).ok();
    let layers = host.data_root().join("images/layers");
    assert_eq!(std::fs::read_dir(layers).unwrap().count(), 0, "nothing stays");
}

/// Bytes that no compression makes fewer.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        // As Knuth's MMIX; the upper bits are the better ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Brings two images that share a large layer to a registry; nothing of them stays here. Their ids.
fn two_that_share(host: &Host, registry: &Registry, size: usize) -> [String; 2] {
    ["one", "two"].map(|tag| {
        let shared = Layer::new().file("large", 0o644, &noise(size)).finish();
        let own = Layer::new().file("own", 0o644, tag.as_bytes()).finish();
        let image = Image { tag: Some(tag), layers: vec![busybox_layer(), shared, own], config: config() };
        host.docker_with_input(&["load"], &image.docker_archive()).ok();
        let name = registry.name(&format!("hive:{tag}"));
        host.docker(&["tag", tag, &name]).ok();
        host.docker(&["push", &name]).ok();
        host.docker(&["rmi", tag, &name]).ok();
        image.id()
    })
}

#[test]
fn a_layer_that_two_pulls_want_at_the_same_time_is_fetched_once() {
    let host = Host::new();
    let registry = at(&host, 5000);
    let ids = two_that_share(&host, &registry, 1 << 20);
    // So slow that the second pull comes while the first one is at it.
    let slow = Registry::slow(host.namespace(), host.folder(), "127.0.0.1:5001", &registry, 1 << 19);
    let names = ["one", "one", "two", "two"].map(|tag| slow.name(&format!("hive:{tag}")));
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| host.docker(&["pull", "--quiet", name]).ok());
        }
    });
    assert_eq!(host.inspect(&names[0], "{{.Id}}"), ids[0]);
    assert_eq!(host.inspect(&names[2], "{{.Id}}"), ids[1]);
    let requests = slow.requests();
    let mut counts = std::collections::BTreeMap::new();
    for blob in requests.iter().filter(|line| line.starts_with("GET /v2/hive/blobs/")) {
        *counts.entry(blob.rsplit('/').next().unwrap()).or_insert(0) += 1;
    }
    // Four layers; the configurations are small, and each pull reads its own.
    let is_config = |digest: &&&str| ids.iter().any(|id| id == **digest);
    let layers: Vec<_> = counts.iter().filter(|(digest, _)| !is_config(digest)).collect();
    assert_eq!(layers.len(), 4, "{requests:?}");
    assert!(layers.iter().all(|(_, count)| **count == 1), "{requests:?}");
}

#[test]
fn a_task_that_is_to_end_while_its_image_is_pulled_ends_at_once() {
    let host = Host::new();
    let registry = at(&host, 5000);
    let ids = two_that_share(&host, &registry, 1 << 20);
    // A minute and more for the layer.
    let slow = Registry::slow(host.namespace(), host.folder(), "127.0.0.1:5001", &registry, 1 << 14);
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    let name = slow.name("hive:one");
    let images = host.data_root().join("images");
    let is_idle = |folder: &str| std::fs::read_dir(images.join(folder)).unwrap().next().is_none();
    let create =
        ["service", "create", "--detach", "--no-resolve-image", "--name", "web", &name, "sleep", "1000"];
    let states = || host.docker(&["service", "ps", "web", "--format", "{{.CurrentState}}"]).ok();
    let pulled = |is_so: bool| {
        eventually("the image is pulled, or not any more", SOON, || {
            if (!is_idle("tmp") || !is_idle("layers")) == is_so { Ok(()) } else { Err(states()) }
        });
    };
    host.docker(&create).ok();
    pulled(true);
    assert!(states().starts_with("Preparing"), "{}", states());
    host.docker(&["service", "scale", "--detach", "web=0"]).ok();
    pulled(false);
    host.docker(&["service", "scale", "--detach", "web=1"]).ok();
    pulled(true);
    // Somebody else wants it too, and from a place that is not slow: the task's end does not take it away.
    let mine = host.session(&["pull", &name]);
    eventually("the pull has begun", SOON, || {
        if mine.output().contains("Pulling from hive") { Ok(()) } else { Err(mine.output()) }
    });
    host.docker(&["service", "rm", "web"]).ok();
    eventually("the task is gone", SOON, || match host.docker(&["node", "ps", "self", "--quiet"]).ok() {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
    assert!(!is_idle("tmp"), "the other one goes on");
    mine.signal(2);
    mine.finish();
    pulled(false);
    host.docker(&["pull", "--quiet", &registry.name("hive:one")]).ok();
    assert_eq!(host.inspect(&registry.name("hive:one"), "{{.Id}}"), ids[0]);
}
