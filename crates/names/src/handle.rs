//! The daemon's handle.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::tables::{Entry, View, ZoneConfig};

/// Where the server is, and what to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's socket, below the daemon's exec-root.
    pub socket: PathBuf,
    /// Our binary, which called with the word `names` calls [`names_main`]. When the running server was started from
    /// another file, one from this file takes over.
    pub program: PathBuf,
    /// The host's `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// The handle. Clones share everything. All `set_` and `remove_` functions are idempotent and return at once; what they say
/// reaches the server in that order, see [`Names::settled`].
#[derive(Clone, Debug)]
pub struct Names {}

impl Names {
    /// Opens the handle; call it inside a tokio runtime. A server is started with the first sandbox; one that a predecessor
    /// left goes on with what it knows until [`Names::complete`].
    pub fn open(config: Config) -> Names {
        let _ = config;
        Names {}
    }

    /// Says that all there is has been set once since [`Names::open`]: what the server knows beyond that is forgotten.
    /// Call it when the engine has found its containers and the cluster's networks again.
    pub fn complete(&self) {}

    /// Sets what is known of a network as a whole; `network` is any key of the caller's that is unique, as its id.
    pub fn set_zone(&self, network: &str, zone: ZoneConfig) {
        let _ = (network, zone);
    }

    /// Forgets a network and all entries of it.
    pub fn remove_zone(&self, network: &str) {
        let _ = network;
    }

    /// Sets what `owner` contributes to a network's names, in place of what it contributed before. The zone exists. `owner` is
    /// any key that is unique in the network: the service's id, the container's.
    pub fn set_entry(&self, network: &str, owner: &str, entry: Entry) {
        let _ = (network, owner, entry);
    }

    /// Takes an owner's names away.
    pub fn remove_entry(&self, network: &str, owner: &str) {
        let _ = (network, owner);
    }

    /// Has questions from a sandbox answered. A namespace that was made anew at the same path is noticed when this is called.
    pub fn set_sandbox(&self, sandbox: &str, view: View) {
        let _ = (sandbox, view);
    }

    /// Ends that; the server lets go of the namespace.
    pub fn remove_sandbox(&self, sandbox: &str) {
        let _ = sandbox;
    }

    /// Waits until the server answers by all that was set before this call, at most two seconds (`false` then: it is told as
    /// soon as it can be). Returns at once while there is no sandbox.
    pub async fn settled(&self) -> bool {
        true
    }

    /// Closes the handle, in the daemon's good end. The server ends as well if there is no sandbox; otherwise it goes on, and
    /// knows what it was told.
    pub async fn shutdown(&self) {}
}

/// The body of `skep names`, with the arguments after that word. The daemon starts it; nobody types it.
pub fn names_main(arguments: &[OsString]) -> ! {
    let _ = arguments;
    std::process::exit(2)
}
