//! What is called how on a cluster-wide network, as an agent has it served on its machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::assignment::ServiceRecord;
use crate::network::Guest;
use crate::{ContainerId, ServiceId};

/// The names of services with what they lead to, and those of guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Services that have tasks on the network.
    pub services: BTreeMap<ServiceId, ServiceRecord>,
    /// Containers that are no tasks.
    pub guests: BTreeMap<ContainerId, Guest>,
}

/// A change of [`Records`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// Exactly these and no others.
    All(Records),
    /// The difference to what the last change, which succeeded, brought about.
    Changed {
        /// New or changed.
        update: Records,
        /// Services that are on the network no longer.
        services: BTreeSet<ServiceId>,
        /// Guests that are on it no longer.
        guests: BTreeSet<ContainerId>,
    },
}
