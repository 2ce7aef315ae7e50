//! Services whose image only a registry has: every node fetches it by its digest, with the credentials of whoever asked.

use serde_json::Value;
use skep_conformance::registry::{Registry, pushed_digest};
use skep_conformance::{Lab, eventually, image_archive};

use super::SOON;

#[test]
fn nodes_pull_what_the_service_was_pinned_to_with_the_user_s_credentials() {
    let lab = Lab::with_flags(1, 2, &[], &["--daemon-flag=--insecure-registry=192.0.2.0/24"]);
    let (outside, folder) = (lab.namespace(0), lab.folder(1));
    let open = Registry::new(&outside, &folder, "192.0.2.254:5000");
    let guarded = Registry::guarded(&outside, &folder, "192.0.2.254:5001", &open);
    lab.docker(1, &["load", "--input", image_archive("busybox").to_str().unwrap()]).ok();
    let name = guarded.name("bees/busybox:1");
    lab.docker(1, &["tag", "busybox", &name]).ok();
    lab.docker(1, &["login", "--username", "ann", "--password", "secret", guarded.address()]).ok();
    let digest = pushed_digest(&lab.docker(1, &["push", &name]).ok());
    let newer = guarded.name("bees/busybox:2");
    lab.docker(1, &["tag", "busybox", &newer]).ok();
    lab.docker(1, &["push", &newer]).ok();

    let create = |more: &[&str]| {
        let common = ["service", "create", "--detach", "--replicas", "3", "--replicas-max-per-node", "1"];
        let common = [&common[..], &["--stop-grace-period", "1s"]].concat();
        lab.docker(1, &[&common[..], more, &[&name, "sleep", "600"]].concat()).ok()
    };
    create(&["--name", "web", "--with-registry-auth"]);
    eventually("every node runs the image", SOON, || {
        let listed =
            lab.docker(1, &["service", "ps", "web", "--format", "{{.CurrentState}} {{.Error}}"]).stdout;
        if listed.matches("Running").count() == 3 { Ok(()) } else { Err(listed) }
    });
    let shown = lab.docker(1, &["service", "inspect", "web"]).ok();
    let inspected: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(inspected[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], format!("{name}@{digest}"));
    // The credentials are in no answer: the header is base64 of JSON, so it begins with these letters.
    for answer in [shown, lab.docker(1, &["inspect", "--type", "service", "web"]).ok()] {
        assert!(!answer.contains("eyJ"), "{answer}");
    }
    for node in lab.nodes() {
        let images = lab.docker(node, &["images", "--digests", "--format", "{{.Digest}}"]).ok();
        assert!(images.contains(&digest), "node {node}: {images}");
    }

    // An update keeps the credentials, whether it brings some or not.
    lab.docker(1, &["service", "update", "--detach", "--image", &newer, "web"]).ok();
    eventually("every node runs the newer image", SOON, || {
        let format = "{{.Image}} {{.CurrentState}} {{.Error}}";
        let listed = lab.docker(1, &["service", "ps", "web", "--format", format]).stdout;
        let running = listed.lines().filter(|line| line.starts_with(&newer) && line.contains("Running"));
        if running.count() == 3 { Ok(()) } else { Err(listed) }
    });

    // Without them only the node that has the image can run it.
    lab.docker(1, &["service", "rm", "web"]).ok();
    for node in [2, 3] {
        eventually("the image is not needed any more", SOON, || {
            let ids = lab.docker(node, &["images", "--quiet"]).stdout;
            let Some(id) = ids.lines().next() else { return Ok(()) };
            let removed = lab.docker(node, &["rmi", "--force", id]);
            if removed.code == 0 { Ok(()) } else { Err(removed.stderr) }
        });
    }
    create(&["--name", "locked", "--restart-condition", "none"]);
    eventually("two tasks are rejected", SOON, || {
        let format = "{{.CurrentState}} {{.Error}}";
        let listed = lab.docker(1, &["service", "ps", "locked", "--no-trunc", "--format", format]).stdout;
        let rejected =
            listed.lines().filter(|line| line.starts_with("Rejected") && line.contains("No such image: "));
        if rejected.count() >= 2 && listed.contains("Running") { Ok(()) } else { Err(listed) }
    });
}
