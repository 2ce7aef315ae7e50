//! Agreement on an ordered log of opaque bytes, kept on disk.
//!
//! [`Consensus`] is one member: it proposes entries, learns what is agreed on, and takes part in elections. It talks
//! to the others over the owner's [`Transport`]. [`Log`] is the durable store under it: entries with index and term,
//! the vote, and one snapshot that stands for all that it replaced.
//!
//! Invariants: what was acknowledged is there after any crash; an entry's bytes are returned as given or not
//! at all; after a failed write nothing more is written until the log is opened again, because only the disk
//! knows what became of that write. What is absent: connections, and knowledge of what the bytes mean.

mod consensus;
mod log;
mod notice;
mod raft;
mod transport;

pub use consensus::{Config, Consensus, FoundError, MemberError, NotLeader, ReceiveError};
pub use log::{Entry, Index, Log, LogError, LogKey, MAX_ENTRY_BYTES, Snapshot, Term, is_guarded};
pub use notice::{Notice, ProposalId, RaftId, Seat, Standing};
pub use transport::{Transport, TransportError};
