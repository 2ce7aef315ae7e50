//! What running containers have used since they began.

use std::collections::BTreeMap;

use skep_types::ContainerId;

use crate::{Engine, Result, blocking};

/// What a container has used since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in nanoseconds.
    pub cpu_nanos: u64,
    /// TCP connections that were accepted in its network namespace, by whatever way they came; `None` on the host's
    /// own network, where nobody can tell whose they are.
    pub connections: Option<u64>,
}

impl Engine {
    /// What these containers have used; those that do not run, or cannot be measured, are left out.
    ///
    /// # Errors
    /// Only of our own making.
    pub async fn usage(&self, containers: Vec<ContainerId>) -> Result<BTreeMap<ContainerId, Usage>> {
        let engine = self.clone();
        blocking(move || {
            let used = containers.into_iter().map(|id| Some((id, engine.usage_of(id)?)));
            used.flatten().collect()
        })
        .await
    }

    fn usage_of(&self, id: ContainerId) -> Option<Usage> {
        let container = self.find(&id.to_string()).ok().filter(|container| container.is_running())?;
        let cpu_nanos = self.shared.runtime.cpu_nanos(id).ok()??;
        let pid = container.state.borrow().pid;
        Some(Usage { cpu_nanos, connections: accepted(pid) })
    }
}

/// TCP connections that the network namespace of process `pid` has accepted, as proc(5) counts them.
fn accepted(pid: u32) -> Option<u64> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let (its, ours) = (namespace(&pid.to_string())?, namespace("self")?);
    if its == ours {
        return None;
    }
    passive_opens(&std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).ok()?)
}

/// Reads one number of the table whose first line names what is in the second. IPv6 is counted with IPv4 here.
fn passive_opens(snmp: &str) -> Option<u64> {
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, numbers) = (tcp.next()?.split_ascii_whitespace(), tcp.next()?.split_ascii_whitespace());
    names.zip(numbers).find(|(name, _)| *name == "PassiveOpens")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_table_is_read() {
        let table = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 7 42\nUdp: A\nUdp: 1\n";
        assert_eq!(passive_opens(table), Some(42));
        assert_eq!(passive_opens("Tcp: PassiveOpens\n"), None);
        let own = std::fs::read_to_string("/proc/self/net/snmp").expect("the kernel has one");
        assert!(passive_opens(&own).is_some(), "{own}");
        assert_eq!(accepted(std::process::id()), None, "it is the host's");
    }
}
