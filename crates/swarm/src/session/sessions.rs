//! The leader's side of all sessions.

use std::time::Duration;

use skep_types::NodeId;
use skep_types::assignment::Assignment;
use tokio::sync::mpsc;

use super::{Hello, Link, News};
use crate::manager::Input;
use crate::wire::CallError;

/// The leader's sessions. Clones share them.
///
/// Nothing here waits for an agent: one that does not take what it is told has its session cut, and gets
/// everything anew in the next.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    _inputs: mpsc::Sender<Input>,
}

impl Sessions {
    /// No sessions, and no lead. Agents' events go to `inputs`.
    pub(crate) fn new(inputs: mpsc::Sender<Input>) -> Sessions {
        Sessions { _inputs: inputs }
    }

    /// This manager leads from now on. Those of `nodes` that do not open a session within their time of grace are
    /// told as lost.
    pub(crate) fn lead(&self, _period: Duration, _nodes: impl IntoIterator<Item = NodeId>) {
        todo!()
    }

    /// This manager leads no longer: ends all sessions, so that agents look for the next leader at once. Nobody is
    /// told as lost.
    pub(crate) fn depose(&self) {
        todo!()
    }

    /// The time between heartbeats from now on.
    pub(crate) fn set_period(&self, _period: Duration) {
        todo!()
    }

    /// Opens a session, after telling the brain that the node is ready. Ends the node's former one.
    ///
    /// # Errors
    /// When this manager does not lead; the caller fills in who does.
    pub(crate) async fn open(&self, _node: NodeId, _hello: Hello) -> Result<Link, CallError> {
        todo!()
    }

    /// Sends a node what changed in its duties. Nothing happens where it has no session.
    pub(crate) fn send(&self, _node: NodeId, _assignment: Assignment) {
        todo!()
    }

    /// Tells one node something.
    pub(crate) fn tell(&self, _node: NodeId, _news: News) {
        todo!()
    }

    /// Tells every node that has a session something.
    pub(crate) fn tell_all(&self, _news: &News) {
        todo!()
    }

    /// Ends the session of a node that was removed. It is not told as lost.
    pub(crate) fn end(&self, _node: NodeId) {
        todo!()
    }
}
