//! An engine and a swarm in a temporary folder, and what the tests ask of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use skep_engine::options::ContainerFilter;
use skep_engine::view::ContainerSummary;
use skep_engine::{Engine, EngineConfig};
use skep_swarm::{InitRequest, Swarm, SwarmConfig};
use skep_types::node::NodeDescription;
use skep_types::port::Protocol;
use skep_types::service::{
    EndpointMode, PortSpec, PublishMode, RestartPolicy, ServiceContainer, ServiceMode, ServiceSpec, TaskSpec,
    UpdateConfig,
};
use skep_types::swarm::ClusterSpec;
use skep_types::{Task, TaskState};

/// What must have happened by then has not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tests that run so far: names bridges, subnets and ports apart.
static HOUSES: AtomicU8 = AtomicU8::new(1);

/// A machine for one test.
pub struct House {
    dir: tempfile::TempDir,
    number: u8,
    pub engine: Engine,
    pub swarm: Swarm,
}

impl House {
    /// A machine with the image `web`, in no swarm.
    pub async fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let number = HOUSES.fetch_add(1, Ordering::Relaxed);
        let (engine, swarm) = open(dir.path(), number).await;
        let import = skep_engine::images::Import {
            reference: Some("web".parse().unwrap()),
            config: skep_engine::images::ImageConfig {
                env: vec!["PATH=/bin".to_owned()],
                ..Default::default()
            },
            ..Default::default()
        };
        engine.import_image(std::io::Cursor::new(busybox()), import).await.unwrap();
        House { dir, number, engine, swarm }
    }

    /// A machine in a swarm of its own.
    pub async fn in_swarm() -> House {
        let house = House::new().await;
        house.swarm.init(house.init()).await.unwrap();
        house
    }

    /// Ends swarm and engine and opens others in their place; `meanwhile` happens between.
    pub async fn reopen(self, meanwhile: impl AsyncFnOnce(&Path)) -> House {
        let House { dir, number, engine, swarm } = self;
        swarm.shutdown().await;
        engine.shutdown().await;
        drop((swarm, engine));
        meanwhile(dir.path()).await;
        let (engine, swarm) = open(dir.path(), number).await;
        House { dir, number, engine, swarm }
    }

    /// `docker swarm init --advertise-addr <address>`, as the stock client sends it, at an address of this machine's
    /// own.
    pub fn init(&self) -> InitRequest {
        InitRequest {
            listen_addr: format!("{}:2377", self.address()),
            advertise_addr: self.address().to_string(),
            data_path_addr: String::new(),
            data_path_port: 0,
            default_addr_pool: Vec::new(),
            subnet_size: 0,
            availability: Default::default(),
            force_new_cluster: false,
            spec: ClusterSpec::default(),
        }
    }

    /// The address of this machine among those of the tests.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 97, self.number, 1)
    }

    /// What is kept of a swarm: names in its folder.
    pub fn kept(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("data/swarm")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The file of this node's key.
    pub fn key_file(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("data/swarm/certificates/swarm-node.key")).unwrap()
    }

    /// The port that this machine's tests publish.
    pub fn port(&self) -> u16 {
        18_000 + u16::from(self.number)
    }

    /// Every container, youngest first.
    pub async fn containers(&self) -> Vec<ContainerSummary> {
        self.engine.list(&ContainerFilter { all: true, ..Default::default() }).await.unwrap()
    }

    pub async fn tasks(&self) -> Vec<Task> {
        self.swarm.tasks().await.unwrap()
    }

    pub async fn running(&self) -> Vec<Task> {
        self.tasks()
            .await
            .into_iter()
            .filter(|task| task.status.state == TaskState::Running && task.desired == TaskState::Running)
            .collect()
    }

    /// Waits until so many tasks run.
    pub async fn until_running(&self, count: usize) -> Vec<Task> {
        self.until("tasks run", || async { self.running().await.len() == count }).await;
        self.running().await
    }

    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            let tasks: Vec<_> = self.swarm.tasks().await.unwrap_or_default();
            let tasks: Vec<_> = tasks.iter().map(|task| (task.slot, task.desired, &task.status)).collect();
            assert!(Instant::now() < deadline, "{what}: not in time: {tasks:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Leaves the swarm and looks for what that may have left.
    pub async fn close(self) {
        self.swarm.leave(true).await.unwrap();
        assert_eq!(self.containers().await, []);
        assert!(self.engine.networks().iter().all(|network| network.scope == "local"));
        assert_eq!(self.engine.endpoints(), []);
        let left = std::fs::read_dir(self.dir.path().join("data/swarm")).unwrap().count();
        assert_eq!(left, 0, "nothing of the swarm is kept");
        self.engine.shutdown().await;
    }
}

async fn open(dir: &Path, number: u8) -> (Engine, Swarm) {
    let config = EngineConfig {
        instance: format!("swarmtest{number}"),
        bridge: format!("sks{number}"),
        bip: Some((Ipv4Addr::new(10, 97, number, 1), 24)),
        ..EngineConfig::new(dir.join("data"), dir.join("run"), std::env::current_exe().unwrap())
    };
    let engine = Engine::open(config).await.unwrap();
    let config = SwarmConfig {
        dir: dir.join("data/swarm"),
        default_advertise_addr: String::new(),
        description: NodeDescription {
            hostname: "here".to_owned(),
            os: "linux".to_owned(),
            ..Default::default()
        },
    };
    let swarm = Swarm::open(config, engine.clone()).await.unwrap();
    (engine, swarm)
}

/// A web server that tells its host name and the variable GREETING; restarts at once.
pub fn web(replicas: u64, port: Option<u16>) -> ServiceSpec {
    let script =
        "trap 'exit 0' TERM; echo $GREETING $(hostname) > /tmp/index.html; httpd -f -p 80 -h /tmp & wait";
    let port = port.map(|published_port| PortSpec {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port,
        mode: PublishMode::Ingress,
        address: None,
    });
    ServiceSpec {
        name: "web".to_owned(),
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec {
            container: ServiceContainer {
                image: "web".to_owned(),
                args: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
                env: vec!["GREETING=hello".to_owned()],
                ..Default::default()
            },
            limits: Default::default(),
            reservations: Default::default(),
            generic: Default::default(),
            restart: RestartPolicy { delay: Duration::ZERO, ..Default::default() },
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas },
        update: UpdateConfig { monitor: Duration::from_millis(10), ..Default::default() },
        rollback: UpdateConfig::default(),
        ports: port.into_iter().collect(),
        endpoint_mode: EndpointMode::Vip,
    }
}

/// What a web server answers; `None` when nobody does.
pub fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.trim().to_owned())
}

fn busybox() -> Vec<u8> {
    skep_testkit::Rootfs::busybox(&["sh", "httpd", "hostname", "sleep"])
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n")
        .finish()
}
