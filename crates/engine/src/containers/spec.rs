//! What the runtime is told about a container.

use std::path::{Path, PathBuf};

use skep_runtime::spec::{
    ContainerSpec, LogSpec, Mount, MountKind, NetworkNamespace, Process, ProtectedPaths, Rlimit,
    RlimitResource, Rootfs,
};
use skep_types::container::ContainerResources;
use skep_types::mount::Propagation;

use super::record::{MountRecord, MountedFrom};
use super::registry::Container;
use super::{devices, kernel, merge};
use crate::networks::place::Connection;
use crate::{Engine, Result};

/// Folder of containers' cgroups below each hierarchy's root; Docker's.
const CGROUP_PARENT: &str = "docker";

impl Engine {
    /// The specification of a container whose network and files are ready.
    pub(crate) fn spec(
        &self,
        container: &Container,
        layers: Vec<PathBuf>,
        connection: &Connection,
    ) -> Result<ContainerSpec> {
        let (record, home) = (&container.record, &container.home);
        let (config, host) = (&record.config, &record.config.host);
        let process = Process {
            args: record.arguments(),
            env: merge::environment(config, &config.hostname),
            cwd: config.working_dir.clone(),
            user: config.user.clone(),
            groups: host.group_add.clone(),
            tty: config.tty,
            tty_size: None,
            stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            capabilities: kernel::capabilities(host)?,
            no_new_privileges: host.security.no_new_privileges,
            rlimits: kernel::limits(&host.ulimits, self.default_limits()),
        };
        Ok(ContainerSpec {
            id: record.id,
            rootfs: Rootfs {
                lower: layers,
                upper: home.upper(),
                work: home.work(),
                read_only: host.read_only,
            },
            process,
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            mounts: self.spec_mounts(container),
            network: connection.sandbox.clone().map_or(NetworkNamespace::Host, NetworkNamespace::Path),
            cgroup: format!("{CGROUP_PARENT}/{}", record.id),
            resources: normal(host.resources),
            seccomp: kernel::filter(host),
            protected_paths: if host.privileged { ProtectedPaths::None } else { ProtectedPaths::Default },
            devices: devices::nodes(host)?,
            privileged: host.privileged,
            init: host.init.unwrap_or(self.shared.config.init),
            shm_size: host.shm_size,
            sysctls: host.sysctls.clone(),
            oom_score_adj: host.oom_score_adj,
            log: LogSpec { path: home.log(record.id), driver: host.log },
        })
    }

    /// Limits of processes that nobody asked for others for: not those that the daemon has raised for itself.
    pub(crate) fn default_limits(&self) -> Vec<Rlimit> {
        let files = self.shared.config.open_files;
        files
            .map(|(soft, hard)| Rlimit { resource: RlimitResource::Nofile, soft, hard })
            .into_iter()
            .collect()
    }

    /// The files in /etc, then what was asked for; a mount onto one of these files replaces it.
    fn spec_mounts(&self, container: &Container) -> Vec<Mount> {
        let home = &container.home;
        let files = [
            ("/etc/resolv.conf", home.resolv_conf()),
            ("/etc/hostname", home.hostname()),
            ("/etc/hosts", home.hosts()),
        ];
        let asked = &container.record.mounts;
        let file = |(target, source): (&str, PathBuf)| -> Option<Mount> {
            let replaced = asked.iter().any(|mount| mount.target == Path::new(target));
            (!replaced).then(|| Mount {
                target: target.into(),
                kind: MountKind::Bind { source, propagation: Propagation::Rprivate, populate: false },
                read_only: false,
            })
        };
        let mounts = asked.iter().map(|mount| self.spec_mount(mount));
        // Asked ones first: `-v /srv/etc:/etc` must not hide the files.
        mounts.chain(files.into_iter().filter_map(file)).collect()
    }

    fn spec_mount(&self, mount: &MountRecord) -> Mount {
        let kind = match &mount.source {
            MountedFrom::Bind { path, create_missing: _, propagation } => {
                MountKind::Bind { source: path.clone(), propagation: *propagation, populate: false }
            }
            // It was filled when the container was created; filling it again after its owner emptied it would be wrong.
            MountedFrom::Volume { name, .. } => MountKind::Bind {
                source: self.shared.volumes.data(name),
                propagation: Propagation::Rprivate,
                populate: false,
            },
            MountedFrom::Tmpfs { size_bytes, mode } => {
                MountKind::Tmpfs { size_bytes: *size_bytes, mode: *mode }
            }
        };
        Mount { target: mount.target.clone(), kind, read_only: mount.read_only }
    }
}

/// Docker's ways to say "unlimited" as zero.
fn normal(resources: ContainerResources) -> ContainerResources {
    ContainerResources { pids: resources.pids.max(0), memory: resources.memory.max(0), ..resources }
}
