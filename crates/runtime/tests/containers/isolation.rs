//! What a container sees, and what it may do.

use skep_runtime::spec::{Mount, MountKind, NetworkNamespace, ProtectedPaths, Seccomp};
use skep_runtime::{Capability, CapabilitySet};
use skep_types::mount::Propagation;

use crate::world::{ALL, World, process, read_all, split};

fn bind(source: &std::path::Path, target: &str) -> Mount {
    let kind = MountKind::Bind { source: source.into(), propagation: Propagation::Rprivate, populate: false };
    Mount { target: target.into(), kind, read_only: false }
}

#[tokio::test]
async fn only_three_descriptors_and_no_signal_blocked() {
    let world = World::new();
    for init in [false, true] {
        let mut spec = world.script(
            "ls -l /proc/self/fd | grep -v total; cat /proc/self/status; cat /proc/self/oom_score_adj",
        );
        spec.init = init;
        let out = world.output(&spec).await;
        assert_eq!(out.matches(" -> ").count(), 3, "{out}");
        assert!(
            out.contains("SigBlk:\t0000000000000000") && out.contains("SigIgn:\t0000000000000000"),
            "{out}"
        );
        assert!(out.ends_with("\n0\n"), "{out}");
        assert!(out.contains("Umask:\t0022"), "{out}");
    }
}

