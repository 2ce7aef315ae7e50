//! What differs between two specifications of a service, field by field and in a stack file's words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::stack::IMAGE_LABEL;

/// Which part of a service a field belongs to: it decides whether a change of it renews tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What each task runs: a change renews every task.
    Task,
    /// Where tasks may run: a change renews those that are where they may not be any more.
    Placement,
    /// Published ports: a change renews tasks where they themselves publish, or did not have to be reached before.
    Ports,
    /// How many tasks there are, how updates go, labels: a change renews none.
    Service,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What a stack file calls it, such as `deploy.replicas` or `environment.DEBUG`.
    pub field: String,
    /// Its value now; `None` where it has none.
    pub old: Option<String>,
    /// Its value then; `None` where it has none.
    pub new: Option<String>,
    /// Where it belongs.
    pub part: Part,
}

/// What the API calls differently than a stack file; the longest that fits counts. All else is the same in small letters.
const NAMES: &[(&str, &str)] = &[
    ("EndpointSpec.Mode", "deploy.endpoint_mode"),
    ("EndpointSpec.Ports", "ports"),
    ("Labels", "deploy.labels"),
    ("Mode.Replicated.Replicas", "deploy.replicas"),
    ("Mode", "deploy.mode"),
    ("RollbackConfig", "deploy.rollback_config"),
    ("UpdateConfig", "deploy.update_config"),
    ("TaskTemplate", ""),
    ("TaskTemplate.ContainerSpec", ""),
    ("TaskTemplate.ContainerSpec.Args", "command"),
    ("TaskTemplate.ContainerSpec.CapabilityAdd", "cap_add"),
    ("TaskTemplate.ContainerSpec.CapabilityDrop", "cap_drop"),
    ("TaskTemplate.ContainerSpec.Command", "entrypoint"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Nameservers", "dns"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Options", "dns_opt"),
    ("TaskTemplate.ContainerSpec.DNSConfig.Search", "dns_search"),
    ("TaskTemplate.ContainerSpec.Dir", "working_dir"),
    ("TaskTemplate.ContainerSpec.Env", "environment"),
    ("TaskTemplate.ContainerSpec.Hosts", "extra_hosts"),
    ("TaskTemplate.ContainerSpec.Mounts", "volumes"),
    ("TaskTemplate.ContainerSpec.OpenStdin", "stdin_open"),
    ("TaskTemplate.ContainerSpec.TTY", "tty"),
    ("TaskTemplate.LogDriver.Name", "logging.driver"),
    ("TaskTemplate.LogDriver.Options", "logging.options"),
    ("TaskTemplate.Networks", "networks"),
    ("TaskTemplate.Placement", "deploy.placement"),
    ("TaskTemplate.Placement.MaxReplicas", "deploy.placement.max_replicas_per_node"),
    ("TaskTemplate.Resources", "deploy.resources"),
    ("TaskTemplate.Resources.Limits.MemoryBytes", "deploy.resources.limits.memory"),
    ("TaskTemplate.Resources.Limits.NanoCPUs", "deploy.resources.limits.cpus"),
    ("TaskTemplate.Resources.Reservations.MemoryBytes", "deploy.resources.reservations.memory"),
    ("TaskTemplate.Resources.Reservations.NanoCPUs", "deploy.resources.reservations.cpus"),
    ("TaskTemplate.RestartPolicy", "deploy.restart_policy"),
];

/// Fields of nanoseconds.
const DURATIONS: &[&str] =
    &["Delay", "Interval", "Monitor", "StartInterval", "StartPeriod", "StopGracePeriod", "Timeout", "Window"];

/// Mappings whose keys are the users' own, dots and capitals included.
const FREE_KEYS: &[&str] = &[
    "Labels",
    "TaskTemplate.ContainerSpec.Labels",
    "TaskTemplate.ContainerSpec.Sysctls",
    "TaskTemplate.LogDriver.Options",
];

