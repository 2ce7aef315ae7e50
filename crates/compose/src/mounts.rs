//! Mounts of services: `[source:]target[:options]`, or a mapping; and the volumes that they name.

use serde_json::Value as Json;

use crate::Surroundings;
use crate::error::Fault;
use crate::read::Object;
use crate::stack::Names;
use crate::yaml::{Node, Value};

/// How mounts may be passed on between mount points.
const PROPAGATIONS: &[&str] = &["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// A mount as the long way of writing has it.
#[derive(Debug, Default, PartialEq)]
struct Mount {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    /// Options of bind mounts, of volumes and of memory, where there are any.
    propagation: Option<String>,
    volume: Option<VolumeOptions>,
    size: Option<i64>,
}

#[derive(Debug, Default, PartialEq)]
struct VolumeOptions {
    no_copy: bool,
    subpath: String,
}

/// The mounts of a service, in their order.
pub(crate) fn read(
    service: &Node,
    volumes: Option<&Node>,
    names: &Names<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Json>, Fault> {
    let one = |node: &Node| {
        let mut mount = match &node.value {
            Value::Text(text) => short(text)?,
            _ => long(node),
        };
        if mount.kind == "bind" {
            mount.source = path(&mount.source, surroundings)?;
        }
        convert(&mount, volumes, names)
    };
    let one = |node: &Node| one(node).map_err(|problem| Fault::at(node.at, problem));
    service.items("volumes").iter().map(one).collect()
}

fn long(node: &Node) -> Mount {
    let below = |key: &str| node.get(key).filter(|node| node.entries().is_some());
    Mount {
        kind: node.text("type"),
        source: node.text("source"),
        target: node.text("target"),
        read_only: node.is_set("read_only"),
        consistency: node.text("consistency"),
        propagation: below("bind").map(|bind| bind.text("propagation")),
        volume: below("volume").map(|volume| VolumeOptions {
            no_copy: volume.is_set("nocopy"),
            subpath: volume.text("subpath"),
        }),
        size: below("tmpfs").map(|tmpfs| tmpfs.integer("size").unwrap_or_default()),
    }
}

/// `[source:]target[:options]`. Windows' drives are no drives here.
fn short(text: &str) -> Result<Mount, String> {
    let invalid = |problem: &str| format!("invalid spec: {text}: {problem}");
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    if text.len() <= 2 {
        return Ok(Mount { kind: "volume".to_owned(), target: text.to_owned(), ..Mount::default() });
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid("empty section between colons"));
    }
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(invalid("too many colons")),
    };
    let is_path = source.starts_with(['.', '/', '~']);
    let kind = if is_path { "bind" } else { "volume" };
    let mut mount = Mount {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        ..Mount::default()
    };
    for option in options.split(',') {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => mount.volume = Some(VolumeOptions { no_copy: true, subpath: String::new() }),
            option if PROPAGATIONS.contains(&option) => mount.propagation = Some(option.to_owned()),
            // As the stock client: an option that nobody knows is passed over.
            _ => {}
        }
    }
    Ok(mount)
}

/// Where a bind mount comes from: from the stack file's folder on, or from home.
fn path(source: &str, surroundings: &Surroundings<'_>) -> Result<String, String> {
    if source.is_empty() {
        return Err("invalid mount config for type \"bind\": field Source must not be empty".to_owned());
    }
    let home = surroundings.environment.get("HOME");
    let source = match (source.strip_prefix('~'), home) {
        (Some(rest), Some(home)) => format!("{home}{rest}"),
        _ => source.to_owned(),
    };
    Ok(surroundings.absolute(&source))
}

fn convert(mount: &Mount, volumes: Option<&Node>, names: &Names<'_>) -> Result<Json, String> {
    let Mount { kind, source, target, read_only, consistency, propagation, volume, size } = mount;
    let refuse = |name: &str| Err(format!("{name} options are incompatible with type {kind}"));
    if propagation.is_some() && kind != "bind" {
        return refuse("bind");
    }
    if volume.is_some() && !["volume", ""].contains(&kind.as_str()) {
        return refuse("volume");
    }
    if size.is_some() && kind != "tmpfs" {
        return refuse("tmpfs");
    }
    let mut named = source.clone();
    let mut options = None;
    match kind.as_str() {
        "volume" | "" if !source.is_empty() => {
            let known = volumes.and_then(|volumes| volumes.get(source));
            let known = known.ok_or_else(|| format!("undefined volume {source:?}"))?;
            named = names.of(source, known);
            options = Some(volume_options(known, volume.as_ref(), names));
        }
        "volume" | "" => {}
        "bind" => {}
        "tmpfs" if source.is_empty() => {}
        "tmpfs" => return Err("invalid tmpfs source, source must be empty".to_owned()),
        "npipe" | "cluster" | "image" => return Err(format!("mounts of type {kind} are not built yet")),
        _ => return Err("volume type must be volume, bind, tmpfs, npipe, or cluster".to_owned()),
    }
    let propagation = propagation.clone().map(|text| Object::default().add("Propagation", text).build());
    let size = size.map(|size| Object::default().add("SizeBytes", size).build());
    Ok(Object::default()
        .add("Type", kind.as_str())
        .add("Source", named)
        .add("Target", target.as_str())
        .add("ReadOnly", *read_only)
        .add("Consistency", consistency.as_str())
        .keep("VolumeOptions", options)
        .keep("BindOptions", propagation)
        .keep("TmpfsOptions", size)
        .build())
}

fn volume_options(known: &Node, options: Option<&VolumeOptions>, names: &Names<'_>) -> Json {
    let mut object = Object::default();
    if let Some(VolumeOptions { no_copy, subpath }) = options {
        object = object.add("NoCopy", *no_copy).add("Subpath", subpath.as_str());
    }
    if names.is_external(known) {
        return object.build();
    }
    let driver = known.text("driver");
    let has_driver = !driver.is_empty() || known.get("driver_opts").is_some();
    let driver = Object::default().add("Name", driver).add_mapping("Options", known.mapping("driver_opts"));
    object
        .add_mapping("Labels", names.labels(known.mapping("labels")))
        .keep("DriverConfig", has_driver.then(|| driver.build()))
        .build()
}
