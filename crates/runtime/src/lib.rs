//! Runs containers: our own small runtime inside a single-threaded shim, and the daemon's side of it.
//!
//! The daemon holds a [`Runtime`]. Every container is served by one shim: a process forked from a
//! re-executed, single-threaded copy of our own binary (see [`shim_main`]), so that it survives the daemon,
//! holds the container's streams, writes its log and keeps its exit code on disk.
//!
//! Invariants, including what is absent: nothing is mounted in the host's mount namespace; the daemon never
//! forks or clones; the shim holds no thread, no tokio and no unbounded buffer; a container never runs without
//! its seccomp filter unless the specification says [`spec::Seccomp::Unconfined`].

pub mod capability;
mod cgroup;
mod container;
pub mod logs;
mod protocol;
mod runtime;
mod seccomp;
mod shim;
pub mod spec;
mod sys;

pub use capability::{Capability, CapabilitySet, UnknownCapability};
pub use runtime::{
    Attach, Attached, Exec, ExecState, Exit, OpenError, Runtime, RuntimeError, StartError, Started, State,
    check_profile,
};
pub use seccomp::ProfileError;
pub use shim::shim_main;
