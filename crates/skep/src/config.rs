//! The daemon's configuration: the command line and daemon.json in one, checked as dockerd checks them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::Value;
use skep_engine::config::{Insecure, RegistrySettings};
use skep_types::generic::GenericResources;
use skep_types::ip::Subnet;

use crate::options::{self, DaemonOption, Kind, Support};

/// Where dockerd looks when nobody says otherwise; a file that is not there is fine.
pub const DEFAULT_FILE: &str = "/etc/docker/daemon.json";
/// Where the stock client looks for a daemon.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Default `--data-root`.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/skep";
/// Default `--exec-root`.
pub const DEFAULT_EXEC_ROOT: &str = "/run/skep";
/// Most subnets that one address pool is cut into.
const MAX_SUBNETS_A_POOL: u32 = 4096;

/// What the daemon runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub hosts: Vec<String>,
    /// `--tls`; `None` when nobody said.
    pub tls: Option<bool>,
    /// Group of unix sockets, and whether it was asked for.
    pub group: Option<String>,
    /// Folder for what survives a reboot.
    pub data_root: PathBuf,
    /// Folder for what need not.
    pub exec_root: PathBuf,
    /// File for the process id.
    pub pid_file: PathBuf,
    /// What a reload changes.
    pub reloadable: Reloadable,
    /// `--init`
    pub init: bool,
    /// `--bip`
    pub bip: Option<(Ipv4Addr, u8)>,
    /// `--bridge`
    pub bridge: Option<String>,
    /// `--mtu`
    pub mtu: Option<u32>,
    /// `--ip`
    pub ip: Option<IpAddr>,
    /// `--default-address-pool`, cut into subnets; empty when nobody said.
    pub pools: Vec<Subnet>,
    /// `--dns`
    pub dns: Vec<String>,
    /// `--dns-opt`
    pub dns_options: Vec<String>,
    /// `--dns-search`
    pub dns_search: Vec<String>,
    /// `--swarm-default-advertise-addr`
    pub advertise: String,
    /// `--node-generic-resource`
    pub generic: GenericResources,
    /// `--insecure-registry`, `--registry-mirror`, and how many transfers there may be.
    pub registries: RegistrySettings,
    /// What was accepted and does nothing: the option, and why.
    pub meaningless: Vec<(&'static str, &'static str)>,
}

/// The part of a configuration that SIGHUP reads again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloadable {
    /// `--label`s.
    pub labels: Vec<String>,
    /// `--debug`
    pub debug: bool,
    /// `--log-level`; empty is `info`.
    pub log_level: String,
}

/// What options say, from whatever source: every value as its texts.
type Said = BTreeMap<&'static str, Vec<String>>;

