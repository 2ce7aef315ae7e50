//! Several machines: a `skep lab`, driven with the stock client.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Output, binary, eventually, finish, host, http, image_archive};

/// The file in a node's folder that says how far its clock is off.
const CLOCK: &str = "clock";
/// How far a clock may be off what was set, in seconds: asking takes its time.
const CLOCK_SLACK: i64 = 30;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cluster on machines that are network namespaces. Dropping it removes everything that it made.
pub struct Lab {
    name: String,
    folder: tempfile::TempDir,
    nodes: u16,
    /// The library through which the daemons see a clock of their own, if they do.
    clocks: Option<PathBuf>,
}

impl Lab {
    /// A cluster of so many managers, the first nodes, and workers; every node has the images.
    #[track_caller]
    pub fn up(managers: u16, workers: u16, images: &[&str]) -> Lab {
        Lab::make(managers, workers, images, &[], None)
    }

    /// As [`Lab::up`], with more options of `skep lab up`.
    #[track_caller]
    pub fn with_flags(managers: u16, workers: u16, images: &[&str], flags: &[&str]) -> Lab {
        Lab::make(managers, workers, images, flags, None)
    }

    /// Machines that are in no cluster yet.
    #[track_caller]
    pub fn machines(count: u16, images: &[&str]) -> Lab {
        Lab::make(count, 0, images, &["--no-swarm"], None)
    }

    /// As [`Lab::up`], where each node's data is on a disk of its own of so many MiB.
    #[track_caller]
    pub fn with_disks(managers: u16, workers: u16, images: &[&str], mebibytes: u32) -> Lab {
        Lab::make(managers, workers, images, &["--disk", &mebibytes.to_string()], None)
    }

    /// As [`Lab::with_disks`], where each node has a clock of its own, set with [`Lab::set_clock`]. The library is
    /// libfaketime's, which a program that is one static file does not load: see [`crate::faults`].
    #[track_caller]
    pub fn with_clocks(managers: u16, workers: u16, images: &[&str], mebibytes: u32, library: &Path) -> Lab {
        let disk = ["--disk", &mebibytes.to_string()];
        Lab::make(managers, workers, images, &disk, Some(library.to_owned()))
    }

    /// Sets a node's clock so many seconds ahead of this machine's, or behind it; waits until its daemon says so.
    ///
    /// # Errors
    /// When the daemon does not take the time over.
    pub fn set_clock(&self, node: u16, ahead: i64) -> Result<(), String> {
        self.write_clock(node, ahead)?;
        self.await_clock(node, ahead)
    }

    /// Sets all clocks at once.
    ///
    /// # Errors
    /// When a daemon does not take the time over.
    pub fn set_clocks(&self, ahead: i64) -> Result<(), String> {
        self.nodes().try_for_each(|node| self.write_clock(node, ahead))?;
        self.nodes().try_for_each(|node| self.await_clock(node, ahead))
    }

    fn write_clock(&self, node: u16, ahead: i64) -> Result<(), String> {
        let path = self.folder(node).join(CLOCK);
        std::fs::write(&path, format!("{ahead:+}")).map_err(|error| error.to_string())
    }

