//! An engine in a temporary folder, and what the tests ask of it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use skep_engine::options::{AttachOptions, LogQuery, RemoveOptions, WaitCondition, WaitResult};
use skep_engine::view::Status;
use skep_engine::{Engine, EngineConfig};
use skep_types::ContainerId;
use skep_types::container::ContainerConfig;
use tokio::io::AsyncReadExt as _;

/// What must have happened by then has not.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tests that run so far: names bridges and subnets apart.
static HOUSES: AtomicU8 = AtomicU8::new(1);

/// A machine for one test.
pub struct House {
    dir: tempfile::TempDir,
    number: u8,
    pub engine: Engine,
}

impl House {
    /// An engine with the image `busybox`.
    pub async fn new() -> House {
        House::prepared(|_| {}).await
    }

    /// As [`House::new`], its folder prepared first.
    pub async fn prepared(prepare: impl FnOnce(&Path)) -> House {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let number = HOUSES.fetch_add(1, Ordering::Relaxed);
        let engine = Engine::open(config(dir.path(), number)).await.unwrap();
        let import = skep_engine::images::Import {
            reference: Some("busybox".parse().unwrap()),
            config: image_config(),
            ..Default::default()
        };
        engine.import_image(std::io::Cursor::new(busybox()), import).await.unwrap();
        House { dir, number, engine }
    }

    /// Ends the engine and opens another in its place; `meanwhile` happens between.
    pub async fn reopen(self, meanwhile: impl AsyncFnOnce(&Path)) -> House {
        let House { dir, number, engine } = self;
        engine.shutdown().await;
        drop(engine);
        meanwhile(dir.path()).await;
        let engine = Engine::open(config(dir.path(), number)).await.unwrap();
        House { dir, number, engine }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, self.number, 1)
    }

    /// Creates and starts a container.
    pub async fn start(&self, config: ContainerConfig) -> ContainerId {
        let id = self.engine.create(None, config).await.unwrap().id;
        self.engine.start(&id.to_string()).await.unwrap();
        id
    }

    /// Runs a container to its end: its exit code and everything that it wrote, both streams together.
    pub async fn run(&self, config: ContainerConfig) -> (i32, String) {
        let id = self.engine.create(None, config).await.unwrap().id.to_string();
        let output = self.attach(&id).await;
        let end = self.engine.wait(&id, WaitCondition::NextExit).await.unwrap();
        self.engine.start(&id).await.unwrap();
        let (output, end) = (within(output).await, within(end).await);
        self.engine.remove(&id, RemoveOptions { force: false, volumes: true }).await.unwrap();
        (end.code, output)
    }

    /// Attaches to the output of a container; the future ends with it.
    pub async fn attach(&self, id: &str) -> impl Future<Output = String> + use<> {
        let options = AttachOptions { stdout: true, stderr: true, stream: true, ..Default::default() };
        let (tty, mut stream) = self.engine.attach(id, options).await.unwrap();
        async move {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            if tty { String::from_utf8(bytes).unwrap() } else { unframe(&bytes) }
        }
    }

    pub async fn ended(&self, id: ContainerId) -> WaitResult {
        within(self.engine.wait(&id.to_string(), WaitCondition::NotRunning).await.unwrap()).await
    }

    pub fn status(&self, id: ContainerId) -> Status {
        self.engine.inspect(&id.to_string()).unwrap().state.status
    }

    /// The log, both streams together.
    pub async fn logs(&self, id: ContainerId) -> String {
        let query =
            LogQuery { stdout: true, stderr: true, since: None, until: None, tail: None, follow: false };
        let (_, mut log) = self.engine.logs(&id.to_string(), query).await.unwrap();
        let mut text = String::new();
        while let Some(line) = log.next().await.unwrap() {
            text.push_str(&String::from_utf8_lossy(&line.bytes));
        }
        text
    }

    /// Removes all containers, then looks for what they may have left.
    pub async fn close(self) {
        self.close_and(|| {}).await;
    }

    /// As [`House::close`]; `last` happens after the engine's end.
    pub async fn close_and(self, last: impl FnOnce()) {
        let all = skep_engine::options::ContainerFilter { all: true, ..Default::default() };
        let ids: Vec<_> =
            self.engine.list(&all).await.unwrap().into_iter().map(|container| container.id).collect();
        for id in &ids {
            let options = RemoveOptions { force: true, volumes: true };
            self.engine.remove(&id.to_string(), options).await.unwrap();
        }
        self.assert_nothing_left();
        // One folder a hierarchy on cgroup v1, the root itself on v2.
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
            let docker = hierarchy.join("docker");
            assert!(
                !ids.iter().any(|id| docker.join(id.to_string()).exists()),
                "cgroups in {}",
                docker.display()
            );
        }
        self.engine.shutdown().await;
        last();
    }

    /// No container's mounts, namespaces, interfaces, folders or cgroups.
    pub fn assert_nothing_left(&self) {
        let root = self.root().to_str().unwrap().to_owned();
        let names = |path: PathBuf| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(self.root().join("data/containers")), [""; 0], "folders");
        assert_eq!(names(self.root().join("run/netns")), [""; 0], "network namespaces");
        assert_eq!(names(self.root().join("run/containers")), [""; 0], "shims");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(&root) && line.contains("netns"));
        assert_eq!(ours.collect::<Vec<_>>(), [""; 0], "mounts");
        let bridge = format!("skt{}", self.number);
        assert_eq!(names(format!("/sys/class/net/{bridge}/brif").into()), [""; 0], "interfaces");
    }
}

fn config(dir: &Path, number: u8) -> EngineConfig {
    let executable = std::env::current_exe().unwrap();
    EngineConfig {
        instance: format!("test{number}"),
        bridge: format!("skt{number}"),
        bip: Some((Ipv4Addr::new(10, 99, number, 1), 24)),
        ..EngineConfig::new(dir.join("data"), dir.join("run"), executable)
    }
}

fn image_config() -> skep_engine::images::ImageConfig {
    skep_engine::images::ImageConfig {
        cmd: Some(vec!["sh".to_owned()]),
        env: vec!["PATH=/bin".to_owned(), "FROM=image".to_owned()],
        volumes: ["/seeded".to_owned()].into(),
        ..Default::default()
    }
}

/// A root file system: busybox under the names that the tests use, users, and a folder for volumes.
fn busybox() -> Vec<u8> {
    let names =
        ["sh", "cat", "echo", "sleep", "true", "id", "ls", "ip", "httpd", "wget", "hostname", "mkdir"];
    skep_testkit::Rootfs::busybox(&names)
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n")
        .file("etc/noexec", 0o644, b"")
        .folder("seeded")
        .folder("seeded/sub")
        .file("seeded/file", 0o640, b"seed\n")
        .link("seeded/sub/link", "../file")
        .finish()
}

/// A container that runs a shell script.
pub fn script(text: &str) -> ContainerConfig {
    ContainerConfig { cmd: Some(["sh", "-c", text].map(str::to_owned).to_vec()), ..command(&[]) }
}

/// A container that runs a program.
pub fn command(words: &[&str]) -> ContainerConfig {
    ContainerConfig {
        image: "busybox".to_owned(),
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        ..ContainerConfig::default()
    }
}

/// What Docker's frames carry.
pub fn unframe(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some((header, rest)) = bytes.split_at_checked(8) {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        text.push_str(std::str::from_utf8(&rest[..length]).unwrap());
        bytes = &rest[length..];
    }
    text
}

/// Waits for something that must come.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Waits until something holds that nothing announces.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come true in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process lives; a zombie does not.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
