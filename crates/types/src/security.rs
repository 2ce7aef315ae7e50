//! What a container's processes may do to the kernel, beyond capabilities.

use serde::{Deserialize, Serialize};

/// A container's system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default policy.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The policy in this text: Docker's profiles, JSON.
    Custom(String),
}

/// `--security-opt` of a container, as far as there is something to be secured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Whether its processes can gain no privileges by executing programs (no_new_privs).
    pub no_new_privileges: bool,
    /// Its system call filter.
    pub seccomp: Seccomp,
}

/// `Privileges` of a service's containers: what its user said, for what nobody said is shown differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// See [`Security::no_new_privileges`].
    pub no_new_privileges: bool,
    /// The system call filter, where it was named.
    pub seccomp: Option<Seccomp>,
    /// What was said of AppArmor, which Skep never uses.
    pub app_armor: Option<AppArmor>,
}

/// Whether AppArmor is to confine a container where the machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// As the machine does by default.
    Default,
    /// Not at all.
    Disabled,
}
