//! `skep daemon`: opens everything in order, serves until told to stop, closes in reverse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use skep_api::{Daemon, Settings};
use skep_engine::{Engine, EngineConfig};
use skep_swarm::{Swarm, SwarmConfig};
use skep_types::node::NodeDescription;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, Reloadable};
use crate::{COMMIT, VERSION, listen, lock, logging};

/// The daemon waits for sockets and files; two threads do.
const WORKER_THREADS: usize = 2;
/// Threads for what blocks: image archives, fsync, netlink.
const MAX_BLOCKING_THREADS: usize = 32;
/// Idle blocking threads are given back soon: each one is memory.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// What is still running on a blocking thread then is left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the daemon until a signal ends it.
pub fn main(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = Config::load(matches)?;
    if matches.get_flag("validate") {
        println!("configuration OK");
        return Ok(());
    }
    logging::start(&config.reloadable);
    for (option, why) in &config.meaningless {
        tracing::info!("option --{option} is accepted and does nothing: {why}");
    }
    // As dockerd, whatever the service manager says: modes of what containers see must be those that are asked for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let open_files = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(run(config, matches, open_files));
    runtime.shutdown_timeout(STOP_TIMEOUT);
    result
}

async fn run(config: Config, matches: &ArgMatches, open_files: Rlimit) -> anyhow::Result<()> {
    // First, so that a signal from now on stops the daemon in good order.
    let signals = Signals::new()?;
    let _hold = lock::hold(&config.data_root)?;
    lock::make_folder(&config.exec_root, 0o711)?;
    // Two daemons on one exec root would take each other's containers for remains, and kill them.
    let _exec_hold = lock::hold_made(&config.exec_root, "exec root")?;
    let _pid_file = lock::PidFile::write(config.pid_file.clone())?;
    // Clients may connect from here on; they are answered once everything is open.
    let sockets = listen::open(&config)?;
    let engine = Engine::open(engine_config(&config, open_files)?).await.context("opening the engine")?;
    let swarm = open_swarm(&config, &engine).await?;
    let daemon =
        Arc::new(Daemon::new(VERSION, COMMIT, config.data_root.clone(), settings(&config.reloadable)));
    tracing::info!("Daemon has completed initialization");
    for host in &config.hosts {
        tracing::info!("API listen on {}", host.trim_start_matches("unix://"));
    }
    let stop = signals.until_stop(|| reload(matches, &daemon, &engine));
    skep_api::serve(sockets.listeners, engine.clone(), swarm.clone(), Arc::clone(&daemon), stop).await;
    drop(sockets.files);
    swarm.shutdown().await;
    engine.shutdown().await;
    tracing::info!("Daemon shutdown complete");
    Ok(())
}

fn engine_config(config: &Config, open_files: Rlimit) -> anyhow::Result<EngineConfig> {
    let executable = std::env::current_exe().context("finding our own program")?;
    let mut engine = EngineConfig::new(config.data_root.clone(), config.exec_root.clone(), executable);
    engine.instance = config.instance();
    engine.bip = config.bip;
    engine.default_host_ip = config.ip;
    engine.init = config.init;
    let unlimited = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    engine.open_files = Some((unlimited(open_files.current), unlimited(open_files.maximum)));
    engine.dns = config.dns.clone();
    engine.dns_search = config.dns_search.clone();
    engine.dns_options = config.dns_options.clone();
    engine.labels = config.reloadable.labels.clone();
    engine.registries = config.registries.clone();
    if let Some(bridge) = &config.bridge {
        engine.bridge.clone_from(bridge);
    }
    if let Some(mtu) = config.mtu {
        engine.mtu = mtu;
    }
    if !config.pools.is_empty() {
        engine.default_pools.clone_from(&config.pools);
    }
    Ok(engine)
}

async fn open_swarm(config: &Config, engine: &Engine) -> anyhow::Result<Swarm> {
    let info = engine.info().await;
    let labels = config.reloadable.labels.iter().filter_map(|label| label.split_once('='));
    let description = NodeDescription {
        hostname: info.hostname,
        architecture: info.architecture,
        os: "linux".to_owned(),
        nano_cpus: i64::try_from(info.cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000),
        memory_bytes: i64::try_from(info.memory_total).unwrap_or(i64::MAX),
        engine_version: VERSION.to_owned(),
        engine_labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        tunnel_key: Some(
            engine.tunnel_key().await.context("reading this node's key for encrypted networks")?,
        ),
        generic: config.generic.clone(),
        plugins: skep_api::plugins(),
        tls: Default::default(),
    };
    let swarm = SwarmConfig {
        dir: config.data_root.join("swarm"),
        default_advertise_addr: config.advertise.clone(),
        description,
    };
    Swarm::open(swarm, engine.clone()).await.context("opening the swarm's state")
}

fn settings(reloadable: &Reloadable) -> Settings {
    Settings { labels: reloadable.labels.clone(), debug: reloadable.debug }
}

/// Reads the configuration again. A wrong one changes nothing, as with dockerd.
fn reload(matches: &ArgMatches, daemon: &Daemon, engine: &Engine) {
    match Config::load(matches) {
        Ok(config) => {
            logging::reload(&config.reloadable);
            daemon.reload(settings(&config.reloadable));
            engine.tell_reload(&config.reloadable.labels, config.reloadable.debug);
            tracing::info!("Reloaded configuration: labels and log level; the rest takes a restart");
        }
        Err(error) => tracing::error!("Error reconfiguring the daemon: {error:#}"),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Ends at SIGINT or SIGTERM; calls `reload` at every SIGHUP until then.
    async fn until_stop(mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hang_up.recv() => reload(),
            }
        }
        tracing::info!("Processing signal: containers go on running");
    }
}

/// Every connection, container and log is a file: take all that the system gives, as Go's runtime does for
/// dockerd. Returns the limit of before, which is what containers get: programs of old close every file that they may
/// have, one by one.
fn raise_file_limit() -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    limit
}
