//! What a tunnel process leaves to the program that it becomes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::protocol::Configuration;
use crate::session::Frozen;
use crate::sys;

/// The argument that says that the next one is the number of a descriptor with a [`Handover`].
pub(crate) const WORD: &str = "--take-over";

/// Descriptors by their numbers, and what they are for. Secret. New fields need defaults: what reads it may be older or
/// newer than what wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) listener: RawFd,
    pub(crate) networks: Vec<HandedNetwork>,
    pub(crate) link: Option<(Configuration, RawFd, Vec<Frozen>)>,
}

/// A network that goes on being carried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedNetwork {
    pub(crate) vni: u32,
    pub(crate) device: String,
    pub(crate) tap: RawFd,
    pub(crate) peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

impl Handover {
    /// Writes it to a file without a name that stays open, and returns its number, too.
    pub(crate) fn write(&self) -> io::Result<(File, String)> {
        let mut file = File::from(rustix::fs::memfd_create("skep tunnel", MemfdFlags::empty())?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        let number = file.as_raw_fd().to_string();
        Ok((file, number))
    }

    pub(crate) fn read(number: &OsStr) -> io::Result<Handover> {
        let number: Option<RawFd> = OsString::from(number).into_string().ok().and_then(|it| it.parse().ok());
        let number =
            number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a number is needed"))?;
        let mut text = Vec::new();
        File::from(sys::inherited(number)).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}
