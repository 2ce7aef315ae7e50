//! Asking other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{once, poll_fn};
use skep_cluster::{Answer, Request};
use skep_identity::{
    Credentials, JoinToken, Trust, join_client_config, unverified_client_config, verify_root,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};
use tracing::debug;

use super::channel::{Channel, origin};
use super::pool::{Lane, Pool};
use super::proto::authority_client::AuthorityClient;
use super::proto::consensus_client::ConsensusClient;
use super::proto::control_client::ControlClient;
use super::proto::dispatcher_client::DispatcherClient;
use super::{
    Barrier, CONSENSUS_LIMIT, CONTROL_LIMIT, CallError, GuestAnswer, GuestCall, JoinAnswer, JoinCall,
    RenewAnswer, RenewCall, SESSION_QUEUE, SeatCall, TO_AGENT_LIMIT, proto, translate,
};
use crate::session::{Hello, Link, ToAgent};

/// Longest waits for an answer. To sign, an authority outside may have to be asked.
const SIGN_LIMIT: Duration = Duration::from_secs(25);
const ROOT_LIMIT: Duration = Duration::from_secs(5);
/// The consensus gives up much sooner on what matters; this bounds large snapshots on slow networks.
const CONSENSUS_WAIT: Duration = Duration::from_secs(30);
const FORWARD_LIMIT: Duration = Duration::from_secs(30);
const BARRIER_LIMIT: Duration = Duration::from_secs(5);
const SEAT_LIMIT: Duration = Duration::from_secs(30);
const SESSION_LIMIT: Duration = Duration::from_secs(5);

/// Connections to managers, made when first used and kept. Clones share them.
///
/// A call to a manager that is gone fails at once with [`CallError::Unreachable`], and the next one tries to
/// connect anew. Addresses are `host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pool: Arc<Pool>,
}

impl Connections {
    /// No connections yet. New ones are made with what `credentials` holds at that time, and calls go over
    /// connections that were made with what it holds now.
    pub(crate) fn new(credentials: Credentials) -> Connections {
        Connections { pool: Arc::new(Pool::new(credentials)) }
    }

    /// Fetches the cluster's root from a manager that is not trusted yet, and holds it against the token's digest.
    /// No secret is sent.
    pub(crate) async fn fetch_root(address: &str, token: &JoinToken) -> Result<Trust, CallError> {
        let config = unverified_client_config().map_err(|error| CallError::Denied(error.to_string()))?;
        let answer = call(Channel::connect(address, config), ROOT_LIMIT, |channel| async move {
            AuthorityClient::with_origin(channel, origin()).root(proto::RootRequest {}).await
        });
        verify_root(token, &answer.await?.certificate_pem)
            .map_err(|error| CallError::Unauthenticated(error.to_string()))
    }

    /// Asks a manager that stands on the root that [`Connections::fetch_root`] gave to be let in.
    pub(crate) async fn join(address: &str, root: &Trust, asked: JoinCall) -> Result<JoinAnswer, CallError> {
        let config = join_client_config(root).map_err(|error| CallError::Denied(error.to_string()))?;
        join(Channel::connect(address, config), asked).await
    }

    /// Hands a join that came to a follower on to the leader.
    pub(crate) async fn pass_join_on(&self, address: &str, asked: JoinCall) -> Result<JoinAnswer, CallError> {
        join(self.pool.channel(address, Lane::Calls), asked).await
    }

    /// Asks for a new certificate of this node.
    pub(crate) async fn renew(&self, address: &str, asked: RenewCall) -> Result<RenewAnswer, CallError> {
        let answer = self.call(address, SIGN_LIMIT, |channel| async move {
            let asked = proto::RenewRequest::from(asked);
            AuthorityClient::with_origin(channel, origin()).renew(asked).await
        });
        Ok(answer.await?.into())
    }

    /// Sends a message of the consensus.
    pub(crate) async fn consensus(&self, address: &str, message: Bytes) -> Result<Bytes, CallError> {
        let channel = self.pool.channel(address, Lane::Consensus);
        let answer = call(channel, CONSENSUS_WAIT, |channel| async move {
            ConsensusClient::with_origin(channel, origin())
                .max_decoding_message_size(CONSENSUS_LIMIT)
                .message(proto::ConsensusMessage { message })
                .await
        });
        Ok(answer.await?.message)
    }

    /// Has the leader do what a user of this manager asked.
    pub(crate) async fn forward(&self, address: &str, request: &Request) -> Result<Answer, CallError> {
        let request = translate::value(request);
        let answer = self.call(address, FORWARD_LIMIT, |channel| async move {
            ControlClient::with_origin(channel, origin())
                .max_encoding_message_size(CONTROL_LIMIT)
                .forward(proto::ForwardRequest { request })
                .await
        });
        understood(translate::read_value(&answer.await?.answer, "an answer"))
    }