    fn await_clock(&self, node: u16, ahead: i64) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let off = self.clock(node)? - ahead;
            if off.abs() < CLOCK_SLACK {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("the clock of node {node} is {off} s off what was set"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many seconds a node's clock is ahead of this machine's, by its daemon's own word.
    fn clock(&self, node: u16) -> Result<i64, String> {
        let told = self.docker(node, &["info", "--format", "{{.SystemTime}}"]);
        let seconds = |argument: &str| -> Result<i64, String> {
            let date = Command::new("date").args(["--date", argument, "+%s"]).output();
            let date = date.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&date.stdout).trim().to_owned();
            text.parse().map_err(|_| format!("{argument} is no time"))
        };
        Ok(seconds(told.stdout.trim())? - seconds("now")?)
    }

    /// Leaves no room on a node's disk, until the result is dropped. The node needs a disk of its own.
    pub fn fill_disk(&self, node: u16) -> Ballast {
        let path = self.folder(node).join("data/ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![0; 1 << 16];
        // To the last byte: what fits no more says so.
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        Ballast(path)
    }

    #[track_caller]
    fn make(managers: u16, workers: u16, images: &[&str], options: &[&str], clocks: Option<PathBuf>) -> Lab {
        let name = format!("c{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix("skep-lab-").tempdir().unwrap();
        let lab = Lab { name, folder, nodes: managers + workers, clocks };
        let (managers, workers) = (managers.to_string(), workers.to_string());
        let mut words: Vec<String> =
            ["up", "--managers", &managers, "--workers", &workers, "--daemon-flag=--debug"]
                .iter()
                .chain(options)
                .map(|word| (*word).to_owned())
                .collect();
        for image in images {
            words.extend(["--load".to_owned(), image_archive(image).display().to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        lab.run(&words).ok();
        lab
    }

    /// `skep lab ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        finish(command, &format!("skep lab {}", arguments.join(" ")), b"")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.args(["lab", "--name", &self.name]).arg("--dir").arg(self.folder.path());
        command.env("DOCKER_CONFIG", self.folder.path().join("client")).env("DOCKER_BUILDKIT", "0");
        if let Some(library) = &self.clocks {
            command
                .env("LD_PRELOAD", library)
                // A daemon runs in its node's folder.
                .env("FAKETIME_TIMESTAMP_FILE", CLOCK)
                .env("FAKETIME_CACHE_DURATION", "1")
                // Only what people set: delays and disks go by other clocks.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
        }
        command
    }

    /// The stock client with a node's daemon.
    pub fn docker(&self, node: u16, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.arg("docker").arg(node.to_string()).arg("--").args(arguments);
        finish(command, &format!("[{node}] docker {}", arguments.join(" ")), b"")
    }

    /// `skep ARGUMENTS` with a node's daemon.
    pub fn skep(&self, node: u16, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        let host = format!("unix://{}", self.folder(node).join("docker.sock").display());
        command.env("DOCKER_HOST", host).args(arguments);
        finish(command, &format!("[{node}] skep {}", arguments.join(" ")), b"")
    }

    /// Any request on a node's API, with a JSON body.
    ///
    /// # Errors
    /// When there is no answer within ten seconds.
    pub fn api(&self, node: u16, method: &str, path: &str, body: &str) -> Result<http::Answer, String> {
        let socket = self.folder(node).join("docker.sock");
        let mut stream = UnixStream::connect(socket).map_err(|error| format!("connecting: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
        http::request(&mut stream, method, path, body)
    }

    /// The address of a node; of the machine outside for 0.
    pub fn address(&self, node: u16) -> Ipv4Addr {
        let last = if node == 0 { 254 } else { u8::try_from(node).unwrap() };
        Ipv4Addr::new(192, 0, 2, last)
    }

    /// The nodes' numbers.
    pub fn nodes(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    /// The name of a node's network namespace.
    pub fn namespace(&self, node: u16) -> String {
        if node == 0 { format!("skep-{}", self.name) } else { format!("skep-{}-{node}", self.name) }
    }

    /// A node's folder.
    pub fn folder(&self, node: u16) -> PathBuf {
        self.folder.path().join(&self.name).join(node.to_string())
    }

    /// What a node's daemons wrote.
    pub fn log(&self, node: u16) -> String {
        std::fs::read_to_string(self.folder(node).join("daemon.log")).unwrap_or_default()
    }

    /// Runs `work` on a thread in a node's network.
    pub fn inside<T: Send>(&self, node: u16, work: impl FnOnce() -> T + Send) -> T {
        host::in_namespace(&self.namespace(node), work)
    }

    /// The body that a node's port answers to the machine outside.
    ///
    /// # Errors
    /// When there is no answer of status 200.
    pub fn fetch(&self, node: u16, port: u16) -> Result<String, String> {
        let address = SocketAddr::new(IpAddr::V4(self.address(node)), port);
        self.inside(0, || http::fetch(address))
    }

    /// Waits until `docker ARGUMENTS` on a node succeeds and its output satisfies `wanted`; returns it.
    #[track_caller]
    pub fn until(
        &self,
        node: u16,
        what: &str,
        limit: Duration,
        arguments: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        eventually(what, limit, || {
            let printed = self.docker(node, arguments);
            if printed.code == 0 && wanted(printed.stdout.trim_end()) {
                Ok(printed.stdout.trim_end().to_owned())
            } else {
                Err(printed.to_string())
            }
        })
    }

    /// Waits until a service has `replicas` of them, as `n/m`.
    #[track_caller]
    pub fn until_replicas(&self, node: u16, service: &str, replicas: &str, limit: Duration) {
        let filter = format!("name={service}");
        let arguments = ["service", "ls", "--filter", &filter, "--format", "{{.Replicas}}"];
        self.until(node, &format!("{service} has {replicas}"), limit, &arguments, |shown| shown == replicas);
    }

    /// The join token of a role, as a manager tells it.
    #[track_caller]
    pub fn token(&self, manager: u16, role: &str) -> String {
        self.docker(manager, &["swarm", "join-token", "--quiet", role]).ok()
    }
}

/// A file that leaves no room on its disk.
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.nodes() {
                let log = self.log(node);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- node {node}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
        let down = self.run(&["down"]);
        if down.code != 0 && !std::thread::panicking() {
            panic!("{down}");
        }
    }
}
