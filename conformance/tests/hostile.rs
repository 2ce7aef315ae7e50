//! Hostile and broken input: each gets a clear answer, the daemon goes on, nothing escapes.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::archive::{Image, Layer, busybox_layer, digest};
use skep_conformance::{Host, http};
use tar::EntryType;

/// A host with a file and a folder outside that hostile input tries to reach.
struct Target {
    host: Host,
    outside: PathBuf,
}

impl Target {
    fn new() -> Target {
        let host = Host::with_busybox();
        let outside = host.folder().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        Target { host, outside }
    }

    /// The daemon answers, works, and nothing outside has changed.
    #[track_caller]
    fn is_unharmed(&self, after: &str) {
        assert_eq!(self.host.api_get("/_ping").unwrap().status, 200, "after {after}");
        let left: Vec<_> =
            std::fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "after {after}");
        assert_eq!(std::fs::read_to_string(self.outside.join("secret")).unwrap(), "secret", "after {after}");
        assert!(!std::path::Path::new("/skep-escaped").exists(), "after {after}");
    }

    /// The same, and a container runs.
    #[track_caller]
    fn works(&self) {
        self.is_unharmed("everything");
        assert_eq!(self.host.run(&[], "echo fine").ok(), "fine");
        assert_eq!(self.host.docker(&["ps", "--all", "--quiet"]).ok(), "");
    }

    /// Loads an archive that must be refused with something said about it.
    #[track_caller]
    fn refuses_archive(&self, what: &str, archive: &[u8]) {
        let before = self.host.docker(&["images", "--all", "--quiet", "--no-trunc"]).ok();
        let output = self.host.docker_with_input(&["load"], archive);
        assert_ne!(output.code, 0, "{what}: {output}");
        assert!(output.stderr.trim().len() > 10, "{what}: {output}");
        assert_eq!(
            self.host.docker(&["images", "--all", "--quiet", "--no-trunc"]).ok(),
            before,
            "{what}: half-loaded"
        );
        self.is_unharmed(what);
    }

    fn memory_peak_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.host.daemon_pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn image(layers: Vec<Vec<u8>>) -> Image<'static> {
    Image { tag: Some("evil:1"), layers, config: json!({"Env": ["PATH=/bin"]}) }
}

#[test]
fn malformed_json_is_a_bad_request() {
    let target = Target::new();
    let deep = "[".repeat(200_000);
    let nested = format!("{{\"Image\":\"busybox\",\"Labels\":{}", "{\"a\":".repeat(100_000));
    let bodies = [
        "",
        "{",
        "]",
        "nul",
        "\"busybox\"",
        "[]",
        "5",
        "{\"Image\":",
        "{\"Image\":5}",
        "{\"Image\":[\"busybox\"]}",
        "{\"Image\":\"busybox\",\"Cmd\":{\"a\":1}}",
        "{\"Image\":\"busybox\",\"Env\":\"A=1\"}",
        "{\"Image\":\"busybox\",\"Labels\":[1]}",
        "{\"Image\":\"busybox\",\"HostConfig\":[]}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":\"lots\"}}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":1e300}}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Binds\":[5]}}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"PortBindings\":{\"x\":[{}]}}}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"PortBindings\":{\"80/tcp\":[{\"HostPort\":\"99999\"}]}}}",
        "{\"Image\":\"busybox\"} trailing",
        "{\"Image\":\"\\ud800\"}",
        "\u{0}",
        &deep,
        &nested,
    ];
    for body in bodies {
        let answer = target.host.api("POST", "/containers/create", body).unwrap();
        let shown = &body[..body.len().min(60)];
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        let message: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{shown}: {answer:?}"));
        assert!(!message["message"].as_str().unwrap().is_empty(), "{shown}: {answer:?}");
    }
    for path in ["/swarm/init", "/services/create", "/volumes/create", "/containers/x/exec"] {
        for body in ["{", "[]", "7"] {
            let answer = target.host.api("POST", path, body).unwrap();
            assert!(matches!(answer.status, 400 | 404 | 503), "{path} {body}: {answer:?}");
        }
    }
    target.works();
}

