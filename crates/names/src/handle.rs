//! The daemon's handle.

mod keeper;
mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::tables::{Entry, View, ZoneConfig};
use keeper::Keeper;
use state::State;

/// How long [`Names::settled`] and [`Names::shutdown`] wait.
const SETTLE: Duration = Duration::from_secs(2);

/// Where the server is, and what to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's socket, below the daemon's exec-root.
    pub socket: PathBuf,
    /// Our binary, which called with the word `names` calls [`crate::names_main`]. When the running server was started from
    /// another file, one from this file takes over.
    pub program: PathBuf,
    /// The host's `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// The handle. Clones share everything. All `set_` and `remove_` functions are idempotent and return at once; the server has
/// what they say soon, see [`Names::settled`].
///
/// A server runs while there is a sandbox. One that was killed is started again at once and told everything again.
#[derive(Clone, Debug)]
pub struct Names {
    shared: Arc<Shared>,
    keeper: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// What handle and keeper share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something in the state has changed.
    changed: Notify,
    /// Up to which version of the state the server has it.
    told: watch::Sender<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it is held")
    }
}

impl Names {
    /// Opens the handle; call it inside a tokio runtime. A server is started with the first sandbox. One that a predecessor
    /// left goes on with what it knows until [`Names::complete`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(config: Config) -> Names {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            told: watch::Sender::default(),
        });
        let keeper = tokio::spawn(Keeper::new(config, Arc::clone(&shared)).run());
        Names { shared, keeper: Arc::new(tokio::sync::Mutex::new(Some(keeper))) }
    }

    /// Says that all there is has been set since [`Names::open`]: what the server knows beyond that is forgotten, and one that
    /// was started from another program may be replaced. Call it when the engine has found its containers and the cluster's
    /// networks again.
    pub fn complete(&self) {
        self.change(State::complete);
    }

    /// Sets what is known of a network as a whole; `network` is any key of the caller's that is unique, as its id.
    pub fn set_zone(&self, network: &str, zone: ZoneConfig) {
        self.change(|state| state.set_zone(network, zone));
    }

    /// Forgets a network and all entries of it.
    pub fn remove_zone(&self, network: &str) {
        self.change(|state| state.remove_zone(network));
    }

    /// Sets what `owner` contributes to a network's names, in place of what it contributed before. `owner` is any key that is
    /// unique in the network: the service's id, the container's. For a network that was not set, nothing happens.
    pub fn set_entry(&self, network: &str, owner: &str, entry: Entry) {
        self.change(|state| state.set_entry(network, owner, entry));
    }

    /// Takes an owner's names away.
    pub fn remove_entry(&self, network: &str, owner: &str) {
        self.change(|state| state.remove_entry(network, owner));
    }

    /// Has questions from a sandbox answered. A namespace that was made anew at the same path is noticed when this is called.
    pub fn set_sandbox(&self, sandbox: &str, view: View) {
        self.change(|state| state.set_sandbox(sandbox, view));
    }

    /// Ends that; the server lets go of the namespace.
    pub fn remove_sandbox(&self, sandbox: &str) {
        self.change(|state| state.remove_sandbox(sandbox));
    }

    /// Waits until the server answers by all that was set before this call, at most two seconds (`false` then: it will as soon
    /// as it can; why it cannot is in the daemon's log). Returns at once when no server is needed.
    pub async fn settled(&self) -> bool {
        let version = {
            let state = self.shared.state();
            if state.is_idle() {
                return true;
            }
            state.version()
        };
        let mut told = self.shared.told.subscribe();
        let reached = told.wait_for(|told| *told >= version);
        matches!(tokio::time::timeout(SETTLE, reached).await, Ok(Ok(_)))
    }

    /// Closes the handle, at the daemon's good end. The server ends as well if there is no sandbox; otherwise it goes on, and
    /// knows what was set.
    pub async fn shutdown(&self) {
        self.change(State::close);
        if let Some(keeper) = self.keeper.lock().await.take() {
            let abort = keeper.abort_handle();
            if tokio::time::timeout(SETTLE, keeper).await.is_err() {
                abort.abort();
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_one();
    }
}
