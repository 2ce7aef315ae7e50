//! Opening an engine: its parts are opened in order, then what ran before is found again.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use serde::{Deserialize, Serialize};
use skep_images::Store;
use skep_names::Names;
use skep_network::{Bridge, Config as KernelConfig, Network as Kernel};
use skep_runtime::Runtime;
use skep_types::Ids;
use skep_types::ip::Subnet;

use crate::build::{BUILD_LIMIT, Building};
use crate::clock::now;
use crate::containers::exec::Execs;
use crate::containers::registry::Registry;
use crate::disk::{self, Durability};
use crate::events::Events;
use crate::files::resolv;
use crate::images::{DOWNLOAD_LIMIT, PUSH_LIMIT, Turns, UPLOAD_LIMIT};
use crate::networks::local::Locals;
use crate::networks::{LocalIds, Networks, pool};
use crate::tasks::Tasks;
use crate::volumes::Volumes;
use crate::{Engine, EngineConfig, Error, Result, Shared, blocking};

/// What was drawn once for a data folder: `<data-root>/engine.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// As `docker info` shows it.
    pub(crate) id: String,
    networks: LocalIds,
    /// The default bridge's subnet: kept as long as it can be, as containers run in it.
    bridge_subnet: Option<Subnet>,
}

impl Engine {
    /// Opens the engine: finds what runs, reports what ended meanwhile, repairs what a crash left.
    ///
    /// # Errors
    /// Internal, when a folder, the kernel or the firewall cannot be used.
    pub async fn open(config: EngineConfig) -> Result<Engine> {
        let engine = blocking(move || Engine::assemble(config)).await??;
        engine.recover().await?;
        engine.remove_left_by_builds().await;
        Ok(engine)
    }

    fn assemble(config: EngineConfig) -> Result<Engine> {
        let failed = |what: &str, error: &dyn std::error::Error| Error::failed(what, error);
        for path in [&config.data_root, &config.exec_root] {
            disk::make_dir(path, 0o711)
                .map_err(|error| failed(&format!("making {}", path.display()), &error))?;
        }
        disk::make_dir(&containers_dir(&config), 0o710).map_err(|error| failed("making a folder", &error))?;
        let mut ids = Ids::new(seed()?);
        // The store holds a lock on the data folder: a second engine on it is refused here, before it harms the first.
        let images = Store::open(&config.data_root.join("images"))
            .map_err(|error| failed("opening the image store", &error))?;
        let building = Building::open(&config.data_root.join(crate::build::FOLDER));
        for repair in images.repairs() {
            tracing::warn!("image store: {repair}");
        }
        let volumes = Volumes::open(&config.data_root.join("volumes"))
            .map_err(|error| failed("opening the volumes", &error))?;
        let runtime = Runtime::open(&config.exec_root, &config.executable)
            .map_err(|error| failed("opening the runtime", &error))?;
        let mut identity = identity(&config, &mut ids)?;
        let networks = networks(&config, &mut identity)?;
        let names = Names::open(skep_names::Config {
            socket: config.exec_root.join("names.sock"),
            program: config.executable.clone(),
            resolv_conf: resolv::HOST.into(),
        });
        let shared = Shared {
            identity,
            images,
            runtime,
            networks: Arc::new(networks),
            names,
            cluster: RwLock::default(),
            containers: Registry::default(),
            volumes,
            execs: Execs::default(),
            events: Events::new(),
            ids: Mutex::new(ids),
            tasks: Tasks::new(),
            uploads: tokio::sync::Semaphore::new(UPLOAD_LIMIT),
            // Room of their own: what is saved may be piped to a load.
            saves: tokio::sync::Semaphore::new(UPLOAD_LIMIT),
            registries: skep_registry::Client::new(config.registries.clone()),
            turns: Turns::default(),
            downloads: tokio::sync::Semaphore::new(DOWNLOAD_LIMIT),
            pushes: tokio::sync::Semaphore::new(PUSH_LIMIT),
            builds: tokio::sync::Semaphore::new(BUILD_LIMIT),
            building,
            config,
        };
        Ok(Engine { shared: Arc::new(shared) })
    }