    /// Asks the leader for a point to read at.
    pub(crate) async fn barrier(&self, address: &str) -> Result<Barrier, CallError> {
        let answer = self.call(address, BARRIER_LIMIT, |channel| async move {
            ControlClient::with_origin(channel, origin()).barrier(proto::BarrierRequest {}).await
        });
        Ok(answer.await?.into())
    }

    /// Asks the leader for a seat in the consensus.
    pub(crate) async fn take_seat(&self, address: &str, asked: SeatCall) -> Result<(), CallError> {
        let answer = self.call(address, SEAT_LIMIT, |channel| async move {
            let asked = proto::TakeSeatRequest::from(asked);
            ControlClient::with_origin(channel, origin()).take_seat(asked).await
        });
        answer.await.map(|proto::TakeSeatAnswer {}| ())
    }

    /// Tells the leader that this node gives up its seat.
    pub(crate) async fn give_up_seat(&self, address: &str) -> Result<(), CallError> {
        let answer = self.call(address, SEAT_LIMIT, |channel| async move {
            ControlClient::with_origin(channel, origin()).give_up_seat(proto::GiveUpSeatRequest {}).await
        });
        answer.await.map(|proto::GiveUpSeatAnswer {}| ())
    }

    /// Asks the leader about containers of this node that are no tasks.
    pub(crate) async fn guest(&self, address: &str, asked: &GuestCall) -> Result<GuestAnswer, CallError> {
        let call = translate::value(asked);
        let answer = self.call(address, FORWARD_LIMIT, |channel| async move {
            DispatcherClient::with_origin(channel, origin()).guest(proto::GuestRequest { call }).await
        });
        understood(translate::read_value(&answer.await?.answer, "an answer about guests"))
    }

    /// Opens a session with the leader.
    pub(crate) async fn session(&self, address: &str, hello: Hello) -> Result<Link, CallError> {
        let (to_manager, mut said) = mpsc::channel(SESSION_QUEUE);
        let (told, from_manager) = mpsc::channel(SESSION_QUEUE);
        let first = translate::hello(&hello);
        let rest =
            poll_fn(move |context| said.poll_recv(context).map(|said| said.map(translate::from_agent)));
        let said = once(std::future::ready(first)).chain(rest);
        let answer = self.call(address, SESSION_LIMIT, |channel| async move {
            DispatcherClient::with_origin(channel, origin())
                .max_decoding_message_size(TO_AGENT_LIMIT)
                .session(said)
                .await
        });
        tokio::spawn(hear(answer.await?, told));
        Ok(Link { to_manager, from_manager })
    }

    /// Forgets the connections to a manager that is none any more.
    pub(crate) fn forget(&self, address: &str) {
        self.pool.forget(address);
    }

    async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        address: &str,
        limit: Duration,
        ask: impl FnOnce(Channel) -> F,
    ) -> Result<T, CallError> {
        call(self.pool.channel(address, Lane::Calls), limit, ask).await
    }
}

async fn join(
    channel: impl Future<Output = Result<Channel, CallError>>,
    asked: JoinCall,
) -> Result<JoinAnswer, CallError> {
    let answer = call(channel, SIGN_LIMIT, |channel| async move {
        let asked = proto::JoinRequest::from(asked);
        AuthorityClient::with_origin(channel, origin()).join(asked).await
    });
    understood(answer.await?.try_into())
}

/// One call on a connection that may have to be made first.
async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
    channel: impl Future<Output = Result<Channel, CallError>>,
    limit: Duration,
    ask: impl FnOnce(Channel) -> F,
) -> Result<T, CallError> {
    let channel = channel.await?;
    match timeout(limit, ask(channel.clone())).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(channel.explain(status).await),
        Err(_) => Err(CallError::Lost(format!("no answer came within {} s", limit.as_secs()))),
    }
}

/// An answer that cannot be read is of a call that may have had its effect.
fn understood<T>(answer: Result<T, Status>) -> Result<T, CallError> {
    answer.map_err(|status| CallError::Lost(status.message().to_owned()))
}

/// Takes what the leader says, until either side ends the session.
async fn hear(mut said: Streaming<proto::ToAgent>, told: mpsc::Sender<ToAgent>) {
    loop {
        let message = tokio::select! {
            message = said.message() => message,
            () = told.closed() => return,
        };
        let heard = match message {
            Ok(Some(message)) => translate::read_to_agent(message),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        match heard {
            Ok(Some(heard)) => {
                if told.send(heard).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(status) => {
                debug!(%status, "the session with the leader broke");
                return;
            }
        }
    }
}