impl Config {
    /// Reads the command line, and the file that it names.
    pub fn load(matches: &ArgMatches) -> anyhow::Result<Config> {
        let path = matches.get_one::<String>("config-file").map_or(DEFAULT_FILE, String::as_str);
        let explicit = matches.value_source("config-file") == Some(ValueSource::CommandLine);
        let flags = from_flags(matches);
        let file = match std::fs::read(path) {
            Ok(text) => from_file(&text, &flags)
                .with_context(|| format!("unable to configure the Docker daemon with file {path}"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => Said::new(),
            Err(error) => {
                return Err(error).context(format!("unable to configure the Docker daemon with file {path}"));
            }
        };
        Config::merge(flags, file)
    }

    fn merge(flags: Said, file: Said) -> anyhow::Result<Config> {
        let mut said = flags;
        said.extend(file);
        let meaningless = check_support(&said)?;
        let exec_root = path(&said, "exec-root", DEFAULT_EXEC_ROOT)?;
        let hosts = said.get("host").cloned().unwrap_or_default();
        Ok(Config {
            hosts: if hosts.is_empty() { vec![DEFAULT_HOST.to_owned()] } else { hosts },
            tls: text(&said, "tls").map(is_true),
            group: text(&said, "group").map(str::to_owned),
            data_root: path(&said, "data-root", DEFAULT_DATA_ROOT)?,
            pid_file: match text(&said, "pidfile") {
                Some(file) => PathBuf::from(file),
                None => exec_root.join("skep.pid"),
            },
            exec_root,
            reloadable: reloadable(&said)?,
            init: text(&said, "init").is_some_and(is_true),
            bip: text(&said, "bip").map(address_and_prefix).transpose()?,
            bridge: bridge(&said)?,
            mtu: text(&said, "mtu").map(mtu).transpose()?.flatten(),
            ip: text(&said, "ip").map(host_address).transpose()?.flatten(),
            pools: pools(&said)?,
            dns: list(&said, "dns"),
            dns_options: list(&said, "dns-opt"),
            dns_search: list(&said, "dns-search"),
            advertise: text(&said, "swarm-default-advertise-addr").unwrap_or_default().to_owned(),
            generic: GenericResources::parse(
                list(&said, "node-generic-resource").iter().map(String::as_str),
            )?,
            registries: registries(&said)?,
            meaningless,
        })
    }

    /// `skep` for the default data folder, else `skep-` and eight digits that follow from the folder: it names
    /// what daemons on one machine must not share.
    pub fn instance(&self) -> String {
        if self.data_root == Path::new(DEFAULT_DATA_ROOT) {
            return "skep".to_owned();
        }
        // FNV-1a (Fowler, Noll, Vo): all that is wanted is the same digits every time.
        let bytes = self.data_root.as_os_str().as_encoded_bytes();
        let hash = bytes
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        format!("skep-{hash:08x}")
    }
}

fn from_flags(matches: &ArgMatches) -> Said {
    let given = options::ALL.iter().filter_map(|option| {
        let values: Vec<String> = matches.get_many::<String>(option.flag)?.cloned().collect();
        Some((option.flag, values))
    });
    given.collect()
}

fn from_file(text: &[u8], flags: &Said) -> anyhow::Result<Said> {
    // As dockerd: an empty file is no configuration.
    if text.trim_ascii().is_empty() {
        return Ok(Said::new());
    }
    let values: BTreeMap<String, Value> = serde_json::from_slice(text)?;
    let unknown: Vec<&str> =
        values.keys().map(String::as_str).filter(|key| options::by_key(key).is_none()).collect();
    ensure!(
        unknown.is_empty(),
        "the following directives don't match any configuration option: {}",
        unknown.join(", ")
    );
    let mut said = Said::new();
    let mut conflicts = Vec::new();
    for (key, value) in &values {
        let Some(option) = options::by_key(key) else { continue };
        let texts = texts(option, value)?;
        if let Some(flag) = flags.get(option.flag) {
            conflicts.push(format!("{key}: (from flag: {}, from file: {})", flag.join(","), texts.join(",")));
        }
        said.insert(option.flag, texts);
    }
    ensure!(
        conflicts.is_empty(),
        "the following directives are specified both as a flag and in the configuration file: {}",
        conflicts.join(", ")
    );
    Ok(said)
}

/// A value of daemon.json as texts.
fn texts(option: &DaemonOption, value: &Value) -> anyhow::Result<Vec<String>> {
    let wrong = |wanted: &str| anyhow!("{}: expected {wanted}, found {value}", option.key);
    match (option.kind, value) {
        (Kind::Flag, Value::Bool(value)) => Ok(vec![value.to_string()]),
        (Kind::Flag, _) => Err(wrong("true or false")),
        (Kind::Text, Value::String(text)) => Ok(vec![text.clone()]),
        (Kind::Text, _) => Err(wrong("a text")),
        (Kind::Number, Value::Number(number)) => Ok(vec![number.to_string()]),
        (Kind::Number, _) => Err(wrong("a number")),
        (Kind::List, Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                // Address pools are objects in the file.
                Value::Object(fields) => Ok(pairs(fields)),
                _ => Err(wrong("a list of texts")),
            })
            .collect(),
        (Kind::List, _) => Err(wrong("a list")),
        (Kind::Map, Value::Object(fields)) => {
            Ok(fields.iter().map(|(key, value)| pair(key, value)).collect())
        }
        (Kind::Map, _) => Err(wrong("an object")),
    }
}

fn pairs(fields: &serde_json::Map<String, Value>) -> String {
    fields.iter().map(|(key, value)| pair(key, value)).collect::<Vec<_>>().join(",")
}

fn pair(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    }
}

/// Refuses what is not built; tells what does nothing.
fn check_support(said: &Said) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let mut meaningless = Vec::new();
    for (flag, values) in said {
        let Some(option) = options::by_flag(flag) else { continue };
        match option.support {
            Support::Honoured => {}
            Support::Meaningless(why) => meaningless.push((option.flag, why)),
            Support::Only(accepted) => {
                let flag_text = |value: &str| {
                    if option.kind == Kind::Flag { is_true(value).to_string() } else { value.to_owned() }
                };
                let odd = values
                    .iter()
                    .find(|value| !value.is_empty() && !accepted.contains(&flag_text(value).as_str()));
                if let Some(value) = odd {
                    bail!("option --{} ({}) = {value} is not built yet", option.flag, option.key);
                }
            }
        }
    }
    Ok(meaningless)
}

