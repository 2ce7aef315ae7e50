//! The system call filter: a policy as data, and its compilation to classic BPF.
//!
//! The daemon compiles; the shim only installs. A policy reads as Docker's profiles do; a user's is read from one.

mod compile;
mod default;
mod numbers;
mod profile;

use std::borrow::Cow;

use crate::capability::{Capability, CapabilitySet};
pub use compile::compile;
pub use default::docker_default;
pub use profile::{ProfileError, read};

/// An architecture, as seccomp(2) tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
}

impl Architecture {
    /// Those whose programs can run here.
    pub const NATIVE: &[Architecture] = if cfg!(target_arch = "x86_64") {
        &[Architecture::X86_64, Architecture::X86, Architecture::X32]
    } else {
        // 32-bit ARM programs are refused, unlike in Docker's policy: their table is not here yet.
        &[Architecture::Aarch64]
    };

    /// Its AUDIT_ARCH_ number (linux/audit.h).
    fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 | Architecture::X32 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Aarch64 => 0xc000_00b7,
        }
    }
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// The process is killed.
    Kill,
    /// The thread is killed.
    KillThread,
    /// The process gets SIGSYS.
    Trap,
    /// It is allowed, and the kernel logs it.
    Log,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub argument: u8,
    pub comparison: Comparison,
}

/// A comparison with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal(u64),
    /// The lower 32 bits differ from this: the kernel reads no more of an int, so upper bits must not decide.
    NotEqualInt(u32),
    /// The argument and the mask give the value.
    Masked {
        mask: u64,
        value: u64,
    },
    /// One half of the argument.
    Word(Word, WordTest),
}

/// A half of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Upper,
    Lower,
}

/// What a half of an argument is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordTest {
    Equal(u32),
    NotEqual(u32),
    AtLeast(u32),
    Below(u32),
}

/// When a rule is part of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// With this capability.
    With(Capability),
    /// Without it.
    Without(Capability),
}

/// What becomes of some system calls. Conditions must all hold; with none, the rule outweighs those with some.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Names, apart by white space; those that an architecture does not have are passed over.
    pub names: Cow<'static, str>,
    pub action: Action,
    pub conditions: Cow<'static, [Condition]>,
    pub when: When,
}

/// A whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// For what no rule names.
    pub default: Action,
    pub rules: Cow<'static, [Rule]>,
}

impl Policy {
    /// The rules for a process with these capabilities.
    fn rules_for(&self, capabilities: CapabilitySet) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| match rule.when {
            When::Always => true,
            When::With(capability) => capabilities.contains(capability),
            When::Without(capability) => !capabilities.contains(capability),
        })
    }
}

#[cfg(test)]
mod tests;