#[test]
fn malformed_queries_and_paths_are_refused() {
    let target = Target::new();
    target.host.run_detached("bee", &[], "true");
    target.host.docker(&["wait", "bee"]).ok();
    for path in [
        "/containers/json?filters=%7Bbroken",
        "/containers/json?filters=%5B1%5D",
        "/containers/json?limit=many",
        "/containers/bee/logs?stdout=1&since=tomorrow",
        "/events?since=abc&until=1",
        "/images/json?filters=7",
        "/containers/json?filters=%7B%22honey%22%3A%5B%22x%22%5D%7D",
        "/containers/bee/logs",
    ] {
        let answer = target.host.api_get(path).unwrap();
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.body.contains("\"message\""), "{path}: {answer:?}");
    }
    for path in [
        "/containers/..%2F..%2Fetc%2Fpasswd/json",
        "/containers/%00/json",
        "/containers/%ff%fe/json",
        "/volumes/..%2F..%2Fetc",
        "/images/..%2F..%2Fx/json",
        "/../../etc/passwd",
        "/containers/bee/json/more",
        "/exec/../json",
    ] {
        let answer = target.host.api_get(path).unwrap();
        assert!(matches!(answer.status, 301 | 400 | 404 | 500), "{path}: {answer:?}");
        assert!(!answer.body.contains("root:"), "{path}: {answer:?}");
    }
    target.host.docker(&["rm", "bee"]).ok();
    target.works();
}

#[test]
fn broken_http_harms_nobody() {
    let target = Target::new();
    let long_head = format!("GET /_ping HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(4 << 20));
    let many_heads = format!("GET /_ping HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100_000));
    for request in [
        "",
        "G",
        "GET /_ping",
        "GET /_ping HTTP/1.1\r\nHost:",
        "nonsense\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /_ping HTTP/9.9\r\nHost: x\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"Image\"",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        "POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
        &long_head,
        &many_heads,
    ] {
        let mut stream = target.host.api_connect().unwrap();
        // The daemon may hang up before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        target.is_unharmed(&request[..request.len().min(80)]);
    }
    // Hundreds of clients that connect and say half a word.
    let idle: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = target.host.api_connect().unwrap();
            stream.write_all(b"GET /_pi").unwrap();
            stream
        })
        .collect();
    target.works();
    drop(idle);
    target.works();
}

#[test]
fn a_huge_body_is_not_swallowed() {
    let target = Target::new();
    let mut stream = target.host.api_connect().unwrap();
    let size = 512_u64 << 20;
    write!(stream, "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n").unwrap();
    let piece = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent < size && stream.write_all(&piece).is_ok() {
        sent += piece.len() as u64;
    }
    assert!(sent < size, "the daemon hangs up before it has read {size} bytes");
    let peak = target.memory_peak_kb();
    assert!(peak < 128 << 10, "the daemon's memory rose to {peak} kB");
    target.works();
}

#[test]
fn a_client_that_goes_away_amid_an_upload_leaves_nothing() {
    let target = Target::new();
    let archive = image(vec![busybox_layer(), Layer::new().file("big", 0o644, &vec![1; 8 << 20]).finish()])
        .docker_archive();
    for part in [archive.len() / 3, archive.len() / 2, archive.len() - 600] {
        let mut stream = target.host.api_connect().unwrap();
        let length = archive.len();
        write!(stream, "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n").unwrap();
        stream.write_all(&archive[..part]).unwrap();
        drop(stream);
        target.is_unharmed("an upload that broke off");
    }
    assert_eq!(target.host.docker(&["images", "--format", "{{.Repository}}"]).ok(), "busybox");
    let loaded = target.host.docker_with_input(&["load"], &archive).ok();
    assert!(loaded.ends_with("Loaded image: evil:1"), "{loaded}");
    target.works();
}

