//! Every option of dockerd's, by flag and by name in daemon.json, and what Skep makes of it.
//!
//! An option is honoured; or it has no meaning here, which the log says once; or it would change what
//! containers see and is not built: then only the value that changes nothing is accepted.

/// What an option holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Flag,
    /// One text.
    Text,
    /// One number.
    Number,
    /// Any number of texts.
    List,
    /// `key=value` pairs; an object in daemon.json.
    Map,
}

/// What Skep makes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Honoured,
    /// It is accepted and does nothing, for this reason.
    Meaningless(&'static str),
    /// It is refused, unless it says one of these, which is how Skep is anyway.
    Only(&'static [&'static str]),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct DaemonOption {
    /// Its long flag.
    pub flag: &'static str,
    /// Its one-letter flag.
    pub short: Option<char>,
    /// Its name in daemon.json.
    pub key: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What Skep makes of it.
    pub support: Support,
    /// What it is for.
    pub help: &'static str,
}

const fn option(flag: &'static str, kind: Kind, support: Support, help: &'static str) -> DaemonOption {
    DaemonOption { flag, short: None, key: flag, kind, support, help }
}

impl DaemonOption {
    const fn short(self, letter: char) -> DaemonOption {
        DaemonOption { short: Some(letter), ..self }
    }

    const fn key(self, key: &'static str) -> DaemonOption {
        DaemonOption { key, ..self }
    }
}

use Kind::{Flag, List, Map, Number, Text};
use Support::{Honoured, Meaningless, Only};

const NO_CONTAINERD: Support = Meaningless("there is no containerd");
const NO_PROXY_PROCESS: Support = Meaningless("ports are published by the kernel alone");
const OUTLIVES: Support = Meaningless("containers outlive the daemon always");
const NOTHING: Support = Only(&[]);
const FALSE: Support = Only(&["false"]);
const TRUE: Support = Only(&["true"]);

