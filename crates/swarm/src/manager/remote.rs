//! Asking the leader where it is another manager.

use std::future::Future;
use std::pin::Pin;

use skep_cluster::{Answer, Request};

use crate::wire::{Barrier, CallError, Connections};

/// An answer that is on its way.
pub(crate) type Called<'a, T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'a>>;

/// What one manager asks of another.
pub(crate) trait Remote: Send + Sync + 'static {
    /// Has the manager at `address` do what a user asked here.
    fn forward<'a>(&'a self, address: &'a str, request: &'a Request) -> Called<'a, Answer>;

    /// Asks the manager at `address` for a point to read at.
    fn barrier<'a>(&'a self, address: &'a str) -> Called<'a, Barrier>;
}

impl Remote for Connections {
    fn forward<'a>(&'a self, address: &'a str, request: &'a Request) -> Called<'a, Answer> {
        Box::pin(Connections::forward(self, address, request))
    }

    fn barrier<'a>(&'a self, address: &'a str) -> Called<'a, Barrier> {
        Box::pin(Connections::barrier(self, address))
    }
}
