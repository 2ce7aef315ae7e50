//! How the agent of this node finds the leader, and what it says first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::shared::Shared;
use crate::session::{Connector, Hello, Link};
use crate::wire::CallError;

/// Between two attempts to say which guests are here.
const GUESTS_PAUSE: Duration = Duration::from_secs(1);

/// Opens the agent's sessions: in process while this node leads.
#[derive(Debug)]
pub(crate) struct LeaderConnector {
    shared: Arc<Shared>,
    /// Tells each new leader which guests are here.
    telling: Mutex<JoinSet<()>>,
}

impl LeaderConnector {
    /// For the agent of this node.
    pub(crate) fn new(shared: Arc<Shared>) -> LeaderConnector {
        LeaderConnector { shared, telling: Mutex::default() }
    }

    /// Ends what goes on beside the sessions. To be called once the agent has ended: it opens no more of them then.
    pub(crate) async fn close(&self) {
        let mut telling = std::mem::take(&mut *self.telling());
        telling.shutdown().await;
    }

    fn telling(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, hello: Hello) -> Result<Link, CallError> {
        if let Some(office) = self.shared.office() {
            match office.manager.open_session(self.shared.node(), hello.clone()).await {
                // Its own log knows the leader before anybody else says.
                Err(CallError::NotLeader { leader }) => self.shared.managers.follow(leader),
                answer => return answer,
            }
        }
        let connections = &self.shared.connections;
        let ask = |address: String| {
            let hello = hello.clone();
            async move { connections.session(&address, hello).await }
        };
        self.shared.managers.ask_leader(ask).await
    }
}

impl Connector for LeaderConnector {
    async fn connect(&self, hello: Hello) -> Result<Link, CallError> {
        let opened = self.open(hello).await;
        match &opened {
            Ok(_) => {
                self.shared.set_trouble(None);
                let shared = Arc::clone(&self.shared);
                let mut telling = self.telling();
                // A former session's word is that session's alone.
                telling.abort_all();
                telling.spawn(async move {
                    while let Err(error) = shared.keep_guests().await {
                        tracing::warn!(
                            "telling the managers which containers are on their networks: {error}"
                        );
                        tokio::time::sleep(GUESTS_PAUSE).await;
                    }
                });
            }
            // It was removed, or is shut out. That no manager answers is no fault of this node.
            Err(
                CallError::Denied(reason) | CallError::Unauthenticated(reason) | CallError::Version(reason),
            ) => {
                self.shared.set_trouble(Some(reason.clone()));
            }
            Err(_) => {}
        }
        opened
    }
}
