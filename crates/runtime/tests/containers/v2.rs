//! cgroup v2 alone, on a machine that has v1: these tests once more, where only v2 is mounted.
//!
//! What v1 holds here (memory, cpu, pids) v2 then lacks, so limits are left to the unit tests and to machines with v2.

use std::process::Command;

#[test]
fn containers_run_where_there_is_only_v2() {
    let script = "mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
                  exec \"$0\" --skip limits::limits --skip limits::too --skip limits::want --skip oracle --skip v2";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}
