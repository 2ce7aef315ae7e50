//! Where a registry is: addresses, and in which order they are tried.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::RegistryError;

/// The registry of names without one.
const DOCKER: &str = "docker.io";
/// Where it answers.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// How registries are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--insecure-registry`: registries whose certificates are not verified, and that may speak in clear.
    pub insecure: Vec<Insecure>,
    /// `--registry-mirror`: addresses that are asked before Docker's own registry, when images are pulled.
    pub mirrors: Vec<String>,
    /// Folder of certificates: one folder for each `host` or `host:port`, authorities as `*.crt` in it.
    pub certificates: PathBuf,
    /// `--max-concurrent-downloads`: layers that are pulled at the same time for one image.
    pub downloads: usize,
    /// `--max-concurrent-uploads`: layers that are pushed at the same time for one image.
    pub uploads: usize,
    /// `--max-download-attempts`: attempts at a request before it is given up.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each.
    pub pause: Duration,
    /// How long a registry may send nothing at all.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certificates: PathBuf::from("/etc/docker/certs.d"),
            downloads: 3,
            uploads: 5,
            attempts: 5,
            pause: Duration::from_secs(1),
            patience: Duration::from_secs(60),
        }
    }
}

/// An entry of `--insecure-registry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// `host` or `host:port`, as it stands in names of images.
    Host(String),
    /// All addresses with these first bits.
    Net(IpAddr, u8),
}

impl std::fmt::Display for Insecure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Insecure::Host(host) => f.write_str(host),
            Insecure::Net(address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl Insecure {
    /// Reads an entry: a range such as `10.0.0.0/8`, or a host.
    ///
    /// # Errors
    /// For what is neither, in dockerd's words.
    pub fn parse(text: &str) -> Result<Insecure, String> {
        let invalid = |why: &str| format!("insecure registry {text} is not valid: {why}");
        if let Some((address, prefix)) = text.split_once('/')
            && let Ok(address) = address.parse::<IpAddr>()
        {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits);
            return Ok(Insecure::Net(address, prefix.ok_or_else(|| invalid("invalid prefix length"))?));
        }
        // As dockerd: a scheme is taken off.
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            return Err(invalid(&format!("invalid host {host:?}")));
        }
        Ok(Insecure::Host(host.to_owned()))
    }

    /// Whether it is a range of addresses.
    pub fn is_net(&self) -> bool {
        matches!(self, Insecure::Net(..))
    }

    fn holds(&self, address: IpAddr) -> bool {
        match self {
            Insecure::Host(_) => false,
            Insecure::Net(net, prefix) => {
                bits(*net, *prefix).is_some_and(|net| bits(address, *prefix) == Some(net))
            }
        }
    }
}

/// The first bits of an address, and of which kind it is.
fn bits(address: IpAddr, prefix: u8) -> Option<(bool, u128)> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let shift = 32u32.checked_sub(prefix)?;
            Some((true, u128::from(u32::from(address)).checked_shr(shift).unwrap_or(0)))
        }
        IpAddr::V6(address) => {
            let shift = 128u32.checked_sub(prefix)?;
            Some((false, u128::from(address).checked_shr(shift).unwrap_or(0)))
        }
    }
}

/// One way to reach a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    /// Whether its certificate must be one that is trusted.
    pub(crate) verify: bool,
    /// `host` or `host:port`.
    pub(crate) authority: String,
    /// A path before `/v2/`; mirrors may have one.
    pub(crate) prefix: String,
    pub(crate) mirror: bool,
}

impl Endpoint {
    /// Address of the registry, without a slash at its end.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.prefix)
    }
}