    /// Folder of the containers' folders.
    pub(crate) fn containers_dir(&self) -> PathBuf {
        containers_dir(&self.shared.config)
    }
}

fn containers_dir(config: &EngineConfig) -> PathBuf {
    config.data_root.join("containers")
}

fn seed() -> Result<u128> {
    let mut bytes = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match drawn {
        Ok(16) => Ok(u128::from_ne_bytes(bytes)),
        // The kernel gives 256 bytes or fewer whole (getrandom(2)).
        Ok(_) => Err(Error::internal("the kernel gave too little randomness")),
        Err(error) => Err(Error::failed("drawing randomness", &error)),
    }
}

fn identity(config: &EngineConfig, ids: &mut Ids) -> Result<Identity> {
    let path = config.data_root.join("engine.json");
    match disk::read_json(&path) {
        Ok(Some(identity)) => return Ok(identity),
        Ok(None) => {}
        // Ids are for show; a torn file must not keep the containers from being found.
        Err(error) => tracing::warn!("{} is damaged and drawn anew: {error}", path.display()),
    }
    let mut draw = || ids.container().to_string();
    let networks = LocalIds { bridge: draw(), host: draw(), none: draw(), created: now() };
    let identity = Identity { id: uuid(ids.next_u128()), networks, bridge_subnet: None };
    write_identity(config, &identity)?;
    Ok(identity)
}

fn write_identity(config: &EngineConfig, identity: &Identity) -> Result<()> {
    let path = config.data_root.join("engine.json");
    disk::write_json(&path, identity, Durability::Disk)
        .map_err(|error| Error::failed(format!("writing {}", path.display()), &error))
}

/// A random number in the form of a UUID (RFC 9562, version 4).
fn uuid(number: u128) -> String {
    let number = number & !(0xf << 76) | 4 << 76;
    let number = number & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{number:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn networks(config: &EngineConfig, identity: &mut Identity) -> Result<Networks> {
    let failed = |what: &str, error: &dyn std::error::Error| Error::failed(what, error);
    let (gateway, prefix) = match config.bip {
        Some(bip) => bip,
        None => choose_subnet(config, identity)?,
    };
    let bridge = Bridge {
        name: config.bridge.clone(),
        gateway,
        prefix,
        mtu: config.mtu,
        masquerade: true,
        internal: false,
        ingress: false,
        gateway6: None,
        overlay: None,
    };
    let kernel = Kernel::open(KernelConfig {
        netns_dir: config.exec_root.join("netns"),
        instance: config.instance.clone(),
    })
    .map_err(|error| failed("opening the network", &error))?;
    let locals = Locals::open(config.data_root.join("networks.json"))
        .map_err(|error| failed("reading the networks that were made", &error))?;
    let cluster_file = config.exec_root.join("cluster.json");
    let pools = config.default_pools.clone();
    let tunnel = skep_tunnel::Config {
        socket: config.exec_root.join("tunnel.sock"),
        key: config.data_root.join("tunnel.key"),
        program: config.executable.clone(),
    };
    Networks::new(kernel, bridge, identity.networks.clone(), pools, locals, cluster_file, tunnel)
        .map_err(|error| failed("the default bridge's address", &error))
}

/// Chooses the default bridge's subnet and remembers the choice.
fn choose_subnet(config: &EngineConfig, identity: &mut Identity) -> Result<(Ipv4Addr, u8)> {
    // Of this thread: a thread may be in a network namespace of its own.
    let text = std::fs::read_to_string(Path::new("/proc/thread-self/net/route")).unwrap_or_default();
    let routes = pool::routes(&text, &config.bridge);
    let chosen = pool::choose(identity.bridge_subnet, &config.default_pools, &routes)
        .ok_or_else(|| Error::internal("no address pool is configured for the default bridge"))?;
    if identity.bridge_subnet != Some(chosen) {
        identity.bridge_subnet = Some(chosen);
        write_identity(config, identity)?;
    }
    Ok((chosen.nth(1).unwrap_or(chosen.network()), chosen.prefix()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        let text = uuid(u128::MAX);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    }
}
