//! What a test needs: a runtime below a folder of its own, an image, and their removal however the test ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use skep_runtime::logs::{LogQuery, LogReader, Stream};
use skep_runtime::spec::*;
use skep_runtime::{Attach, Attached, CapabilitySet, Exit, Runtime, Started, State};
use skep_types::{ContainerId, Ids};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

pub const ALL: Attach = Attach { stdin: true, stdout: true, stderr: true };

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct World {
    pub folder: tempfile::TempDir,
    pub runtime: Runtime,
    cgroup: String,
}

impl World {
    pub fn new() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        for name in ["bin", "etc", "proc", "tmp", "home/web", "data"] {
            std::fs::create_dir_all(image.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
        for applet in "sh true false echo cat ls id sleep head mount umount stat hostname unshare kill ps dd tty stty wc env \
                       mkdir touch readlink seq tail grep chroot mknod ping printf sed sort tr chmod mv wait"
            .split_whitespace()
        {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            image.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(image.join("etc/group"), "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\n").unwrap();
        std::fs::write(image.join("data/seed"), "from the image\n").unwrap();
        let runtime = World::open(folder.path());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        World { folder, runtime, cgroup: format!("skep-test-{}-{count}", std::process::id()) }
    }

    fn open(folder: &Path) -> Runtime {
        Runtime::open(&folder.join("run"), Path::new(env!("CARGO_BIN_EXE_shim-for-tests"))).unwrap()
    }

    /// What a daemon that was killed and started again has.
    pub fn reopen(&mut self) {
        self.runtime = World::open(self.folder.path());
    }

    fn container_folder(&self, id: ContainerId) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// Docker's defaults for these arguments.
    pub fn spec(&self, arguments: &[&str]) -> ContainerSpec {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let seed = u128::from(std::process::id()) << 32 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
        let id = Ids::new(seed).container();
        let folder = self.container_folder(id);
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let lower = vec![self.folder.path().join("image")];
        ContainerSpec {
            id,
            rootfs: Rootfs { lower, upper, work, read_only: false },
            process: process(arguments),
            hostname: "skep".to_owned(),
            domainname: String::new(),
            mounts: Vec::new(),
            network: NetworkNamespace::Host,
            cgroup: format!("{}/{id}", self.cgroup),
            resources: Default::default(),
            seccomp: Seccomp::Default,
            protected_paths: ProtectedPaths::Default,
            devices: Vec::new(),
            privileged: false,
            init: false,
            shm_size: 0,
            sysctls: Default::default(),
            oom_score_adj: 0,
            log: LogSpec { path: folder.join("log"), driver: LogDriver::JsonFile },
        }
    }

    /// Docker's defaults for a shell script.
    pub fn script(&self, script: &str) -> ContainerSpec {
        self.spec(&["sh", "-c", script])
    }

    pub async fn start(&self, spec: &ContainerSpec) -> Started {
        self.runtime.start(spec, Vec::new()).await.unwrap()
    }

    /// Starts with one client attached before the first byte.
    pub async fn start_attached(&self, spec: &ContainerSpec, streams: Attach) -> UnixStream {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let attached = vec![Attached { socket: theirs.into(), streams }];
        self.runtime.start(spec, attached).await.unwrap();
        ours.set_nonblocking(true).unwrap();
        UnixStream::from_std(ours).unwrap()
    }

    /// Runs to the end: how it ended, its standard output, its standard error.
    pub async fn run(&self, spec: &ContainerSpec) -> (Exit, String, String) {
        self.start(spec).await;
        let exit = self.runtime.wait(spec.id).await.unwrap();
        let (out, err) = self.log(spec).await;
        self.runtime.delete(spec.id).await.unwrap();
        assert_eq!(self.runtime.state(spec.id).await.unwrap(), State::Absent);
        (exit, out, err)
    }

    /// Standard output of a script that succeeds.
    pub async fn output(&self, spec: &ContainerSpec) -> String {
        let (exit, out, err) = self.run(spec).await;
        assert_eq!(exit.code, 0, "{out}{err}");
        out
    }

    /// What the log has.
    pub async fn log(&self, spec: &ContainerSpec) -> (String, String) {
        let query = LogQuery { stdout: true, stderr: true, ..LogQuery::default() };
        let mut reader = LogReader::open(&spec.log.path, query, None).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(line) = reader.next().await.unwrap() {
            match line.stream {
                Stream::Stdout => out.extend(line.bytes),
                Stream::Stderr => err.extend(line.bytes),
            }
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// The failure of a start, after which nothing is left.
    pub async fn refused(&self, spec: &ContainerSpec) -> (i32, String) {
        let error = self.runtime.start(spec, Vec::new()).await.unwrap_err();
        assert_eq!(self.runtime.state(spec.id).await.unwrap(), State::Absent);
        assert!(self.runtime.list().unwrap().is_empty());
        for hierarchy in hierarchies() {
            assert!(!hierarchy.join(&spec.cgroup).exists(), "{hierarchy:?}");
        }
        (error.code, error.message)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let runtime = World::open(self.folder.path());
        // A runtime of its own: the test's may be the one that is panicking.
        let cleanup = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async {
                for id in runtime.list().unwrap() {
                    runtime.delete(id).await.unwrap();
                }
            });
        });
        let cleaned = cleanup.join();
        for hierarchy in hierarchies() {
            let _ = std::fs::remove_dir(hierarchy.join(&self.cgroup));
        }
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// Where hierarchies of cgroups are mounted.
pub fn hierarchies() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = text.lines().filter(|line| line.contains(" - cgroup"));
    lines.map(|line| PathBuf::from(line.split(' ').nth(4).unwrap())).collect()
}

/// A process with Docker's defaults.
pub fn process(arguments: &[&str]) -> Process {
    Process {
        args: arguments.iter().map(|text| (*text).to_owned()).collect(),
        env: vec![PATH.to_owned()],
        capabilities: CapabilitySet::DOCKER_DEFAULT,
        ..Process::default()
    }
}

/// Everything until the end.
pub async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Takes Docker's frames apart: standard output and standard error.
pub fn split(mut bytes: &[u8]) -> (String, String) {
    let mut outputs = [Vec::new(), Vec::new()];
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
        outputs[usize::from(head[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    let [out, err] = outputs.map(|bytes| String::from_utf8(bytes).unwrap());
    (out, err)
}

/// Waits until a text arrives.
pub async fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "ended before {wanted:?}: {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}