#[test]
fn layers_cannot_write_outside() {
    let target = Target::new();
    let up = "../".repeat(40);
    let outside = target.outside.to_str().unwrap();
    let relative = outside.trim_start_matches('/');
    let name =
        |text: String| if text.len() < 100 { text } else { panic!("{text} is too long for a tar header") };
    let up_short = "../".repeat(12);
    let layers: Vec<(&str, Layer)> = vec![
        ("a path up", Layer::new().file(&format!("{}skep-escaped", "../".repeat(25)), 0o644, b"x")),
        (
            "a path up in the middle",
            Layer::new().file(&format!("a/{}skep-escaped", "../".repeat(25)), 0o644, b"x"),
        ),
        (
            "a path up to a known place",
            Layer::new().file(&name(format!("{up_short}{relative}/made")), 0o644, b"x"),
        ),
        ("an absolute path", Layer::new().file("/skep-escaped", 0o644, b"x")),
        (
            "an absolute path to a known place",
            Layer::new().file(&name(format!("{outside}/made")), 0o644, b"x"),
        ),
        (
            "a file through an absolute link",
            Layer::new().symlink("exit", outside).file("exit/made", 0o644, b"x"),
        ),
        (
            "a file through a relative link",
            Layer::new().symlink("exit", &name(format!("{up_short}{relative}"))).file(
                "exit/made",
                0o644,
                b"x",
            ),
        ),
        (
            "a file through two links",
            Layer::new().symlink("one", outside).symlink("two", "one").file("two/made", 0o644, b"x"),
        ),
        ("a folder through a link", Layer::new().symlink("exit", outside).folder("exit/made/", 0o755)),
        (
            "a file over a link",
            Layer::new().symlink("exit", &format!("{outside}/secret")).file("exit", 0o644, b"overwritten"),
        ),
        (
            "a hard link to outside",
            Layer::new().hard_link("stolen", &format!("{outside}/secret")).file(
                "stolen",
                0o644,
                b"overwritten",
            ),
        ),
        ("a hard link up", Layer::new().hard_link("stolen", &name(format!("{up_short}{relative}/secret")))),
        (
            "a hard link through a link",
            Layer::new().symlink("exit", outside).hard_link("stolen", "exit/secret").file(
                "stolen",
                0o644,
                b"overwritten",
            ),
        ),
        (
            "a whiteout through a link",
            Layer::new().symlink("exit", outside).file("exit/.wh.secret", 0o644, b""),
        ),
        (
            "an opaque folder through a link",
            Layer::new().symlink("exit", outside).file("exit/.wh..wh..opq", 0o644, b""),
        ),
        ("a whiteout of the parent", Layer::new().file("a/.wh...", 0o644, b"")),
        ("a whiteout of nothing", Layer::new().file(".wh.", 0o644, b"")),
        ("a whiteout of itself", Layer::new().file(".wh..", 0o644, b"")),
        ("the root as a link", Layer::new().symlink("./", outside).file("made", 0o644, b"x")),
        (
            "a fifo through a link",
            Layer::new().symlink("exit", outside).entry(EntryType::Fifo, "exit/made", "", 0o644, (0, 0), b""),
        ),
        (
            "a device through a link",
            Layer::new().symlink("exit", outside).entry(EntryType::Char, "exit/made", "", 0o644, (0, 0), b""),
        ),
        ("a name with a nul", Layer::new().file("a\0b", 0o644, b"x")),
        ("an empty name", Layer::new().file("", 0o644, b"x")),
    ];
    assert!(up.len() > 100);
    for (what, layer) in layers {
        let layer = layer.finish();
        // Refused, or kept inside: both are safe; what counts is that nothing is reached.
        let output = target
            .host
            .docker_with_input(&["load"], &image(vec![busybox_layer(), layer.clone()]).docker_archive());
        target.is_unharmed(what);
        if output.code == 0 {
            let seen =
                target.host.docker(&["run", "--rm", "evil:1", "sh", "-c", "cat /stolen 2>/dev/null; true"]);
            assert!(!seen.stdout.contains("secret"), "{what}: {seen}");
            target.host.docker(&["rmi", "--force", "evil:1"]).ok();
        } else {
            assert!(output.stderr.trim().len() > 10, "{what}: {output}");
        }
        target.host.docker_with_input(&["import", "-", "evil:1"], &layer);
        target.is_unharmed(what);
        target.host.docker(&["rmi", "--force", "evil:1"]);
    }
    target.works();
}