#[tokio::test]
async fn capabilities_and_filter_are_docker_s() {
    let world = World::new();
    let status = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";
    let out = world.output(&world.script(status)).await;
    assert_eq!(
        out,
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
    let mut spec = world.script(status);
    (spec.process.user, spec.process.no_new_privileges) = ("web".to_owned(), true);
    let out = world.output(&spec).await;
    assert_eq!(
        out,
        "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    let mut spec = world.script(status);
    spec.process.capabilities = CapabilitySet::of(&[Capability::NET_ADMIN]);
    spec.seccomp = Seccomp::Unconfined;
    let out = world.output(&spec).await;
    assert!(out.contains("CapEff:\t0000000000001000") && out.contains("Seccomp:\t0"), "{out}");
    let mut spec = world.script(status);
    spec.process.capabilities = CapabilitySet::ALL;
    let out = world.output(&spec).await;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    assert!(out.contains(own) && out.contains("Seccomp:\t2"), "{out}");
}

#[tokio::test]
async fn forbidden_calls_fail() {
    let world = World::new();
    for script in [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs none /tmp",
        "umount /proc/kcore",
        "hostname other",
        "chroot /tmp /bin/true",
        "mount -o remount,rw /proc/sys",
        "echo 1 > /proc/sys/kernel/domainname",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/uevent_seqnum",
        "mkdir /sys/fs/cgroup/memory/x",
    ] {
        let (exit, out, err) = world.run(&world.script(script)).await;
        assert_ne!(exit.code, 0, "{script}: {out}{err}");
    }
    // The capability alone does not open what the filter closes to those without it, and does to those with.
    let mut spec = world.script("mount -t tmpfs none /tmp && unshare -m true && echo fine");
    spec.process.capabilities.insert(Capability::SYS_ADMIN);
    assert_eq!(world.output(&spec).await, "fine\n");
}

#[tokio::test]
async fn masked_and_read_only_paths_are_docker_s() {
    let world = World::new();
    let script = "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | wc -w; \
                  for p in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger /sys; do grep -q \" $p [a-z]* ro,\" /proc/mounts && echo $p; done";
    let out = world.output(&world.script(script)).await;
    // A kernel may be built without some.
    let paths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"];
    let present: Vec<_> = paths.into_iter().filter(|path| std::path::Path::new(path).exists()).collect();
    assert_eq!(out, format!("0\n0\n{}\n", present.join("\n")));
    let mut spec = world.script("cat /proc/interrupts | wc -l");
    spec.protected_paths = ProtectedPaths::None;
    assert_ne!(world.output(&spec).await, "0\n");
}

#[tokio::test]
async fn the_root_is_layered_and_private() {
    let world = World::new();
    let top = world.folder.path().join("top");
    std::fs::create_dir_all(top.join("data")).unwrap();
    std::fs::write(top.join("data/more"), "from the top\n").unwrap();
    let mut spec =
        world.script("cat /data/seed /data/more; echo new > /data/mine; readlink /proc/1/root; hostname");
    spec.rootfs.lower.insert(0, top.clone());
    let out = world.output(&spec).await;
    assert_eq!(out, "from the image\nfrom the top\n/\nskep\n");
    assert!(spec.rootfs.upper.join("data/mine").exists() && !top.join("data/mine").exists());
    // Nothing of it is in the host's mounts.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.folder.path().to_str().unwrap()), "{mounts}");
}

#[tokio::test]
async fn a_hundred_layers_fit() {
    let world = World::new();
    let mut spec = world.script("ls /many | wc -l");
    for number in 0..100 {
        let layer = world.folder.path().join(format!("layers/{number}-{}", "x".repeat(64)));
        std::fs::create_dir_all(layer.join("many").join(number.to_string())).unwrap();
        spec.rootfs.lower.insert(0, layer);
    }
    assert_eq!(world.output(&spec).await, "100\n");
}

#[tokio::test]
async fn a_read_only_root_refuses_and_its_mounts_do_not() {
    let world = World::new();
    let mut spec = world.script("touch /x; touch /dev/shm/x /made/for/it/x && echo fine; pwd");
    spec.rootfs.read_only = true;
    spec.process.cwd = "/work/here".to_owned();
    spec.mounts.push(Mount {
        target: "/made/for/it".into(),
        kind: MountKind::Tmpfs { size_bytes: 1 << 20, mode: 0 },
        read_only: false,
    });
    let (exit, out, err) = world.run(&spec).await;
    assert_eq!((exit.code, out.as_str()), (0, "fine\n/work/here\n"), "{err}");
    assert!(err.contains("Read-only file system"), "{err}");
}

#[tokio::test]
async fn binds_show_files_and_folders() {
    let world = World::new();
    let host = world.folder.path().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "content\n").unwrap();
    let mut spec = world.script(
        "cat /etc/new/file /srv/file; echo more > /srv/sub/made; touch /ro/x; touch /ro/sub/x; cat /etc/passwd",
    );
    let mut read_only = bind(&host, "/ro");
    read_only.read_only = true;
    spec.mounts = vec![
        bind(&host, "/srv"),
        read_only,
        bind(&host.join("file"), "/etc/new/file"),
        bind(&host.join("file"), "/etc/passwd"),
    ];
    let (_, out, err) = world.run(&spec).await;
    assert_eq!(out, "content\ncontent\ncontent\n", "{err}");
    assert_eq!(err.matches("Read-only file system").count(), 2, "{err}");
    assert!(host.join("sub/made").exists());
    assert!(!host.join("sub/x").exists());
}

#[tokio::test]
async fn a_new_volume_receives_what_the_image_has() {
    let world = World::new();
    let image = world.folder.path().join("image/data");
    std::os::unix::fs::symlink("seed", image.join("link")).unwrap();
    std::fs::create_dir_all(image.join("deep/er")).unwrap();
    std::os::unix::fs::chown(image.join("deep"), Some(1000), Some(1001)).unwrap();
    let volume = world.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut mount = bind(&volume, "/data");
    let MountKind::Bind { populate, .. } = &mut mount.kind else { unreachable!() };
    *populate = true;
    let mut spec = world.script("cat /data/link; stat -c %u:%g /data/deep; echo kept > /data/seed");
    spec.mounts = vec![mount];
    assert_eq!(world.output(&spec).await, "from the image\n1000:1001\n");
    assert_eq!(std::fs::read_to_string(volume.join("seed")).unwrap(), "kept\n");
    // One that holds something is left alone.
    let mut again = world.script("cat /data/seed; ls /data");
    again.mounts = spec.mounts.clone();
    assert_eq!(world.output(&again).await, "kept\ndeep\nlink\nseed\n");
}

#[tokio::test]
async fn links_of_an_image_lead_nowhere_outside() {
    let world = World::new();
    let victim = world.folder.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let image = world.folder.path().join("image");
    std::os::unix::fs::symlink(&victim, image.join("escape")).unwrap();
    std::os::unix::fs::symlink("../../../../../../..", image.join("up")).unwrap();
    let host = world.folder.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("inside"), "").unwrap();
    let mut spec = world.script("ls /tmp/x");
    spec.mounts = vec![bind(&host, "/up/tmp/x")];
    assert_eq!(world.output(&spec).await, "inside\n");
    // An absolute link is read from the container's root, where nothing of that name is.
    let mut spec = world.script("true");
    spec.mounts = vec![bind(&host, "/escape/made")];
    let (code, message) = world.refused(&spec).await;
    assert!(code >= 125, "{message}");
    assert!(std::fs::read_dir(&victim).unwrap().next().is_none());
    let mut spec = world.script("true");
    spec.mounts = vec![bind(&host, "/etc/passwd")];
    let (code, message) = world.refused(&spec).await;
    assert_eq!(code, 127);
    assert!(
        message.contains("not a directory")
            && message.contains("Are you trying to mount a directory onto a file")
    );
    let mut spec = world.script("true");
    spec.mounts = vec![bind(&host, "/proc/fs")];
    assert!(world.refused(&spec).await.1.contains("inside /proc"));
}

