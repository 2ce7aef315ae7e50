//! Agreement on an ordered log of opaque bytes, kept on disk.
//!
//! [`Log`] is the durable store that consensus writes to: entries with index and term, the vote, and one
//! snapshot that stands for all that it replaced. [`Solo`] is the consensus of a single node over it: what
//! is synced is committed. A driver for several nodes takes [`Solo`]'s place over the same store.
//!
//! Invariants: what was acknowledged is there after any crash; an entry's bytes are returned as given or not
//! at all; after a failed write nothing more is written until the log is opened again, because only the disk
//! knows what became of that write. What is absent: threads, clocks, knowledge of what the bytes mean.

mod consensus;
mod log;
mod notice;
mod raft;
mod solo;
mod transport;

pub use consensus::{Config, Consensus, FoundError, MemberError, NotLeader, ReceiveError};
pub use log::{Entry, Index, Log, LogError, LogKey, MAX_ENTRY_BYTES, Snapshot, Term};
pub use notice::{Notice, ProposalId, RaftId, Seat, Standing};
pub use solo::{Recovery, Solo};
pub use transport::{Transport, TransportError};
