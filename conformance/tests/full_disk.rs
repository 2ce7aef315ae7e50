//! A full data disk: what cannot be done says so, and everything works again when there is room.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::process::Command;
use std::time::Duration;

use skep_conformance::archive::{Image, Layer, busybox_layer};
use skep_conformance::{Host, eventually};

const FULL: &str = "no space left on device";

/// A host whose data root is an ext4 of `mib` MiB. Unmounted with everything else of the host.
fn host_with_disk(mib: u64) -> Host {
    let mut host = Host::without_daemon();
    let disk = host.folder().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(mib << 20).unwrap();
    std::fs::create_dir(host.data_root()).unwrap();
    // No blocks kept back for root: the daemon is root.
    system("mkfs.ext4", &["-q", "-m", "0", "-F", disk.to_str().unwrap()]);
    system("mount", &["-o", "loop", disk.to_str().unwrap(), host.data_root().to_str().unwrap()]);
    host.start_daemon();
    host.load_image("busybox");
    host
}

fn system(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Fills the disk to the last byte; removing the returned file makes room again.
fn fill(host: &Host) -> std::path::PathBuf {
    let path = host.data_root().join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
    rustix::fs::fsync(&file).unwrap();
    path
}

fn says_full(text: &str) {
    assert!(text.to_lowercase().contains(FULL), "expected {FULL:?} in {text}");
}

#[test]
fn an_image_that_does_not_fit_is_refused_whole() {
    let host = host_with_disk(24);
    let big = Layer::new().file("big", 0o644, &vec![9; 32 << 20]).finish();
    let big = Image { tag: Some("big:1"), layers: vec![busybox_layer(), big], config: serde_json::json!({}) };
    let used = || std::process::Command::new("du").args(["-sm"]).arg(host.data_root()).output().unwrap();
    let before = String::from_utf8(used().stdout).unwrap();
    for archive in [big.docker_archive(), big.oci_archive()] {
        let output = host.docker_with_input(&["load"], &archive);
        assert_ne!(output.code, 0, "{output}");
        says_full(&output.stderr);
        assert_eq!(host.docker(&["images", "--format", "{{.Repository}}"]).ok(), "busybox");
        assert_eq!(String::from_utf8(used().stdout).unwrap(), before, "the half that was written is removed");
    }
    assert_eq!(host.run(&[], "echo room").ok(), "room");
    let output = host.docker_with_input(&["import", "-", "big:2"], &big.layers[1]);
    assert_ne!(output.code, 0, "{output}");
    says_full(&format!("{}{}", output.stdout, output.stderr));
    assert_eq!(host.docker(&["images", "--format", "{{.Repository}}"]).ok(), "busybox");
    assert_eq!(String::from_utf8(used().stdout).unwrap(), before);
}

#[test]
fn a_full_disk_stops_no_daemon_and_no_container() {
    let mut host = host_with_disk(32);
    let script = "while :; do [ -e /tmp/ask ] && echo answer > /tmp/reply; echo line; sleep 0.05; done";
    host.run_detached("goes-on", &["--tmpfs", "/tmp"], script);
    let filler = fill(&host);
    let output = host.docker(&["run", "--name", "late", "busybox", "true"]);
    assert_eq!(output.code, 125, "{output}");
    says_full(&output.stderr);
    let output = host.docker(&["volume", "create", "nest"]);
    assert!(output.code == 0 || output.stderr.to_lowercase().contains(FULL), "{output}");
    // A container's own writes fail inside it; it goes on.
    host.docker(&["exec", "goes-on", "sh", "-c", "dd if=/dev/zero of=/file bs=64k count=20"])
        .fails(1, "No space left on device");
    assert_eq!(host.docker(&["exec", "goes-on", "echo", "alive"]).ok(), "alive");
    assert_eq!(host.inspect("goes-on", "{{.State.Status}}"), "running");
    assert_eq!(host.docker(&["ps", "--format", "{{.Names}}"]).ok(), "goes-on");
    // Even a restart of the daemon on the full disk is survived.
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.inspect("goes-on", "{{.State.Status}}"), "running");
    std::fs::remove_file(filler).unwrap();
    host.docker(&["rm", "--force", "late"]);
    assert_eq!(host.run(&["--name", "late"], "echo room").ok(), "room");
    let lines = host.docker(&["logs", "goes-on"]).ok().lines().count();
    eventually("its log goes on", Duration::from_secs(10), || {
        let now = host.docker(&["logs", "goes-on"]).ok().lines().count();
        if now > lines { Ok(()) } else { Err(format!("{now} lines")) }
    });
    host.docker(&["rm", "--force", "goes-on"]).ok();
    host.assert_nothing_left();
}

#[test]
fn removing_makes_room_on_a_full_disk() {
    let host = host_with_disk(32);
    host.docker(&["run", "--name", "fat", "busybox", "sh", "-c", "head -c 8000000 /dev/zero > /fat"]).ok();
    fill(&host);
    host.docker(&["rm", "fat"]).ok();
    assert_eq!(host.run(&[], "echo room").ok(), "room");
}

#[test]
fn a_container_that_ends_on_a_full_disk_is_reported() {
    let host = host_with_disk(32);
    host.run_detached("ending", &["--tmpfs", "/tmp"], "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 17");
    let filler = fill(&host);
    let waiting = host.session(&["wait", "ending"]);
    host.docker(&["exec", "ending", "touch", "/tmp/go"]).ok();
    assert_eq!(waiting.finish().ok(), "17");
    assert_eq!(host.inspect("ending", "{{.State.Status}} {{.State.ExitCode}}"), "exited 17");
    std::fs::remove_file(filler).unwrap();
    host.docker(&["rm", "ending"]).ok();
    host.assert_nothing_left();
}
