//! What a node keeps secret and what it shows: its key and certificate, the keys of its log, the unlock key.

use std::time::{Duration, SystemTime};

use skep_consensus::{Config, Consensus, LogError, LogKey};
use skep_identity::{
    Credentials, DataKey, DataKeys, Files, FilesError, NodeCertificate, NodeKey, Relock, RootName, Trust,
    UnlockKey,
};
use skep_types::node::NodeTls;
use skep_types::swarm::Secret;
use tracing::{info, warn};

use super::shared::Shared;
use crate::SwarmError;
use crate::founding::random;
use crate::manager::Manager;
use crate::record::Folder;
use crate::wire::{CallError, RenewCall};

/// Wait for the next certificate where the present one does not say when it ends.
const UNKNOWN_LIFE: Duration = Duration::from_secs(3600);

/// A node's files, read.
pub(crate) enum Loaded {
    Open(Credentials, Files),
    /// The unlock key is missing, or is another one.
    Locked,
}

fn failed(error: impl std::error::Error) -> SwarmError {
    SwarmError::internal(&error)
}

/// Keeps the first certificate of a node, whose file is locked with `unlock_key` from the start. Blocks.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn keep_first(
    folder: &Folder,
    certificate: &NodeCertificate,
    trust: &Trust,
    unlock_key: Option<UnlockKey>,
) -> Result<Files, SwarmError> {
    let files = Files::new(folder.certificates());
    // Version 0 is that of a file that was never locked.
    let version = u64::from(unlock_key.is_some());
    let kept = files.save_roots(trust).and_then(|()| files.create(certificate, None, unlock_key, version));
    kept.map(|()| files).map_err(failed)
}

/// Reads a node's files.
///
/// # Errors
/// When they are damaged.
pub(crate) async fn load(folder: Folder, unlock_key: Option<UnlockKey>) -> Result<Loaded, SwarmError> {
    let read = move || {
        let files = Files::new(folder.certificates());
        if let Some(key) = unlock_key {
            match files.unlock(key) {
                Err(FilesError::WrongKey { .. }) => return Ok(Loaded::Locked),
                unlocked => unlocked.map_err(failed)?,
            }
        }
        if files.is_locked().map_err(failed)? {
            return Ok(Loaded::Locked);
        }
        let (certificate, trust) = (files.load_node().map_err(failed)?, files.load_roots().map_err(failed)?);
        // One that has expired is refused by the others, and they say so.
        let credentials = Credentials::unverified(certificate, trust).map_err(failed)?;
        Ok(Loaded::Open(credentials, files))
    };
    tokio::task::spawn_blocking(read).await.expect("reading neither panics nor is aborted")
}

/// How this node's part in the consensus is opened. A log whose key once lay open is encrypted anew before. Blocks.
///
/// # Errors
/// When the files or the log cannot be read or written.
pub(crate) fn consensus(files: &Files, folder: &Folder, seat: u64) -> Result<Config, SwarmError> {
    let dir = folder.log();
    let kept = files.data_keys().map_err(failed)?;
    let current = match kept {
        Some(DataKeys { current, pending: None, needs_rotation: false }) => current,
        Some(keys) if dir.exists() => {
            let next = match keys.pending.clone() {
                Some(pending) => pending,
                None => DataKey::generate().map_err(failed)?,
            };
            let began = DataKeys { pending: Some(next.clone()), ..keys.clone() };
            files.set_data_keys(Some(began)).map_err(failed)?;
            let (old, new) = (LogKey::new(keys.current.0), LogKey::new(next.0));
            // A crash may have come between the log's new key and the file that says so.
            match Consensus::rekey(&dir, &old, &new) {
                Err(LogError::Key) | Ok(()) => {}
                Err(error) => return Err(failed(error)),
            }
            keep_data_key(files, next)?
        }
        Some(_) | None => keep_data_key(files, DataKey::generate().map_err(failed)?)?,
    };
    Ok(Config::new(dir, seat, LogKey::new(current.0)))
}

fn keep_data_key(files: &Files, key: DataKey) -> Result<DataKey, SwarmError> {
    let keys = DataKeys { current: key.clone(), pending: None, needs_rotation: false };
    files.set_data_keys(Some(keys)).map_err(failed)?;
    Ok(key)
}

/// What this node tells of what its certificate stands on.
pub(crate) fn tls_of(credentials: &Credentials) -> NodeTls {
    let trust_root = credentials.trust().pem().to_owned();
    match RootName::of_issuer(&credentials.node().chain_pem, &trust_root) {
        Ok(RootName { subject_der, public_key_der }) => {
            NodeTls { trust_root, issuer_subject: subject_der, issuer_public_key: public_key_der }
        }
        // Its issuer is none of the roots of today: the leader has it renew.
        Err(_) => NodeTls { trust_root, ..NodeTls::default() },
    }
}

