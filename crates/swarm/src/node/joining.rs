//! Entering a swarm that exists: `docker swarm join`.

use std::net::IpAddr;
use std::sync::Arc;

use skep_engine::Engine;
use skep_identity::{Credentials, JoinToken, NodeCertificate, NodeKey, Trust};
use skep_types::ip::Subnet;
use skep_types::node::Availability;
use skep_types::{ClusterId, NodeId};
use tracing::debug;

use super::shared::Shared;
use super::{Resident, keys};
use crate::addresses::{self, Place};
use crate::announce::Announcer;
use crate::record::{Folder, Record};
use crate::wire::{CallError, Connections, JoinCall};
use crate::{JoinRequest, SwarmConfig, SwarmError, interfaces};

/// A request to join, validated, with nothing done yet.
#[derive(Debug)]
pub(crate) struct Joining {
    token: JoinToken,
    /// `host:port` of managers, at least one.
    remotes: Vec<String>,
    listen: Place,
    /// `None` is the address that reaches the manager.
    advertise: Option<Place>,
    data_path: Option<IpAddr>,
    availability: Availability,
}

/// Validates all of a request and resolves its addresses.
pub(crate) fn plan(
    request: JoinRequest,
    config: &SwarmConfig,
    engine: &Engine,
) -> Result<Joining, SwarmError> {
    let JoinRequest { listen_addr, advertise_addr, data_path_addr, remote_addrs, join_token, availability } =
        request;
    let invalid = |message: &str| SwarmError::InvalidParameter(message.to_owned());
    let interfaces = interfaces::list()
        .map_err(|error| SwarmError::Internal(format!("cannot list network interfaces: {error}")))?;
    let listen = addresses::listen(&listen_addr, &interfaces)?;
    // Moby's words (daemon/cluster/swarm.go, `validateAndSanitizeJoinRequest`).
    if remote_addrs.is_empty() {
        return Err(invalid("at least 1 RemoteAddr is required to join"));
    }
    let remotes = remote_addrs.iter().map(|text| addresses::remote(text)).collect::<Result<_, _>>()?;
    let default = &config.default_advertise_addr;
    let advertise = if advertise_addr.is_empty() && default.is_empty() {
        None
    } else {
        let own: Vec<Subnet> = engine.networks().iter().filter_map(|network| network.ipam.subnet).collect();
        Some(addresses::advertise(&advertise_addr, default, listen.port, &interfaces, &own)?)
    };
    Ok(Joining {
        token: join_token.parse().map_err(|_| invalid("invalid join token"))?,
        remotes,
        listen,
        advertise,
        data_path: addresses::data_path(&data_path_addr, &interfaces)?,
        availability,
    })
}

/// What a manager gave to a machine that asked to be let in.
struct Admitted {
    certificate: NodeCertificate,
    trust: Trust,
    credentials: Credentials,
    record: Record,
}

impl Joining {
    /// Enters: asks the managers in turn until one lets this machine in, keeps what it gave, and starts the node.
    ///
    /// # Errors
    /// Why nobody let it in, or why it cannot be a node.
    pub(crate) async fn enter(
        self,
        config: SwarmConfig,
        engine: Engine,
        announcer: Announcer,
    ) -> Result<Resident, SwarmError> {
        let Admitted { certificate, trust, credentials, record } = self.ask().await?;
        let folder = Folder::new(config.dir.clone());
        let kept = record.clone();
        let keep = move || {
            folder.create().map_err(|error| SwarmError::internal(&error))?;
            let files = keys::keep_first(&folder, &certificate, &trust, None)?;
            // From here on the node is a member, whatever happens.
            folder.write(&kept).map_err(|error| SwarmError::internal(&error))?;
            Ok::<_, SwarmError>(files)
        };
        let files =
            tokio::task::spawn_blocking(keep).await.expect("the work neither panics nor is aborted")?;
        let shared = Shared::new(&config, engine, announcer, record, credentials, files);
        Resident::start(Arc::clone(&shared)).await
    }

    async fn ask(&self) -> Result<Admitted, SwarmError> {
        let mut refused = None;
        for remote in &self.remotes {
            match self.ask_one(remote).await {
                Ok(admitted) => return Ok(admitted),
                Err(error) => {
                    debug!(remote, %error, "a manager did not let this node in");
                    // Who answers tells more than who is not there.
                    let absent = matches!(error, CallError::Unreachable(_));
                    if refused.is_none() || !absent {
                        refused = Some(error);
                    }
                }
            }
        }
        Err(refused.expect("there is at least one manager to ask").into())
    }

    async fn ask_one(&self, remote: &str) -> Result<Admitted, CallError> {
        let internal = |error: &dyn std::error::Error| CallError::Refused(SwarmError::internal(error));
        let advertise = match self.advertise {
            Some(place) => place,
            None => Place { address: addresses::towards(remote).await?, port: self.listen.port },
        };
        // The root is held against the token before the token's secret leaves this machine.
        let root = Connections::fetch_root(remote, &self.token).await?;
        let key = NodeKey::generate().map_err(|error| internal(&error))?;
        let csr = key.csr().map_err(|error| internal(&error))?;
        let call = JoinCall { token: self.token.to_string(), csr, availability: self.availability };
        let answer = Connections::join(remote, &root, call).await?;
        let certificate = NodeCertificate::new(answer.chain, &key);
        let trust = Trust::parse(&answer.roots).map_err(|error| internal(&error))?;
        let now = std::time::SystemTime::now();
        let credentials =
            Credentials::new(certificate.clone(), trust.clone(), now).map_err(|error| internal(&error))?;
        let named = credentials.identity();
        let id = |text: &str, what: &str| {
            let message = format!("the manager's certificate names the {what} {text:?}, which is no id");
            text.parse().map_err(|_| CallError::Refused(SwarmError::Internal(message)))
        };
        let record = Record {
            cluster: ClusterId(id(&named.cluster, "cluster").map(|NodeId(number)| number)?),
            node: answer.node,
            listen_addr: self.listen.to_string(),
            advertise_addr: advertise.to_string(),
            address: advertise.address,
            data_path_addr: self.data_path,
            seat: None,
            joined_at: self.remotes.clone(),
        };
        Ok(Admitted { certificate, trust, credentials, record })
    }
}