/// What differs between a service's specification as it is and as it is to be, by field. Both as the daemon shows them, with
/// defaults; networks by name.
pub fn differences(current: &Json, planned: &Json) -> Vec<Difference> {
    let (old, new) = (fields(current), fields(planned));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let value = |fields: &BTreeMap<String, (Part, String)>, name: &String| {
        fields.get(name).map(|(_, value)| value.clone())
    };
    let mut differing: Vec<Difference> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| Difference {
            field: name.clone(),
            old: value(&old, name),
            new: value(&new, name),
            part: old.get(name).or(new.get(name)).map_or(Part::Service, |(part, _)| *part),
        })
        .collect();
    // It says once more what the image says.
    if differing.iter().any(|difference| difference.field == "image") {
        differing.retain(|difference| difference.field != format!("deploy.labels.{IMAGE_LABEL}"));
    }
    differing
}

fn fields(spec: &Json) -> BTreeMap<String, (Part, String)> {
    let mut found = BTreeMap::new();
    walk("", spec, &mut found);
    found
}

fn walk(path: &str, value: &Json, found: &mut BTreeMap<String, (Part, String)>) {
    let mut add = |field: String, text: String| {
        // Two of one name, such as a port that is published twice, are told apart by their number.
        let mut unique = field.clone();
        let mut number = 1;
        while found.contains_key(&unique) {
            number += 1;
            unique = format!("{field} ({number})");
        }
        found.insert(unique, (part(path), text));
    };
    match value {
        Json::Null => {}
        Json::Object(entries) if FREE_KEYS.contains(&path) => {
            let field = field(path);
            for (key, value) in entries {
                add(format!("{field}.{key}"), quoted(value));
            }
        }
        Json::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, found);
            }
        }
        Json::Array(list) if list.is_empty() => {}
        Json::Array(list) => match path {
            "TaskTemplate.ContainerSpec.Env" => {
                for variable in list.iter().filter_map(Json::as_str) {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    add(format!("environment.{name}"), format!("{value:?}"));
                }
            }
            "TaskTemplate.ContainerSpec.Mounts" | "TaskTemplate.Networks" => {
                for item in list {
                    let target = item["Target"].as_str().unwrap_or_default();
                    add(format!("{}.{target}", field(path)), described(item, "Target"));
                }
            }
            "EndpointSpec.Ports" => {
                for port in list {
                    let (target, protocol) =
                        (&port["TargetPort"], port["Protocol"].as_str().unwrap_or("tcp"));
                    let published =
                        port["PublishedPort"].as_u64().map_or("any".to_owned(), |it| it.to_string());
                    let mode = port["PublishMode"].as_str().unwrap_or("ingress");
                    add(format!("ports.{target}/{protocol}"), format!("{published} ({mode})"));
                }
            }
            _ => add(field(path), value.to_string()),
        },
        scalar => {
            let name = path.rsplit('.').next().unwrap_or(path);
            let text = match scalar.as_i64() {
                Some(nanoseconds) if DURATIONS.contains(&name) => duration(nanoseconds),
                Some(nano) if name == "NanoCPUs" => decimal(nano, 9),
                Some(bytes) if name == "MemoryBytes" => size(bytes),
                _ => scalar.as_str().map_or_else(|| scalar.to_string(), str::to_owned),
            };
            add(field(path), text);
        }
    }
}

fn part(path: &str) -> Part {
    if path.starts_with("TaskTemplate.Placement") {
        Part::Placement
    } else if path.starts_with("TaskTemplate") {
        Part::Task
    } else if path.starts_with("EndpointSpec.Ports") {
        Part::Ports
    } else {
        Part::Service
    }
}

/// What a stack file calls a field of the API.
fn field(path: &str) -> String {
    let fits = |(api, _): &&(&str, &str)| {
        path.strip_prefix(api).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let longest = NAMES.iter().filter(fits).max_by_key(|(api, _)| api.len());
    let (name, rest) = longest.map_or(("", path), |(api, name)| (*name, &path[api.len()..]));
    let rest: Vec<String> = rest.split('.').filter(|part| !part.is_empty()).map(small).collect();
    [name.to_owned()].into_iter().filter(|name| !name.is_empty()).chain(rest).collect::<Vec<_>>().join(".")
}

/// `StopGracePeriod` as `stop_grace_period`.
fn small(name: &str) -> String {
    let mut small = String::new();
    let mut before = None;
    for letter in name.chars() {
        if letter.is_uppercase() && before.is_some_and(char::is_lowercase) {
            small.push('_');
        }
        small.extend(letter.to_lowercase());
        before = Some(letter);
    }
    small
}

fn quoted(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"))
}

/// What an item of a list says besides what it is known by.
fn described(item: &Json, known_by: &str) -> String {
    let mut item = item.clone();
    if let Some(item) = item.as_object_mut() {
        item.remove(known_by);
        item.retain(|_, value| !value.is_null());
    }
    item.to_string()
}

/// Nanoseconds in the greatest unit that needs no fraction.
fn duration(nanoseconds: i64) -> String {
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ];
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let unit = units.into_iter().find(|(_, scale)| nanoseconds % scale == 0);
    let (unit, scale) = unit.unwrap_or(("ns", 1));
    format!("{}{unit}", nanoseconds / scale)
}

