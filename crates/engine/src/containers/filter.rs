//! Which containers `docker ps` shows: pure functions on summaries.

use skep_types::Time;
use skep_types::port::{ContainerPort, Protocol};

use crate::options::ContainerFilter;
use crate::view::{ContainerSummary, PortView, Status};
use crate::{Error, Result};

/// The label that every container of a service carries.
const TASK_LABEL: &str = "com.docker.swarm.task";

/// A filter whose names have been looked up and whose ports have been read.
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) asked: &'a ContainerFilter,
    /// Image ids, `sha256:..`, that `ancestor` stands for.
    pub(crate) ancestors: Vec<String>,
    /// Made before this time.
    pub(crate) before: Option<Time>,
    /// Made after this time.
    pub(crate) since: Option<Time>,
    pub(crate) publish: Vec<PortRange>,
    pub(crate) expose: Vec<PortRange>,
}

/// Ports `first` to `last` of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl PortRange {
    /// Reads `80`, `80/udp`, `8000-8080/tcp`.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn parse(filter: &str, text: &str) -> Result<PortRange> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let parsed = || -> Option<PortRange> {
            let range = PortRange {
                first: first.parse().ok()?,
                last: last.parse().ok()?,
                protocol: protocol.parse().ok()?,
            };
            (range.first <= range.last).then_some(range)
        };
        parsed().ok_or_else(|| Error::invalid(format!("Invalid filter '{filter}={text}'")))
    }

    fn contains(&self, port: ContainerPort) -> bool {
        self.protocol == port.protocol && (self.first..=self.last).contains(&port.port)
    }
}

impl Filter<'_> {
    /// Whether a container is shown, `limit` left aside.
    pub(crate) fn admits(&self, container: &ContainerSummary) -> bool {
        self.state(container)
            && self.identity(container)
            && self.relations(container)
            && self.ports(container)
    }

    fn state(&self, container: &ContainerSummary) -> bool {
        let asked = self.asked;
        let status = container.state.status;
        // As Docker: a filter by state, and a limit, look at all containers.
        let all = asked.all || asked.limit.is_some() || !asked.status.is_empty();
        let ended = matches!(status, Status::Exited | Status::Dead);
        let health = container.state.health.map_or("none", |health| health.status.name());
        (all || status == Status::Running)
            && (asked.health.is_empty() || asked.health.contains(health))
            && (asked.status.is_empty() || asked.status.contains(&status))
            && (asked.exited.is_empty() || ended && asked.exited.contains(&container.state.exit_code))
    }

    fn identity(&self, container: &ContainerSummary) -> bool {
        let asked = self.asked;
        let id = container.id.to_string();
        let has_label = |(name, value): &(String, Option<String>)| {
            container
                .labels
                .get(name)
                .is_some_and(|found| value.as_ref().is_none_or(|wanted| found == wanted))
        };
        any(&asked.id, |prefix| id.starts_with(prefix.as_str()))
            && any(&asked.name, |pattern| name_fits(pattern, &container.name))
            && asked.label.iter().all(has_label)
            && asked.is_task.is_none_or(|wanted| container.labels.contains_key(TASK_LABEL) == wanted)
            && self.before.is_none_or(|time| container.created < time)
            && self.since.is_none_or(|time| container.created > time)
    }

    fn relations(&self, container: &ContainerSummary) -> bool {
        let asked = self.asked;
        let has_volume = |wanted: &String| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name == *wanted || mount.target.as_os_str() == wanted.as_str())
        };
        let on_network = |wanted: &String| {
            container
                .networks
                .iter()
                .any(|place| place.network == *wanted || place.network_id.starts_with(wanted.as_str()))
        };
        (asked.ancestor.is_empty() || self.ancestors.contains(&container.image_id))
            && any(&asked.volume, has_volume)
            && any(&asked.network, on_network)
    }

    fn ports(&self, container: &ContainerSummary) -> bool {
        // As dockerd does, whatever its manual says: `publish` looks at the host's ports, `expose` at the container's.
        let on_host = |port: &PortView| {
            let host = |(_, number)| ContainerPort { port: number, ..port.container };
            port.host.map(host)
        };
        any(&self.publish, |range| {
            container.ports.iter().filter_map(on_host).any(|port| range.contains(port))
        }) && any(&self.expose, |range| container.ports.iter().any(|port| range.contains(port.container)))
    }
}

/// Whether one of the alternatives holds, or there are none.
fn any<T>(alternatives: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

/// Whether a pattern occurs in a name. Docker's patterns are regular expressions over the name with and without a
/// leading slash; of those, plain text and the anchors `^` and `$` are understood.
fn name_fits(pattern: &str, name: &str) -> bool {
    let at_start = pattern.starts_with(['^', '/']);
    let text = pattern.strip_prefix('^').unwrap_or(pattern);
    let text = text.strip_prefix('/').unwrap_or(text);
    let (text, at_end) = text.strip_suffix('$').map_or((text, false), |text| (text, true));
    match (at_start, at_end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
