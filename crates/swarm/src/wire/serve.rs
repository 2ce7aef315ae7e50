//! The generated services, answered by [`Answers`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::debug;

use super::proto::authority_server::Authority;
use super::proto::consensus_server::Consensus;
use super::proto::control_server::Control;
use super::proto::dispatcher_server::Dispatcher;
use super::{Answers, Peer, proto, translate};
use crate::session::{FromAgent, Link};

/// How long an agent may take to say its first word.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Where a call came from. The gate put it there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) from: SocketAddr,
    pub(super) peer: Option<Peer>,
}

/// The services of one manager.
pub(super) struct Served<A>(pub(super) Arc<A>);

fn origin<T>(request: &Request<T>) -> Origin {
    *request.extensions().get::<Origin>().expect("every call comes through the gate")
}

fn peer<T>(request: &Request<T>) -> Peer {
    origin(request).peer.expect("the gate lets nobody else in")
}

#[async_trait]
impl<A: Answers> Authority for Served<A> {
    async fn root(&self, _: Request<proto::RootRequest>) -> Result<Response<proto::RootAnswer>, Status> {
        let certificate_pem = self.0.root().await?;
        Ok(Response::new(proto::RootAnswer { certificate_pem }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinAnswer>, Status> {
        let from = origin(&request).from;
        let answer = self.0.join(from, request.into_inner().into()).await?;
        Ok(Response::new(answer.into()))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewAnswer>, Status> {
        let peer = peer(&request);
        let answer = self.0.renew(peer, request.into_inner().into()).await?;
        Ok(Response::new(answer.into()))
    }
}

#[async_trait]
impl<A: Answers> Consensus for Served<A> {
    async fn message(
        &self,
        request: Request<proto::ConsensusMessage>,
    ) -> Result<Response<proto::ConsensusMessage>, Status> {
        let peer = peer(&request);
        let message = self.0.consensus(peer, request.into_inner().message).await?;
        Ok(Response::new(proto::ConsensusMessage { message }))
    }
}

#[async_trait]
impl<A: Answers> Control for Served<A> {
    async fn forward(
        &self,
        request: Request<proto::ForwardRequest>,
    ) -> Result<Response<proto::ForwardAnswer>, Status> {
        let peer = peer(&request);
        let asked = translate::read_value(&request.into_inner().request, "a request")?;
        let answer = self.0.forward(peer, asked).await?;
        Ok(Response::new(proto::ForwardAnswer { answer: translate::value(&answer) }))
    }

    async fn barrier(
        &self,
        request: Request<proto::BarrierRequest>,
    ) -> Result<Response<proto::BarrierAnswer>, Status> {
        let barrier = self.0.barrier(peer(&request)).await?;
        Ok(Response::new(barrier.into()))
    }

    async fn take_seat(
        &self,
        request: Request<proto::TakeSeatRequest>,
    ) -> Result<Response<proto::TakeSeatAnswer>, Status> {
        let peer = peer(&request);
        self.0.take_seat(peer, request.into_inner().into()).await?;
        Ok(Response::new(proto::TakeSeatAnswer {}))
    }

    async fn give_up_seat(
        &self,
        request: Request<proto::GiveUpSeatRequest>,
    ) -> Result<Response<proto::GiveUpSeatAnswer>, Status> {
        self.0.give_up_seat(peer(&request)).await?;
        Ok(Response::new(proto::GiveUpSeatAnswer {}))
    }
}

#[async_trait]
impl<A: Answers> Dispatcher for Served<A> {
    async fn guest(
        &self,
        request: Request<proto::GuestRequest>,
    ) -> Result<Response<proto::GuestAnswer>, Status> {
        let peer = peer(&request);
        let call = translate::read_value(&request.into_inner().call, "a call about guests")?;
        let answer = self.0.guest(peer, call).await?;
        Ok(Response::new(proto::GuestAnswer { answer: translate::value(&answer) }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<proto::ToAgent, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = peer(&request);
        let mut said = request.into_inner();
        let first = tokio::time::timeout(HELLO_LIMIT, said.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the session ended before its hello"))?;
        let Link { to_manager, mut from_manager } =
            self.0.session(peer, translate::read_hello(first)?).await?;
        tokio::spawn(hear(said, to_manager));
        // What waits for the network waits in the queue: who fills it sees that the agent does not read.
        let told = poll_fn(move |context| {
            from_manager.poll_recv(context).map(|told| told.map(|told| Ok(translate::to_agent(told))))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

/// Takes what an agent says, until either side ends the session.
async fn hear(mut said: Streaming<proto::FromAgent>, to_manager: mpsc::Sender<FromAgent>) {
    loop {
        let message = tokio::select! {
            message = said.message() => message,
            () = to_manager.closed() => return,
        };
        let heard = match message {
            Ok(Some(message)) => translate::read_from_agent(message),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        match heard {
            Ok(Some(heard)) => {
                if to_manager.send(heard).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(status) => {
                debug!(%status, "an agent's session broke");
                return;
            }
        }
    }
}