/// When the next certificate is asked for.
pub(crate) fn renewal_time(credentials: &Credentials) -> SystemTime {
    // Without randomness all nodes come at once, which is no harm.
    let number = random().map_or(0, u32::from_be_bytes);
    skep_identity::renewal_time(&credentials.node().chain_pem, number)
        .unwrap_or_else(|_| SystemTime::now() + UNKNOWN_LIFE)
}

/// Asks the leader for a new certificate, in the role that it wants of this node, keeps and uses it.
pub(crate) async fn renew(shared: &Shared) -> Result<(), SwarmError> {
    let key = NodeKey::generate().map_err(failed)?;
    let call = RenewCall { csr: key.csr().map_err(failed)? };
    let own = match shared.office() {
        Some(office) => office.desk.certify(shared.node(), call.clone()).await,
        None => Err(CallError::NotLeader { leader: None }),
    };
    let answer = match own {
        Err(CallError::NotLeader { .. }) => {
            let ask = |address: String| {
                let (connections, call) = (shared.connections.clone(), call.clone());
                async move { connections.renew(&address, call).await }
            };
            shared.managers.ask_leader(ask).await?
        }
        own => own?,
    };
    let certificate = NodeCertificate::new(answer.chain, &key);
    let trust = Trust::parse(&answer.roots).map_err(failed)?;
    let now = SystemTime::now();
    // Nothing is kept that could not be used.
    Credentials::new(certificate.clone(), trust.clone(), now).map_err(failed)?;
    keep(shared, certificate.clone(), trust.clone()).await?;
    shared.credentials.replace(certificate, trust, now).map_err(failed)?;
    shared.tell_certificate();
    info!(role = shared.credentials.identity().role.unit(), "this node's certificate was renewed");
    Ok(())
}

/// Takes the roots that the leader tells.
pub(crate) async fn trust(shared: &Shared, roots: String) -> Result<(), SwarmError> {
    let trust = Trust::parse(&roots).map_err(failed)?;
    if trust == shared.credentials.trust() {
        return Ok(());
    }
    let certificate = shared.credentials.node();
    shared.credentials.replace(certificate.clone(), trust.clone(), SystemTime::now()).map_err(failed)?;
    shared.tell_certificate();
    keep(shared, certificate, trust).await
}

/// Locks this manager's key file with the key that the cluster has now, or unlocks it.
///
/// # Errors
/// When the disk refuses.
pub(crate) async fn follow_unlock_key(shared: &Shared, manager: &Manager) -> Result<(), SwarmError> {
    let told = manager.read(|objects| {
        objects.cluster().map(|cluster| (cluster.unlock_key.clone(), cluster.meta.version.0))
    });
    let Some((wanted, version)) = told else { return Ok(()) };
    let wanted = match wanted.map(|Secret(text)| text.parse::<UnlockKey>()).transpose() {
        Ok(wanted) => wanted,
        Err(error) => {
            warn!(%error, "the cluster's unlock key cannot be read");
            return Ok(());
        }
    };
    let files = shared.files.clone();
    // What is older than what was done already is not done.
    match shared.on_disk(move || files.relock(wanted, version).map_err(failed)).await? {
        Relock::Unchanged => {}
        Relock::Changed | Relock::Began => info!("this manager's key file follows the cluster's unlock key"),
    }
    Ok(())
}

/// A worker's key file is not locked, and has no key of a log: it holds nothing of the cluster. `version` is later
/// than any of the cluster that the manager followed, and earlier than any that it can get to know as the next one.
///
/// # Errors
/// When the disk refuses.
pub(crate) async fn forget_manager(shared: &Shared, version: u64) -> Result<(), SwarmError> {
    let files = shared.files.clone();
    let forget = move || {
        files.set_data_keys(None).and_then(|()| files.relock(None, version)).map(|_| ()).map_err(failed)
    };
    shared.on_disk(forget).await
}

async fn keep(shared: &Shared, certificate: NodeCertificate, trust: Trust) -> Result<(), SwarmError> {
    let files = shared.files.clone();
    let keep = move || {
        // The wider trust first: a certificate on a root that is not trusted would be of no use.
        files.save_roots(&trust).and_then(|()| files.save_node(&certificate)).map_err(failed)
    };
    shared.on_disk(keep).await
}