fn reloadable(said: &Said) -> anyhow::Result<Reloadable> {
    let log_level = text(said, "log-level").unwrap_or_default().to_owned();
    ensure!(
        matches!(log_level.as_str(), "" | "debug" | "info" | "warn" | "error" | "fatal" | "trace" | "panic"),
        "invalid logging level: {log_level}"
    );
    let labels = list(said, "label");
    for label in &labels {
        ensure!(
            label.split_once('=').is_some_and(|(key, _)| !key.is_empty()),
            "bad attribute format: {label}: a label is key=value"
        );
    }
    Ok(Reloadable { labels, debug: text(said, "debug").is_some_and(is_true), log_level })
}

fn list(said: &Said, flag: &str) -> Vec<String> {
    said.get(flag).cloned().unwrap_or_default()
}

fn text<'a>(said: &'a Said, flag: &str) -> Option<&'a str> {
    said.get(flag)?.last().map(String::as_str).filter(|text| !text.is_empty())
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}

/// A folder's absolute path.
fn path(said: &Said, flag: &str, default: &str) -> anyhow::Result<PathBuf> {
    let given = text(said, flag).unwrap_or(default);
    std::path::absolute(given).with_context(|| format!("--{flag}: {given}"))
}

fn bridge(said: &Said) -> anyhow::Result<Option<String>> {
    match text(said, "bridge") {
        Some("none") => bail!("option --bridge (bridge) = none is not built yet"),
        Some(name) if name.len() > 15 || name.contains(['/', ' ']) => {
            bail!("--bridge: {name:?} names no interface")
        }
        name => Ok(name.map(str::to_owned)),
    }
}

fn mtu(text: &str) -> anyhow::Result<Option<u32>> {
    let bytes: u32 = text.parse().with_context(|| format!("--mtu: {text}"))?;
    Ok((bytes != 0).then_some(bytes))
}

/// How registries are reached; checked as dockerd does.
fn registries(said: &Said) -> anyhow::Result<RegistrySettings> {
    let insecure: Vec<Insecure> = list(said, "insecure-registry")
        .iter()
        .map(|text| Insecure::parse(text).map_err(|error| anyhow!(error)))
        .collect::<anyhow::Result<_>>()?;
    let mirrors = list(said, "registry-mirror");
    for mirror in &mirrors {
        let address = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
        let is_plain = address.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
        ensure!(
            is_plain,
            "invalid mirror: {mirror}: expected http:// or https://, a host, and perhaps a path"
        );
    }
    let count = |flag: &str, default: usize| -> anyhow::Result<usize> {
        let Some(text) = text(said, flag) else { return Ok(default) };
        let count: usize = text.parse().with_context(|| format!("--{flag}: {text}"))?;
        // As dockerd: 0 is the default too.
        Ok(if count == 0 { default } else { count })
    };
    let default = RegistrySettings::default();
    Ok(RegistrySettings {
        insecure,
        mirrors,
        downloads: count("max-concurrent-downloads", default.downloads)?,
        uploads: count("max-concurrent-uploads", default.uploads)?,
        attempts: u32::try_from(count("max-download-attempts", 5)?).unwrap_or(u32::MAX),
        ..default
    })
}

/// `--ip`; every address is the same as none.
fn host_address(text: &str) -> anyhow::Result<Option<IpAddr>> {
    let address: IpAddr = text.parse().with_context(|| format!("--ip: {text}"))?;
    Ok((!address.is_unspecified()).then_some(address))
}

fn address_and_prefix(text: &str) -> anyhow::Result<(Ipv4Addr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 30)?))
    });
    parsed.ok_or_else(|| anyhow!("--bip: {text:?} is no address with a prefix length, such as 172.17.0.1/16"))
}

