//! Decisions, checked word for word against what they should be.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod addresses;
mod autoscale;
mod clocks;
mod cron;
mod decisions;
mod dependencies;
mod draining;
mod global;
mod jobs;
mod networks;
mod nodes;
mod peers;
mod placement;
mod properties;
mod refusals;
mod rehearsals;
mod rollbacks;
mod scale;
pub(crate) mod scene;
mod seats;
mod spreading;
mod updates;
mod why;
