//! The managers that a node knows: whom it asks, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, RwLock};

use skep_types::NodeId;
use skep_types::node::Member;
use tracing::warn;

use crate::error::chain;
use crate::record::Folder;
use crate::wire::CallError;

/// Managers that one question may lead on to, so that two who name each other are not asked for ever.
const MAX_HOPS: usize = 5;

/// The managers that this node knows. Clones share them; they are kept on disk, so that a node that starts again
/// finds its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Managers {
    folder: Folder,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeMap<NodeId, String>,
    /// Whom to ask when no other is reached.
    joined_at: Vec<String>,
    /// Who led when last heard of: `address:port`.
    leader: Option<String>,
}

impl Managers {
    /// The managers that `folder` remembers.
    /// Where it remembers none, there are still those in `joined_at`.
    pub(crate) fn remembered(folder: Folder, joined_at: Vec<String>) -> Managers {
        let members = folder.managers().unwrap_or_else(|error| {
            // The leader tells them again.
            warn!(error = chain(&error), "the list of managers cannot be read");
            BTreeMap::new()
        });
        Managers { folder, known: Arc::new(RwLock::new(Known { members, joined_at, leader: None })) }
    }

    /// Takes the list that the leader tells, and returns the addresses that no manager has any more. An empty list is
    /// no news: a cluster has managers.
    pub(crate) fn learn(&self, members: &[(NodeId, Member)]) -> Vec<String> {
        let members: BTreeMap<NodeId, String> =
            members.iter().map(|(node, member)| (*node, member.address.clone())).collect();
        if members.is_empty() || self.read(|known| known.members == members) {
            return Vec::new();
        }
        if let Err(error) = self.folder.remember_managers(&members) {
            warn!(error = chain(&error), "the list of managers cannot be kept");
        }
        let stays: BTreeSet<String> = members.values().cloned().collect();
        let mut gone = Vec::new();
        self.write(|known| {
            let before = std::mem::replace(&mut known.members, members);
            gone = before.into_values().filter(|address| !stays.contains(address)).collect();
        });
        gone
    }

    /// Takes note of who leads.
    pub(crate) fn follow(&self, leader: Option<String>) {
        self.write(|known| known.leader = leader);
    }

    /// All managers by id and `address:port`.
    pub(crate) fn all(&self) -> Vec<(NodeId, String)> {
        self.read(|known| known.members.iter().map(|(node, address)| (*node, address.clone())).collect())
    }

    /// Whom to ask: the leader of late first, then the others.
    fn candidates(&self) -> Vec<String> {
        self.read(|known| {
            let mut candidates: Vec<String> = known.leader.iter().cloned().collect();
            // One that was asked already is not asked again.
            candidates.extend(known.members.values().chain(&known.joined_at).cloned());
            candidates
        })
    }

    /// Asks the leader, wherever it is: one try at every manager. Only for what may be asked twice.
    ///
    /// # Errors
    /// What tells most: a manager's refusal rather than that another is not reached.
    pub(crate) async fn ask_leader<T, F>(&self, ask: impl Fn(String) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut waiting: Vec<String> = self.candidates();
        waiting.reverse();
        let mut asked = BTreeSet::new();
        let mut hops = 0;
        let mut worst = CallError::Unreachable("no manager of the swarm is known".to_owned());
        while let Some(address) = waiting.pop() {
            if !asked.insert(address.clone()) {
                continue;
            }
            match ask(address.clone()).await {
                Ok(answer) => {
                    self.follow(Some(address));
                    return Ok(answer);
                }
                Err(CallError::NotLeader { leader: Some(leader) }) if hops < MAX_HOPS => {
                    hops += 1;
                    waiting.push(leader);
                }
                Err(error) => {
                    if weight(&error) >= weight(&worst) {
                        worst = error;
                    }
                }
            }
        }
        self.follow(None);
        Err(worst)
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.read().expect("nothing panics while it holds the managers"))
    }

    fn write(&self, write: impl FnOnce(&mut Known)) {
        write(&mut self.known.write().expect("nothing panics while it holds the managers"));
    }
}

/// How much an error tells whoever asked all managers.
fn weight(error: &CallError) -> u8 {
    match error {
        CallError::Unreachable(_) => 0,
        CallError::NotLeader { .. } | CallError::Lost(_) => 1,
        CallError::Version(_) | CallError::Unauthenticated(_) => 2,
        CallError::Denied(_) => 3,
        CallError::Refused(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    fn managers(addresses: &[&str]) -> (tempfile::TempDir, Managers) {
        let dir = tempfile::tempdir().unwrap();
        let managers = Managers::remembered(Folder::new(dir.path().to_owned()), Vec::new());
        let members: Vec<(NodeId, Member)> = (1..)
            .zip(addresses)
            .map(|(id, address)| (NodeId(id), Member { raft: 1, address: (*address).to_owned() }))
            .collect();
        managers.learn(&members);
        (dir, managers)
    }

    #[tokio::test]
    async fn the_leader_is_found_and_asked_first_the_next_time() {
        let (_dir, managers) = managers(&["a", "b", "c"]);
        let asked = RwLock::new(Vec::new());
        let ask = |address: String| {
            asked.write().unwrap().push(address.clone());
            async move {
                match address.as_str() {
                    "a" => Err(CallError::Unreachable("gone".to_owned())),
                    "b" => Err(CallError::NotLeader { leader: Some("d".to_owned()) }),
                    _ => Ok(address),
                }
            }
        };
        assert_eq!(managers.ask_leader(ask).await, Ok("d".to_owned()));
        assert_eq!(managers.ask_leader(ask).await, Ok("d".to_owned()));
        assert_eq!(*asked.read().unwrap(), ["a", "b", "d", "d"]);
    }

    #[tokio::test]
    async fn managers_that_name_each_other_are_asked_once() {
        let (_dir, managers) = managers(&["a", "b"]);
        let ask = async |address: String| -> Result<(), CallError> {
            let other = if address == "a" { "b" } else { "a" };
            Err(CallError::NotLeader { leader: Some(other.to_owned()) })
        };
        let refused = managers.ask_leader(ask).await;
        assert!(matches!(refused, Err(CallError::Unreachable(_) | CallError::NotLeader { .. })));
    }

    #[tokio::test]
    async fn a_refusal_says_more_than_an_absence() {
        let (_dir, managers) = managers(&["a", "b", "c"]);
        let ask = async |address: String| -> Result<(), CallError> {
            Err(match address.as_str() {
                "b" => CallError::Denied("removed".to_owned()),
                _ => CallError::Unreachable("gone".to_owned()),
            })
        };
        assert_eq!(managers.ask_leader(ask).await, Err(CallError::Denied("removed".to_owned())));
    }

    #[test]
    fn managers_are_remembered() {
        let (dir, managers) = managers(&["a", "b"]);
        assert_eq!(managers.learn(&[]), Vec::<String>::new());
        let again = Managers::remembered(Folder::new(dir.path().to_owned()), Vec::new());
        assert_eq!(again.all(), [(NodeId(1), "a".to_owned()), (NodeId(2), "b".to_owned())]);
    }
}
