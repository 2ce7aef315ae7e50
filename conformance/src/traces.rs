//! What containers leave on a machine while they run, and must not leave afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Host, eventually};

impl Host {
    /// Everything that the kernel keeps for this host's containers, one line each: mounts, network
    /// namespaces, interfaces, addresses' rules, control groups and processes.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let folder = self.folder().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        traces.extend(mounts.filter(|at| at.starts_with(&folder)).map(|at| format!("mount {at}")));
        for name in entries(&self.exec_root().join("netns")) {
            traces.insert(format!("network namespace {}", name.display()));
        }
        for link in system_lines(Command::new("ip").args(["-n", self.namespace(), "-o", "link"])) {
            let name = link.split(": ").nth(1).unwrap_or(&link).to_owned();
            traces.insert(format!("interface {name}"));
        }
        for rule in system_lines(self.command("nft").args(["--handle", "list", "ruleset"])) {
            // Handles and counters differ from one listing to the next of the same rules.
            let rule = rule.split(" # handle").next().unwrap_or_default().trim();
            if !rule.is_empty() && !rule.contains("counter packets") {
                traces.insert(format!("rule {rule}"));
            }
        }
        traces.extend(self.groups().into_iter().map(|group| format!("control group {}", group.display())));
        traces.extend(self.helpers());
        traces
    }

    /// Looks for what this container leaves, too: one that was removed before its daemon was killed is in no list.
    pub fn remember(&self, container: &str) {
        self.known_containers.lock().unwrap().insert(container.to_owned());
    }

    /// Asserts that no container of this host left anything, once none is there any more.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        eventually("nothing of a container is left", Duration::from_secs(10), || {
            let left: Vec<String> = self
                .traces()
                .into_iter()
                .filter(|trace| {
                    trace.starts_with("network namespace")
                        || trace.starts_with("control group")
                        || trace.starts_with("process")
                        || trace.starts_with("interface") && trace.contains("@if") && !trace.contains(" up0@")
                        || trace.contains("mount") && trace.contains("overlay")
                        || trace.starts_with("rule") && trace.contains("dnat to")
                })
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }

    /// The control groups of containers whose folders are, or were, below this host's data root.
    fn groups(&self) -> Vec<PathBuf> {
        let mut known = self.known_containers.lock().unwrap();
        known.extend(
            entries(&self.data_root().join("containers"))
                .into_iter()
                .map(|path| path.file_name().expect("an entry has a name").to_string_lossy().into_owned()),
        );
        known.extend(self.destroyed_containers());
        known.iter().flat_map(|id| crate::host::groups_of(id)).collect()
    }

    /// The ids of the containers whose removal the running daemon remembers.
    fn destroyed_containers(&self) -> Vec<String> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let until = since.expect("the clock is past 1970").as_secs() + 1;
        let filters = "%7B%22event%22%3A%5B%22destroy%22%5D%7D";
        let events = self.api_get(&format!("/events?since=1&until={until}&filters={filters}"));
        let events = events.map(|answer| answer.body).unwrap_or_default();
        let ids = events.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            event["Actor"]["ID"].as_str().map(str::to_owned)
        });
        ids.collect()
    }

    /// Shims: processes of this host other than the daemon, clients and those that wait to become shims.
    fn helpers(&self) -> Vec<String> {
        let shims = crate::host::processes_of(self.folder()).into_iter().filter_map(|pid| {
            let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            let of_container = folder.starts_with(self.exec_root().join("containers"));
            of_container.then(|| format!("process {pid} {} in {}", name.trim(), folder.display()))
        });
        shims.collect()
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn system_lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