/// The ways to reach `registry`, in the order in which they are tried. Mirrors are only for pulling.
pub(crate) async fn endpoints(
    settings: &Settings,
    registry: &str,
    with_mirrors: bool,
) -> Result<Vec<Endpoint>, RegistryError> {
    let mut endpoints = Vec::new();
    let is_docker = registry == DOCKER;
    for mirror in settings.mirrors.iter().filter(|_| is_docker && with_mirrors) {
        endpoints.push(mirror_endpoint(settings, mirror).await?);
    }
    let authority = if is_docker { DOCKER_HOST } else { registry };
    let insecure = !is_docker && is_insecure(settings, registry).await;
    let endpoint = Endpoint {
        tls: true,
        verify: !insecure,
        authority: authority.to_owned(),
        prefix: String::new(),
        mirror: false,
    };
    if insecure {
        endpoints.extend([endpoint.clone(), Endpoint { tls: false, ..endpoint }]);
    } else {
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

async fn mirror_endpoint(settings: &Settings, mirror: &str) -> Result<Endpoint, RegistryError> {
    let (tls, rest) = match (mirror.strip_prefix("https://"), mirror.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        _ => return Err(RegistryError::Document(format!("invalid mirror: {mirror}"))),
    };
    let (authority, prefix) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let verify = !is_insecure(settings, authority).await;
    let prefix = prefix.trim_end_matches('/').to_owned();
    Ok(Endpoint { tls, verify, authority: authority.to_owned(), prefix, mirror: true })
}

/// As Docker: what is listed, and what is on loopback, by whatever name.
async fn is_insecure(settings: &Settings, registry: &str) -> bool {
    let host = host_of(registry);
    let listed = |entry: &Insecure| matches!(entry, Insecure::Host(name) if name == registry || name == host);
    if settings.insecure.iter().any(listed) {
        return true;
    }
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        // A name that cannot be resolved is told of by whoever connects.
        Err(_) => tokio::net::lookup_host((host, 443))
            .await
            .map(|found| found.map(|address| address.ip()).collect())
            .unwrap_or_default(),
    };
    let is_open = |address: &IpAddr| {
        address.is_loopback() || settings.insecure.iter().any(|entry| entry.holds(*address))
    };
    addresses.iter().any(is_open)
}

/// The host of `host:port`, without the brackets of IPv6.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split_once(']').map_or(authority, |(address, _)| address);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bases(settings: &Settings, registry: &str, with_mirrors: bool) -> Vec<String> {
        let found = endpoints(settings, registry, with_mirrors).await.unwrap();
        found.iter().map(|endpoint| format!("{} {}", endpoint.base(), endpoint.verify)).collect()
    }

    #[tokio::test]
    async fn only_loopback_and_what_is_listed_is_spoken_to_in_clear() {
        let insecure = ["10.0.0.0/8", "reg.example:5000", "http://old.example", "fd00::/8"];
        let settings = Settings {
            insecure: insecure.iter().map(|text| Insecure::parse(text).unwrap()).collect(),
            ..Settings::default()
        };
        for clear in [
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "localhost:5000",
            "10.1.2.3",
            "reg.example:5000",
            "old.example",
            "[fd00::1]:5000",
        ] {
            let expected = [format!("https://{clear} false"), format!("http://{clear} false")];
            assert_eq!(bases(&settings, clear, true).await, expected);
        }
        for secure in ["11.1.2.3:5000", "[fe00::1]", "192.0.2.1"] {
            assert_eq!(bases(&settings, secure, true).await, [format!("https://{secure} true")]);
        }
    }

    #[tokio::test]
    async fn mirrors_are_asked_first_when_docker_s_own_images_are_pulled() {
        let settings = Settings {
            mirrors: vec!["http://127.0.0.1:5000/".into(), "https://192.0.2.1/path".into()],
            ..Settings::default()
        };
        let own = "https://registry-1.docker.io true";
        let expected = ["http://127.0.0.1:5000 false", "https://192.0.2.1/path true", own];
        assert_eq!(bases(&settings, "docker.io", true).await, expected);
        assert_eq!(bases(&settings, "docker.io", false).await, [own]);
        assert_eq!(bases(&settings, "192.0.2.2", true).await, ["https://192.0.2.2 true"]);
    }

    #[test]
    fn nonsense_is_no_insecure_registry() {
        for text in ["", "a/b", "10.0.0.0/33", "a b", "u@h"] {
            assert!(Insecure::parse(text).is_err(), "{text}");
        }
    }
}