#[tokio::test]
async fn an_image_cannot_move_proc_elsewhere() {
    let world = World::new();
    let image = world.folder.path().join("image");
    std::fs::remove_dir(image.join("proc")).unwrap();
    std::os::unix::fs::symlink("etc", image.join("proc")).unwrap();
    let (_, message) = world.refused(&world.spec(&["true"])).await;
    assert!(message.contains("\"/proc\": must be mounted on ordinary directory"), "{message}");
}

#[tokio::test]
async fn a_folder_outside_is_no_working_directory() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    for number in 3..16 {
        let mut process = process(&["true"]);
        process.cwd = format!("/proc/self/fd/{number}");
        let error = world.runtime.exec(spec.id, "x", &process, &spec.seccomp, ALL).await.unwrap_err();
        assert!(
            error.message.contains("chdir to cwd") || error.message.contains("outside of container"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn users_are_resolved_inside() {
    let world = World::new();
    for (user, expected) in [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root\n"),
        ("web", "uid=1000(web) gid=1001(web) groups=10(wheel),1001(web)\n/home/web\n"),
        ("1000:10", "uid=1000(web) gid=10(wheel) groups=10(wheel)\n/home/web\n"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)\n/\n"),
    ] {
        let mut spec = world.script("id; echo $HOME; echo again > /dev/stderr");
        spec.process.user = user.to_owned();
        let (_, out, err) = world.run(&spec).await;
        assert_eq!((out.as_str(), err.as_str()), (expected, "again\n"), "{user}");
    }
    let mut spec = world.script("id -G");
    spec.process.groups = vec!["wheel".to_owned(), "77".to_owned()];
    spec.process.user = "4242:5".to_owned();
    assert_eq!(world.output(&spec).await, "5 10 77\n");
}

#[tokio::test]
async fn namespaces_are_new_and_the_network_is_the_given_one() {
    let world = World::new();
    let mut holder = std::process::Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    // unshare(1) takes a moment; the link says when it is done.
    while std::fs::read_link(&path).is_ok_and(|link| link == host) {
        tokio::task::yield_now().await;
    }
    let theirs = std::fs::read_link(&path).unwrap();
    let script = "for n in mnt pid ipc uts net; do readlink /proc/self/ns/$n; done; echo $$; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range; ls /sys/class/net; cat /proc/sys/kernel/shm_rmid_forced";
    let mut spec = world.script(script);
    spec.network = NetworkNamespace::Path(path.into());
    spec.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    let (exit, out, err) = world.run(&spec).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(exit.code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    for (name, line) in ["mnt", "pid", "ipc", "uts"].iter().zip(&lines) {
        assert_ne!(std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap(), *line);
    }
    assert_eq!(lines[4], theirs.to_str().unwrap());
    assert_eq!(lines[5..], ["1", "0", "0\t2147483647", "lo", "1"]);
}

#[tokio::test]
async fn the_executable_cannot_be_written_through_proc() {
    let world = World::new();
    let mut spec =
        world.script("ls -l /proc/1/exe; cat /proc/1/exe | head -c 4; echo x >> /proc/1/exe; echo $?");
    spec.init = true;
    spec.process.capabilities = CapabilitySet::ALL;
    spec.seccomp = Seccomp::Unconfined;
    let mut client = world.start_attached(&spec, ALL).await;
    let (out, err) = split(&read_all(&mut client).await);
    assert!(out.ends_with("1\n"), "{out}");
    assert!(err.contains("Read-only file system") || err.contains("Text file busy"), "{err}");
}

#[tokio::test]
async fn devices_and_links_are_there() {
    let world = World::new();
    let script = "cd /dev; ls | busybox xargs echo; stat -c '%a %F %t:%T' null zero full random urandom tty; readlink fd; readlink stdin; readlink ptmx; grep -c shm /proc/mounts";
    let out = world.output(&world.script(script)).await;
    // A link to /proc/kcore is there where that is.
    let out = out.trim_start_matches("core ");
    assert!(
        out.starts_with("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n"),
        "{out}"
    );
    assert_eq!(out.matches("666 character special file").count(), 6, "{out}");
    assert!(out.ends_with("/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n1\n"), "{out}");
}