/// Bytes in the greatest unit that needs no fraction.
fn size(bytes: i64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, scale)| bytes != 0 && bytes % scale == 0);
    unit.map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// A number of small parts as a decimal number.
fn decimal(parts: i64, digits: u32) -> String {
    let scale = 10i64.pow(digits);
    let fraction = format!("{:0width$}", (parts % scale).abs(), width = digits as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", parts / scale)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_told_in_a_stack_file_s_words() {
        let current = json!({
            "Labels": { IMAGE_LABEL: "web:1", "a.b": "1" },
            "Mode": { "Replicated": { "Replicas": 2 } },
            "UpdateConfig": { "Delay": 1_500_000_000, "Order": "stop-first" },
            "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp" }] },
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "web:1", "Env": ["A=1", "B=2"], "Args": ["run"], "TTY": true, "Secrets": [],
                    "Mounts": [{ "Type": "volume", "Source": "data", "Target": "/data" }],
                    "StopGracePeriod": 10_000_000_000_i64, "Sysctls": { "net.core.somaxconn": "1" }
                },
                "Resources": { "Limits": { "NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864 } },
                "Placement": { "Constraints": ["node.role==manager"], "MaxReplicas": 1 }
            }
        });
        let mut planned = current.clone();
        planned["Labels"] = json!({ IMAGE_LABEL: "web:2", "a.b": "2" });
        planned["Mode"]["Replicated"]["Replicas"] = json!(3);
        planned["UpdateConfig"]["Delay"] = json!(60_000_000_000_i64);
        planned["EndpointSpec"]["Ports"][0]["PublishedPort"] = json!(8081);
        let task = &mut planned["TaskTemplate"];
        task["ContainerSpec"]["Image"] = json!("web:2");
        task["ContainerSpec"]["Env"] = json!(["A=", "C=3"]);
        task["ContainerSpec"]["Args"] = Json::Null;
        task["ContainerSpec"]["Mounts"][0]["ReadOnly"] = json!(true);
        task["ContainerSpec"]["Sysctls"]["net.core.somaxconn"] = json!("2");
        task["Resources"]["Limits"] = json!({ "NanoCPUs": 1_000_000_000, "MemoryBytes": 1000 });
        task["Placement"]["MaxReplicas"] = json!(2);
        let told: Vec<String> = differences(&current, &planned)
            .into_iter()
            .map(|Difference { field, old, new, part }| {
                let text = |value: Option<String>| value.unwrap_or("-".to_owned());
                format!("{field}: {} -> {} {part:?}", text(old), text(new))
            })
            .collect();
        let expected = [
            "command: [\"run\"] -> - Task",
            "deploy.labels.a.b: \"1\" -> \"2\" Service",
            "deploy.placement.max_replicas_per_node: 1 -> 2 Placement",
            "deploy.replicas: 2 -> 3 Service",
            "deploy.resources.limits.cpus: 0.5 -> 1 Task",
            "deploy.resources.limits.memory: 64MiB -> 1000B Task",
            "deploy.update_config.delay: 1500ms -> 1m Service",
            "environment.A: \"1\" -> \"\" Task",
            "environment.B: \"2\" -> - Task",
            "environment.C: - -> \"3\" Task",
            "image: web:1 -> web:2 Task",
            "ports.80/tcp: 8080 (ingress) -> 8081 (ingress) Ports",
            "sysctls.net.core.somaxconn: \"1\" -> \"2\" Task",
            "volumes./data: {\"Source\":\"data\",\"Type\":\"volume\"} -> {\"ReadOnly\":true,\"Source\":\"data\",\"Type\":\"volume\"} Task",
        ];
        assert_eq!(told, expected);
        assert_eq!(differences(&current, &current), Vec::new());
    }
}
