//! Requests: on the leader to the brain, on a follower to the leader.

use std::time::Duration;

use skep_cluster::{Answer, Refusal, RefusalKind, Request};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::shared::Place;
use super::{Input, Manager};
use crate::SwarmError;
use crate::wire::CallError;

/// How long a request waits for a leader: longer than an election takes.
pub(super) const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a leader tries to have a request agreed on.
const AGREEMENT: Duration = Duration::from_secs(10);
/// How long a follower waits for the leader's answer: longer than the leader itself tries.
const FORWARD: Duration = Duration::from_secs(12);
/// Wait before a leader is looked for again, unless something changes before.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Docker's words, without the gRPC status that its daemon puts before them.
pub(crate) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half \
     of the managers are online.";
const UNKNOWN: &str = "the leader of the swarm was lost while it worked on the request; whether the request took effect is not known";
const ENDED: &str = "the swarm is shutting down on this node";

impl Manager {
    /// Asks for a change, on whichever manager; answered once it is durable. Waits some seconds for a leader when
    /// there is none, and goes to the next one when the request certainly had no effect on the last.
    ///
    /// # Errors
    /// What the cluster refuses; 503 without a leader, or when the fate of the request is unknown.
    pub(crate) async fn request(&self, request: Request) -> Result<Answer, SwarmError> {
        let deadline = Instant::now() + LEADER_WAIT;
        let mut standings = self.shared.standings();
        loop {
            standings.mark_unchanged();
            if let Some(trouble) = self.shared.trouble() {
                return Err(SwarmError::Unavailable(trouble));
            }
            let answer = match self.shared.place() {
                Place::Here => self.handle(request.clone()).await,
                Place::At(address) => {
                    let asked = self.shared.remote.forward(&address, &request);
                    timeout(FORWARD, asked).await.unwrap_or_else(|_| Err(CallError::Lost(String::new())))
                }
                Place::Nowhere => Err(CallError::NotLeader { leader: None }),
            };
            let untouched = match answer {
                Ok(answer) => return Ok(answer),
                Err(CallError::Refused(refused)) => return Err(refused),
                Err(CallError::Lost(reason)) => {
                    let told = self.shared.trouble().unwrap_or(reason);
                    let told = if told.is_empty() { UNKNOWN.to_owned() } else { told };
                    return Err(SwarmError::Unavailable(told));
                }
                Err(CallError::NotLeader { .. } | CallError::Unreachable(_)) => NO_LEADER.to_owned(),
                Err(other) => other.to_string(),
            };
            if self.inputs.is_closed() {
                return Err(SwarmError::Unavailable(ENDED.to_owned()));
            }
            if Instant::now() >= deadline {
                return Err(SwarmError::Unavailable(untouched));
            }
            // Also without a change: the one that was asked may have been just about to lead.
            let _ = timeout(PAUSE, standings.changed()).await;
        }
    }

    /// Does what was asked, where this manager leads.
    ///
    /// # Errors
    /// What the cluster refuses; [`CallError::NotLeader`], and nothing happened;
    /// [`CallError::Lost`] when nobody knows what happened.
    pub(crate) async fn handle(&self, request: Request) -> Result<Answer, CallError> {
        let (answered, answer) = oneshot::channel();
        if self.inputs.send(Input::Request(request, answered)).await.is_err() {
            return Err(CallError::Unreachable(ENDED.to_owned()));
        }
        match timeout(AGREEMENT, answer).await {
            Ok(Ok(answer)) => answer,
            // It stopped or reached no majority in between.
            Ok(Err(_)) | Err(_) => Err(CallError::Lost(UNKNOWN.to_owned())),
        }
    }
}

/// What the brain's refusal is to whoever asked.
pub(super) fn refused(refusal: Refusal, trouble: Option<String>) -> CallError {
    let Refusal { kind, message } = refusal;
    CallError::Refused(match kind {
        RefusalKind::NotFound => SwarmError::NotFound(message),
        RefusalKind::Conflict => SwarmError::Conflict(message),
        RefusalKind::Invalid | RefusalKind::Precondition => SwarmError::InvalidParameter(message),
        RefusalKind::Unsupported => SwarmError::Unsupported(message),
        RefusalKind::OutOfSequence | RefusalKind::Log => SwarmError::Internal(message),
        RefusalKind::Unavailable => return CallError::Lost(trouble.unwrap_or_else(|| UNKNOWN.to_owned())),
    })
}