/// Cuts `base=172.80.0.0/16,size=24` into its subnets.
fn pools(said: &Said) -> anyhow::Result<Vec<Subnet>> {
    let mut subnets = Vec::new();
    for pool in list(said, "default-address-pool") {
        let wrong =
            || anyhow!("--default-address-pool: {pool:?} is no base=<address>/<prefix>,size=<prefix>");
        let field = |name: &str| {
            pool.split(',')
                .find_map(|field| field.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        let base: Subnet = field("base").and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let size: u8 = field("size").and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        ensure!((base.prefix()..=30).contains(&size), wrong());
        let count = 1_u32.checked_shl(u32::from(size - base.prefix())).unwrap_or(u32::MAX);
        ensure!(
            count <= MAX_SUBNETS_A_POOL,
            "--default-address-pool: {pool:?} makes more than {MAX_SUBNETS_A_POOL} networks"
        );
        let step = 1_u32 << (32 - u32::from(size));
        for index in 0..count {
            let address = base.nth(index * step).ok_or_else(wrong)?;
            subnets.push(Subnet::containing(address, size).ok_or_else(wrong)?);
        }
    }
    Ok(subnets)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn flags(words: &[&str]) -> Said {
        let matches =
            crate::daemon_command().try_get_matches_from(std::iter::once(&"daemon").chain(words)).unwrap();
        from_flags(&matches)
    }

    fn load(words: &[&str], file: &str) -> anyhow::Result<Config> {
        let flags = flags(words);
        let file = from_file(file.as_bytes(), &flags)?;
        Config::merge(flags, file)
    }

    #[test]
    fn nothing_said_is_dockerd_s_defaults() {
        let config = load(&[], "").unwrap();
        assert_eq!(config.hosts, ["unix:///var/run/docker.sock"]);
        assert_eq!(config.data_root, Path::new("/var/lib/skep"));
        assert_eq!(config.pid_file, Path::new("/run/skep/skep.pid"));
        assert_eq!(config.instance(), "skep");
    }

    #[test]
    fn flags_and_file_make_one_configuration() {
        let config = load(
            &["-H", "unix:///a", "-H", "unix:///b", "-D", "--init=false", "--data-root", "/d", "--bip=10.9.0.1/24"],
            r#"{"labels":["a=b"],"mtu":1400,"default-address-pools":[{"base":"10.50.0.0/16","size":18}],"dns":["1.1.1.1"]}"#,
        )
        .unwrap();
        assert_eq!(config.hosts, ["unix:///a", "unix:///b"]);
        assert!(config.reloadable.debug && !config.init);
        assert_eq!(config.reloadable.labels, ["a=b"]);
        assert_eq!((config.mtu, config.bip), (Some(1400), Some((Ipv4Addr::new(10, 9, 0, 1), 24))));
        let pools: Vec<String> = config.pools.iter().map(ToString::to_string).collect();
        assert_eq!(pools, ["10.50.0.0/18", "10.50.64.0/18", "10.50.128.0/18", "10.50.192.0/18"]);
        assert!(config.instance().starts_with("skep-") && config.instance().len() == 13);
    }

    #[test]
    fn the_same_option_in_both_places_is_refused() {
        let error = load(&["--debug"], r#"{"debug":false}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: false)"
        );
    }

    #[test]
    fn unknown_options_are_refused() {
        let error = load(&[], r#"{"colour":"red","debug":true}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the following directives don't match any configuration option: colour"
        );
        assert!(crate::daemon_command().try_get_matches_from(["daemon", "--colour"]).is_err());
    }

    #[test]
    fn what_is_not_built_is_refused_by_name_and_what_is_so_anyway_accepted() {
        let error = load(&[], r#"{"log-driver":"syslog"}"#).unwrap_err();
        assert_eq!(error.to_string(), "option --log-driver (log-driver) = syslog is not built yet");
        assert!(load(&["--iptables=false"], "").is_err());
        assert!(load(&["--iptables=true", "--storage-driver=overlay2", "--tlsverify=false"], "").is_ok());
        assert!(load(&[], r#"{"runtimes":{"nvidia":{"path":"x"}}}"#).is_err());
    }

    #[test]
    fn what_has_no_meaning_is_told() {
        let config =
            load(&["--containerd=/x"], r#"{"userland-proxy":false,"features":{"buildkit":true}}"#).unwrap();
        let named: Vec<_> = config.meaningless.iter().map(|(flag, _)| *flag).collect();
        assert_eq!(named, ["containerd", "features", "userland-proxy"]);
    }

    #[test]
    fn wrong_values_are_refused() {
        for file in [
            "{",
            "[]",
            r#"{"debug":"yes"}"#,
            r#"{"hosts":"x"}"#,
            r#"{"mtu":"1"}"#,
            r#"{"labels":[1]}"#,
            r#"{"labels":["x"]}"#,
            r#"{"bip":"10.0.0.1"}"#,
            r#"{"log-level":"loud"}"#,
            r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":30}]}"#,
        ] {
            assert!(load(&[], file).is_err(), "{file}");
        }
    }
}
