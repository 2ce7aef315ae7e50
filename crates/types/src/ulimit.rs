//! Limits of processes: `--ulimit`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub resource: RlimitResource,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Resources that getrlimit(2) knows, by the names that `--ulimit` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of getrlimit(2)")]
pub enum RlimitResource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

impl RlimitResource {
    /// Those that clients may name: Docker's list, which lacks the size of the address space.
    const NAMED: [(&str, RlimitResource); 15] = [
        ("core", RlimitResource::Core),
        ("cpu", RlimitResource::Cpu),
        ("data", RlimitResource::Data),
        ("fsize", RlimitResource::Fsize),
        ("locks", RlimitResource::Locks),
        ("memlock", RlimitResource::Memlock),
        ("msgqueue", RlimitResource::Msgqueue),
        ("nice", RlimitResource::Nice),
        ("nofile", RlimitResource::Nofile),
        ("nproc", RlimitResource::Nproc),
        ("rss", RlimitResource::Rss),
        ("rtprio", RlimitResource::Rtprio),
        ("rttime", RlimitResource::Rttime),
        ("sigpending", RlimitResource::Sigpending),
        ("stack", RlimitResource::Stack),
    ];
}

impl fmt::Display for RlimitResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = RlimitResource::NAMED.iter().find(|(_, resource)| resource == self);
        f.write_str(named.map_or("as", |(name, _)| name))
    }
}

/// A name of a limit that Docker does not know. In the words of its client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid ulimit type: {0}")]
pub struct UnknownLimit(String);

impl FromStr for RlimitResource {
    type Err = UnknownLimit;

    fn from_str(name: &str) -> Result<RlimitResource, UnknownLimit> {
        let named = RlimitResource::NAMED.iter().find(|(known, _)| *known == name);
        named.map(|(_, resource)| *resource).ok_or_else(|| UnknownLimit(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        for (name, resource) in RlimitResource::NAMED {
            assert_eq!((name.parse(), resource.to_string().as_str()), (Ok(resource), name));
        }
        let unknown = "as".parse::<RlimitResource>().map_err(|error| error.to_string());
        assert_eq!(unknown, Err("invalid ulimit type: as".to_owned()));
    }
}