/// All of them, those that do something first.
pub const ALL: &[DaemonOption] = &[
    option("host", List, Honoured, "Daemon socket to listen on: unix://, tcp://, fd://")
        .short('H')
        .key("hosts"),
    option("data-root", Text, Honoured, "Folder for what survives a reboot"),
    option("exec-root", Text, Honoured, "Folder for what need not"),
    option("pidfile", Text, Honoured, "File for the daemon's process id").short('p'),
    option("debug", Flag, Honoured, "Log at level debug").short('D'),
    option("log-level", Text, Honoured, "debug, info, warn, error or fatal").short('l'),
    option("label", List, Honoured, "Set key=value labels on the daemon").key("labels"),
    option("group", Text, Honoured, "Group of the unix socket").short('G'),
    option("init", Flag, Honoured, "Run an init in every container"),
    option("bip", Text, Honoured, "Address and prefix length of the default bridge"),
    option("bridge", Text, Honoured, "Name of the default bridge").short('b'),
    option("mtu", Number, Honoured, "MTU of the default bridge, in bytes"),
    option("ip", Text, Honoured, "Address that published ports answer on where none is named"),
    option("default-address-pool", List, Honoured, "Pools for local networks: base=<net>,size=<prefix>")
        .key("default-address-pools"),
    option("dns", List, Honoured, "Name servers for containers"),
    option("dns-opt", List, Honoured, "Resolver options for containers").key("dns-opts"),
    option("dns-search", List, Honoured, "Search domains for containers"),
    option("swarm-default-advertise-addr", Text, Honoured, "Address or interface that a swarm advertises"),
    option(
        "node-generic-resource",
        List,
        Honoured,
        "Resources that services can ask for: gpu=uuid1, apple=3",
    )
    .key("node-generic-resources"),
    option("insecure-registry", List, Honoured, "Registries without trusted certificates, or without TLS")
        .key("insecure-registries"),
    option("registry-mirror", List, Honoured, "Mirrors of Docker's own registry").key("registry-mirrors"),
    option("max-concurrent-downloads", Number, Honoured, "Layers of one image that are pulled at a time"),
    option("max-concurrent-uploads", Number, Honoured, "Layers of one image that are pushed at a time"),
    option("max-download-attempts", Number, Honoured, "Attempts at a layer"),
    option("tls", Flag, Honoured, "Use TLS; false allows a tcp:// host in clear"),
    // What would change what containers or users see, and is not built.
    option("tlsverify", Flag, FALSE, "Use TLS and verify clients"),
    option("tlscacert", Text, NOTHING, "Trust only certificates signed by this CA"),
    option("tlscert", Text, NOTHING, "TLS certificate"),
    option("tlskey", Text, NOTHING, "TLS key"),
    option("http-proxy", Text, NOTHING, "Proxy for HTTP"),
    option("https-proxy", Text, NOTHING, "Proxy for HTTPS"),
    option("no-proxy", Text, Meaningless("there is no proxy"), "Hosts that are reached without a proxy"),
    option("proxies", Map, NOTHING, "Proxies, in daemon.json"),
    option("storage-driver", Text, Only(&["overlay2", "overlayfs"]), "Storage driver").short('s'),
    option("storage-opt", List, NOTHING, "Storage driver options").key("storage-opts"),
    option("log-driver", Text, Only(&["json-file"]), "Default log driver of containers"),
    option("log-opt", Map, NOTHING, "Default log options of containers").key("log-opts"),
    option("log-format", Text, Only(&["text"]), "Format of the daemon's log"),
    option("iptables", Flag, TRUE, "Maintain firewall rules"),
    option("ip-forward", Flag, TRUE, "Switch on forwarding"),
    option("ip-masq", Flag, TRUE, "Masquerade what leaves the bridge"),
    option("icc", Flag, TRUE, "Let containers talk to each other"),
    option("ipv6", Flag, FALSE, "IPv6 on the default bridge"),
    option("fixed-cidr", Text, NOTHING, "Part of the bridge's subnet to take addresses from"),
    option("fixed-cidr-v6", Text, NOTHING, "The same for IPv6"),
    option("bip6", Text, NOTHING, "IPv6 address of the default bridge"),
    option("default-gateway", Text, NOTHING, "Gateway of containers on the default bridge"),
    option("default-gateway-v6", Text, NOTHING, "The same for IPv6"),
    option("default-network-opt", Map, NOTHING, "Default options of networks").key("default-network-opts"),
    option("allow-direct-routing", Flag, FALSE, "Let remote hosts reach containers' own addresses"),
    option("bridge-accept-fwmark", Text, NOTHING, "Accept packets of this mark to bridges"),
    option("firewall-backend", Text, Only(&["nftables"]), "Firewall backend"),
    option("default-ulimit", Map, NOTHING, "Default ulimits of containers").key("default-ulimits"),
    option("default-shm-size", Text, Only(&["64M", "64m", "67108864"]), "Default size of /dev/shm"),
    option("default-ipc-mode", Text, Only(&["private"]), "Default IPC mode of containers"),
    option("default-cgroupns-mode", Text, Only(&["private"]), "Default cgroup namespace mode of containers"),
    option("default-runtime", Text, Only(&["skep", "runc"]), "Default runtime of containers"),
    option("add-runtime", Map, NOTHING, "Register another runtime").key("runtimes"),
    option("cgroup-parent", Text, NOTHING, "Parent cgroup of containers"),
    option("exec-opt", List, Only(&["native.cgroupdriver=cgroupfs"]), "Runtime options").key("exec-opts"),
    option("seccomp-profile", Text, Only(&["builtin"]), "Default seccomp profile"),
    option("no-new-privileges", Flag, FALSE, "Set no-new-privileges by default"),
    option("selinux-enabled", Flag, FALSE, "SELinux support"),
    option("userns-remap", Text, NOTHING, "User namespaces"),
    option("rootless", Flag, FALSE, "Rootless mode"),
    option("authorization-plugin", List, NOTHING, "Authorization plugins").key("authorization-plugins"),
    option("metrics-addr", Text, NOTHING, "Address to serve metrics on"),
    option("network-diagnostic-port", Number, Only(&["0"]), "Port of the network's diagnostics"),
    option("cpu-rt-period", Number, Only(&["0"]), "Real-time period of containers"),
    option("cpu-rt-runtime", Number, Only(&["0"]), "Real-time runtime of containers"),
    option("host-gateway-ip", List, NOTHING, "Address behind host-gateway").key("host-gateway-ips"),
    option("api-cors-header", Text, NOTHING, "CORS headers"),
    // What has no meaning here.
    option("containerd", Text, NO_CONTAINERD, "containerd's socket"),
    option("containerd-namespace", Text, NO_CONTAINERD, "containerd's namespace"),
    option("containerd-plugins-namespace", Text, NO_CONTAINERD, "containerd's namespace for plugins"),
    option("cri-containerd", Flag, NO_CONTAINERD, "Start containerd with CRI"),
    option("userland-proxy", Flag, NO_PROXY_PROCESS, "Proxy for loopback traffic"),
    option("userland-proxy-path", Text, NO_PROXY_PROCESS, "Path of that proxy"),
    option("live-restore", Flag, OUTLIVES, "Keep containers running while the daemon is down"),
    option("shutdown-timeout", Number, OUTLIVES, "Seconds that containers get at shutdown"),
    option("init-path", Text, Meaningless("the init is built in"), "Path of the init"),
    option("experimental", Flag, Meaningless("nothing is experimental"), "Experimental features"),
    option("features", Map, Meaningless("no feature has a switch"), "Switches of features"),
    option("builder", Map, Meaningless("there is no builder yet"), "Settings of the builder"),
    option("ip6tables", Flag, Meaningless("there is no IPv6 yet"), "Maintain IPv6 firewall rules"),
    option("raw-logs", Flag, Meaningless("the log has no colours"), "Log without colours"),
    option("oom-score-adjust", Number, Meaningless("dockerd dropped it too"), "OOM score of the daemon"),
    option("network-control-plane-mtu", Number, Meaningless("there is no gossip"), "MTU of the gossip"),
    option("cdi-spec-dir", List, Meaningless("no devices are given out yet"), "Folders of CDI files")
        .key("cdi-spec-dirs"),
    option("deprecated-key-path", Text, Meaningless("dockerd dropped it too"), "Path of a key"),
];

/// The option of that flag.
pub fn by_flag(flag: &str) -> Option<&'static DaemonOption> {
    ALL.iter().find(|option| option.flag == flag)
}

/// The option of that name in daemon.json. The flag's own name is not read there, as in dockerd.
pub fn by_key(key: &str) -> Option<&'static DaemonOption> {
    ALL.iter().find(|option| option.key == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let flags: BTreeSet<_> = ALL.iter().map(|option| option.flag).collect();
        let keys: BTreeSet<_> = ALL.iter().map(|option| option.key).collect();
        let shorts: Vec<_> = ALL.iter().filter_map(|option| option.short).collect();
        assert_eq!(flags.len(), ALL.len());
        assert_eq!(keys.len(), ALL.len());
        assert_eq!(shorts.iter().collect::<BTreeSet<_>>().len(), shorts.len());
    }
}
