//! A node's daemon, and what it started.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::folder::Node;
use super::links::{command_in, run};
use crate::client;

/// How long a daemon may take to answer or to end: generous, for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Starts the daemon, which outlives this process.
pub fn start(node: &Node, flags: &[String]) -> Result<()> {
    if process(node).is_some() {
        bail!("its daemon runs already");
    }
    std::fs::create_dir_all(node.dir())?;
    let log = std::fs::File::options().create(true).append(true).open(node.log())?;
    let mut command = command_in(&node.namespace());
    command
        // A host name of its own: what the cluster knows a node by.
        .args(["unshare", "--uts", "--", "sh", "-c", "hostname \"$0\" && exec \"$@\""])
        .arg(node.hostname())
        .arg(std::env::current_exe().context("cannot find this program")?)
        .arg("daemon")
        .arg("--data-root")
        .arg(node.data_root())
        .arg("--exec-root")
        .arg(node.exec_root())
        .arg("--pidfile")
        .arg(node.dir().join("skep.pid"))
        .arg("--host")
        .arg(format!("unix://{}", node.socket().display()))
        .args(flags)
        // So that what is named without a folder in its environment is this node's.
        .current_dir(node.dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // The terminal's Ctrl+C is not meant for it.
        .process_group(0);
    command.spawn().context("cannot run nsenter")?;
    Ok(())
}

/// Waits until the daemon answers.
pub fn await_ready(node: &Node) -> Result<()> {
    await_condition("its daemon does not answer; see its log", || {
        client::get(&node.client(), "/_ping").is_ok()
    })
}

fn await_condition(otherwise: &str, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            bail!("{otherwise}");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether the daemon runs, in a word.
pub fn state(node: &Node) -> &'static str {
    let Some(pid) = process(node) else { return "dead" };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('T') => "paused",
        Some(_) => "running",
        None => "dead",
    }
}

/// The daemon's process: it is told by its command line, so that nothing that was written down can be wrong.
fn process(node: &Node) -> Option<Pid> {
    let root = node.data_root();
    let ours = |directory: &Path| {
        let Ok(line) = std::fs::read(directory.join("cmdline")) else { return false };
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"daemon") && words.any(|word| word == root.as_os_str().as_encoded_bytes())
    };
    processes().find(|(_, directory)| ours(directory)).map(|(pid, _)| pid)
}

fn processes() -> impl Iterator<Item = (Pid, PathBuf)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        Some((pid, entry.path()))
    })
}

fn signal(node: &Node, signal: Signal) -> Result<()> {
    let pid = process(node).context("its daemon does not run")?;
    kill_process(pid, signal).context("its daemon cannot be signalled")
}

/// Kills the daemon; one that does not run is fine.
pub fn kill(node: &Node) -> Result<()> {
    // It may end between the look and the signal.
    let _ = signal(node, Signal::KILL);
    await_condition("its daemon does not end", || process(node).is_none())
}

/// Stops the daemon in order.
pub fn stop(node: &Node) -> Result<()> {
    signal(node, Signal::TERM)?;
    await_condition("its daemon does not end", || process(node).is_none())
}

/// Freezes the daemon.
pub fn pause(node: &Node) -> Result<()> {
    signal(node, Signal::STOP)
}

/// Lets the daemon go on.
pub fn resume(node: &Node) -> Result<()> {
    signal(node, Signal::CONT)
}

/// The words by which our binary is called for what outlives a daemon.
const OUTLIVING: [&[u8]; 3] = [b"shim", b"names", b"tunnel"];

/// Ends the containers as a power failure does, and forgets what only memory held.
pub fn lose_power(node: &Node) -> Result<()> {
    let inode = |path: PathBuf| std::fs::metadata(path).ok().map(|found| found.ino());
    let Some(network) = inode(Path::new("/run/netns").join(node.namespace())) else { return Ok(()) };
    let outlives = |directory: &Path| {
        let ours = std::fs::read(directory.join("cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).nth(1).is_some_and(|word| OUTLIVING.contains(&word))
        });
        ours && inode(directory.join("ns/net")) == Some(network)
    };
    // They live in their daemon's network; a container dies with its shim.
    let left = processes().filter(|(_, directory)| outlives(directory));
    let left: Vec<Pid> = left.map(|(pid, _)| pid).collect();
    for pid in left {
        // One that has just ended is fine.
        let _ = kill_process(pid, Signal::KILL);
    }
    unmount_below(&node.exec_root());
    remove_groups(node);
    if node.exec_root().exists() {
        std::fs::remove_dir_all(node.exec_root()).context("cannot empty its exec root")?;
    }
    Ok(())
}

/// Makes a disk for the node's data root.
pub fn make_disk(node: &Node, mebibytes: u32) -> Result<()> {
    std::fs::create_dir_all(node.data_root())?;
    let file = node.dir().join("disk");
    std::fs::File::create(&file)?.set_len(u64::from(mebibytes) << 20)?;
    run("mkfs.ext4", &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), "-F".as_ref(), file.as_os_str()])?;
    run("mount", &["-o".as_ref(), "loop".as_ref(), file.as_os_str(), node.data_root().as_os_str()])
}

/// Takes away every mount below a folder.
pub fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = mounted.filter(|at| Path::new(at).starts_with(dir)).collect();
    below.reverse();
    for mount in below {
        // What is still in use goes once it is not.
        let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Removes the control groups of containers that have ended.
fn remove_groups(node: &Node) {
    let containers = std::fs::read_dir(node.data_root().join("containers")).into_iter().flatten().flatten();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<PathBuf> =
        std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for container in containers {
        for hierarchy in hierarchies.iter().map(PathBuf::as_path).chain([root]) {
            let group = hierarchy.join("docker").join(container.file_name());
            let deadline = Instant::now() + Duration::from_secs(2);
            while group.exists() && std::fs::remove_dir(&group).is_err() && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
    }
}
