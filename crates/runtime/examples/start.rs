//! Measures how long a container of Docker's defaults takes to start, how long to run `true` to its end, and what memory a
//! shim needs. `cargo run --release -p skep-runtime --example start [rounds] [shims]`

use std::path::Path;
use std::time::{Duration, Instant};

use skep_runtime::spec::{
    ContainerSpec, LogDriver, LogSpec, NetworkNamespace, Process, ProtectedPaths, Rootfs, Seccomp,
};
use skep_runtime::{CapabilitySet, Runtime};
use skep_types::Ids;

/// Parent of the containers' cgroups.
const CGROUP: &str = "skep-bench";

fn spec(folder: &Path, ids: &mut Ids, arguments: &[&str]) -> std::io::Result<ContainerSpec> {
    let id = ids.container();
    let own = folder.join(id.to_string());
    let (upper, work) = (own.join("upper"), own.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    Ok(ContainerSpec {
        id,
        rootfs: Rootfs { lower: vec![folder.join("image")], upper, work, read_only: false },
        process: Process {
            args: arguments.iter().map(|text| (*text).to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            capabilities: CapabilitySet::DOCKER_DEFAULT,
            ..Process::default()
        },
        hostname: "bench".to_owned(),
        domainname: String::new(),
        mounts: Vec::new(),
        network: NetworkNamespace::Host,
        cgroup: format!("{CGROUP}/{id}"),
        resources: Default::default(),
        seccomp: Seccomp::Default,
        protected_paths: ProtectedPaths::Default,
        devices: Vec::new(),
        privileged: false,
        init: false,
        shm_size: 0,
        sysctls: Default::default(),
        oom_score_adj: 0,
        log: LogSpec { path: own.join("log"), driver: LogDriver::JsonFile },
    })
}

/// The median, and the fastest tenth's slowest: what the machine takes when nobody else wants it.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("median {:?}, fastest tenth {:?}", times[times.len() / 2], times[times.len() / 10])
}

/// A field of /proc/<pid>/smaps_rollup in kB.
fn memory(pid: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if first.as_deref().is_some_and(|first| first == "shim") {
        skep_runtime::shim_main(&arguments.collect::<Vec<_>>());
    }
    let number = |text: Option<std::ffi::OsString>, default| {
        text.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(default)
    };
    let (rounds, shims) = (number(first, 200), number(arguments.next(), 50));
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tokio.block_on(measure(rounds, shims))
}

async fn measure(rounds: usize, shims: usize) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let image = folder.path().join("image");
    std::fs::create_dir_all(image.join("bin"))?;
    std::fs::copy("/bin/busybox", image.join("bin/busybox"))?;
    for applet in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet))?;
    }
    let runtime = Runtime::open(&folder.path().join("run"), &std::env::current_exe()?)?;
    let mut ids = Ids::new(u128::from(std::process::id()));
    let (mut starts, mut runs, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let spec = spec(folder.path(), &mut ids, &["true"])?;
        let begin = Instant::now();
        runtime.start(&spec, Vec::new()).await?;
        starts.push(begin.elapsed());
        runtime.wait(spec.id).await?;
        runs.push(begin.elapsed());
        let begin = Instant::now();
        runtime.delete(spec.id).await?;
        deletes.push(begin.elapsed());
    }
    println!("start   {}", summary(starts));
    println!("run     {}", summary(runs));
    println!("delete  {}", summary(deletes));
    let (mut running, mut parents) = (Vec::new(), Vec::new());
    for _ in 0..shims {
        let spec = spec(folder.path(), &mut ids, &["sleep", "1000"])?;
        let started = runtime.start(&spec, Vec::new()).await?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid))?;
        parents.extend(
            status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|pid| pid.trim().to_owned()),
        );
        running.push(spec.id);
    }
    for field in ["Pss:", "Private_Dirty:", "Rss:"] {
        let sum: u64 = parents.iter().map(|pid| memory(pid, field)).sum();
        println!("{field:<15} {} kB a shim of {shims}", sum / shims.max(1) as u64);
    }
    for id in running {
        runtime.delete(id).await?;
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")? {
        // One that was never used has none.
        let _ = std::fs::remove_dir(hierarchy?.path().join(CGROUP));
    }
    Ok(())
}
