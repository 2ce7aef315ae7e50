//! Amounts of CPU, memory and processes.

use serde::{Deserialize, Serialize};

/// What a task may use, or asks to have set aside. Zero means unlimited, or nothing asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousand-millionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Processes and threads; only a limit.
    pub pids: i64,
}