#[test]
fn links_of_lower_layers_cannot_be_followed_out_by_upper_ones() {
    let target = Target::new();
    let outside = target.outside.to_str().unwrap();
    let lower = Layer::new().symlink("exit", outside).finish();
    let upper = Layer::new().file("exit/made", 0o644, b"x").file("exit/.wh.secret", 0o644, b"").finish();
    target.host.docker_with_input(&["load"], &image(vec![busybox_layer(), lower, upper]).docker_archive());
    target.is_unharmed("an upper layer through a lower link");
    target.host.docker(&["rmi", "--force", "evil:1"]);
    target.works();
}

#[test]
fn archives_whose_own_files_are_hostile_are_refused() {
    let target = Target::new();
    let manifest = |config: &str, layer: &str| {
        json!([{"Config": config, "RepoTags": ["evil:1"], "Layers": [layer]}]).to_string()
    };
    let good = image(vec![busybox_layer()]);
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(&busybox_layer())]}}).to_string();
    let with = |manifest: &str| Layer::new().file("manifest.json", 0o644, manifest.as_bytes());
    let full = |manifest: &str| {
        with(manifest)
            .file("c.json", 0o644, config.as_bytes())
            .file("layer.tar", 0o644, &busybox_layer())
            .finish()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no tar", b"this is not a tar archive".repeat(100)),
        ("an empty tar", Layer::new().finish()),
        ("no manifest", Layer::new().file("other", 0o644, b"x").finish()),
        ("a manifest that is no JSON", full("honey")),
        ("a manifest of another shape", full("{\"a\": 1}")),
        ("a configuration outside", full(&manifest("/etc/passwd", "layer.tar"))),
        ("a configuration up", full(&manifest("../../../../../../../../etc/passwd", "layer.tar"))),
        ("a layer outside", full(&manifest("c.json", "/etc/passwd"))),
        ("a layer up", full(&manifest("c.json", "../../../../../../../etc/passwd"))),
        ("a layer that is missing", full(&manifest("c.json", "none.tar"))),
        ("a configuration that is missing", full(&manifest("none.json", "layer.tar"))),
        (
            "a configuration that is no JSON",
            with(&manifest("layer.tar", "layer.tar")).file("layer.tar", 0o644, &busybox_layer()).finish(),
        ),
        ("a manifest that is a link", Layer::new().symlink("manifest.json", "/etc/passwd").finish()),
        (
            "a layer that is a link",
            with(&manifest("c.json", "layer.tar"))
                .file("c.json", 0o644, config.as_bytes())
                .symlink("layer.tar", "/dev/zero")
                .finish(),
        ),
        (
            "a layer that is a device",
            with(&manifest("c.json", "layer.tar"))
                .file("c.json", 0o644, config.as_bytes())
                .entry(EntryType::Char, "layer.tar", "", 0o644, (0, 0), b"")
                .finish(),
        ),
        (
            "a layer that is no tar",
            with(&manifest("c.json", "layer.tar"))
                .file("c.json", 0o644, config.as_bytes())
                .file("layer.tar", 0o644, &[0x5a; 4096])
                .finish(),
        ),
        (
            "a name up",
            full(
                &json!([{"Config": "c.json", "RepoTags": ["../../up:1"], "Layers": ["layer.tar"]}])
                    .to_string(),
            ),
        ),
        (
            "a layer too few",
            full(&json!([{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": []}]).to_string()),
        ),
        (
            "a layer too many",
            full(
                &json!([{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["layer.tar", "layer.tar"]}])
                    .to_string(),
            ),
        ),
    ];
    for (what, archive) in cases {
        target.refuses_archive(what, &archive);
    }
    target.host.docker_with_input(&["load"], &good.docker_archive()).ok();
    target.works();
}

#[test]
fn truncated_and_corrupted_archives_are_refused() {
    let target = Target::new();
    let layer = Layer::new()
        .file("data", 0o644, &(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        .finish();
    let good = image(vec![busybox_layer(), layer]);
    for archive in [good.docker_archive(), good.oci_archive()] {
        for part in [100, 512, 700, archive.len() / 4, archive.len() / 2, archive.len() - 100_000] {
            target.refuses_archive(&format!("the first {part} bytes"), &archive[..part]);
        }
        // One byte of a layer, of the configuration, of the manifest: the digests no longer hold.
        let at = archive.len() - 300_000;
        let mut corrupt = archive.clone();
        corrupt[at] ^= 0xff;
        target.refuses_archive("a flipped bit in a layer", &corrupt);
    }
    let archive = good.oci_archive();
    let text = b"\"architecture\"";
    let at = archive.windows(text.len()).position(|window| window == text).unwrap();
    let mut corrupt = archive.clone();
    corrupt[at + 1] = b'A';
    target.refuses_archive("a changed configuration", &corrupt);
    target.works();
}

#[test]
fn giant_claims_are_not_believed() {
    let target = Target::new();
    // A header that claims eight exabytes, and a manifest larger than any real one.
    let mut header = tar::Header::new_gnu();
    header.set_path("manifest.json").unwrap();
    header.set_size(1 << 62);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.resize(1 << 20, b' ');
    target.refuses_archive("a manifest of exabytes", &archive);
    let spaces = vec![b' '; 64 << 20];
    let archive = Layer::new().file("manifest.json", 0o644, &spaces).finish();
    target.refuses_archive("a manifest of 64 MB", &archive);
    let peak = target.memory_peak_kb();
    assert!(peak < 128 << 10, "the daemon's memory rose to {peak} kB");
    target.works();
}

#[test]
fn hostile_user_files_in_an_image_are_only_read_inside() {
    let target = Target::new();
    let secret = target.outside.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    // /etc/passwd leads outside, or is a device that never ends, or a pipe that nobody writes.
    let layers = [
        Layer::new().symlink("etc/passwd", secret.to_str().unwrap()),
        Layer::new().symlink("etc/passwd", "/dev/zero").symlink("etc/group", "/dev/zero"),
        Layer::new().entry(EntryType::Fifo, "etc/passwd", "", 0o644, (0, 0), b""),
        Layer::new().file("etc/passwd", 0o644, &[b'x'; 1 << 20]),
    ];
    for layer in layers {
        target
            .host
            .docker_with_input(&["load"], &image(vec![busybox_layer(), layer.finish()]).docker_archive())
            .ok();
        let mut command = target.host.docker_command();
        command.args(["run", "--rm", "--user", "queen", "evil:1", "true"]);
        let output = skep_conformance::finish(command, "docker run with a hostile passwd", b"");
        assert_eq!(output.code, 125, "{output}");
        assert!(!output.stderr.contains("secret\n"), "{output}");
        target.is_unharmed("a hostile passwd");
        target.host.docker(&["rmi", "--force", "evil:1"]).ok();
    }
    target.works();
}

#[test]
fn a_flood_of_requests_is_answered() {
    let target = Target::new();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let answer = target.host.api_get("/containers/json?all=1").unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    let mut stream = target.host.api_connect().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(http::get(&mut stream, "/_ping").unwrap().body, "OK");
    target.works();
}

#[test]
fn archives_that_never_come_hold_up_no_container() {
    let host = Host::with_busybox();
    let head = "POST /images/load HTTP/1.1\r\nHost: skep\r\nContent-Type: application/x-tar\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let stalled: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = host.api_connect().unwrap();
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(host.run(&["--volume", "kept:/data"], "echo runs").ok(), "runs");
    drop(stalled);
    // Their room is free again.
    host.load_image("busybox");
}
