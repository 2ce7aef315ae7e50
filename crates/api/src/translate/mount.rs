//! Mounts: `-v`, `--mount` and `--tmpfs` to Skep's one form, and service mounts back.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard_stubs::models;
use models::{MountBindOptionsPropagationEnum as PropagationName, MountTypeEnum as Kind};
use skep_types::mount::{Mount, MountSource, Propagation};

use super::refuse::{refuse, refuse_if};
use super::{ordered, size, unordered, unsigned};
use crate::error::ApiError;

/// Reads one `--mount` of a container or service.
pub fn from_model(mount: models::Mount) -> Result<Mount, ApiError> {
    let models::Mount {
        target,
        source,
        typ,
        read_only,
        // Only Docker Desktop ever gave it a meaning.
        consistency: _,
        bind_options,
        volume_options,
        image_options,
        tmpfs_options,
    } = mount;
    refuse_if("Mounts.ImageOptions (--mount type=image)", image_options.is_some())?;
    let target = target_path(&target.unwrap_or_default())?;
    let source = source.unwrap_or_default();
    let source = match typ.unwrap_or(Kind::EMPTY) {
        Kind::BIND => bind_source(&source, bind_options)?,
        Kind::VOLUME => volume_source(source, volume_options)?,
        Kind::TMPFS if !source.is_empty() => {
            return Err(invalid(&target, "source must not be specified for type tmpfs"));
        }
        Kind::TMPFS => tmpfs_source(tmpfs_options)?,
        Kind::EMPTY => return Err(invalid(&target, "type is required")),
        kind @ (Kind::IMAGE | Kind::NPIPE | Kind::CLUSTER) => {
            return Err(ApiError::not_built(format!("option --mount type={kind}")));
        }
    };
    Ok(Mount { target, source, read_only: read_only.unwrap_or_default() })
}

fn bind_source(source: &str, options: Option<models::MountBindOptions>) -> Result<MountSource, ApiError> {
    let models::MountBindOptions {
        propagation,
        non_recursive,
        create_mountpoint,
        read_only_non_recursive,
        read_only_force_recursive,
    } = options.unwrap_or_default();
    refuse("Mounts.BindOptions.NonRecursive (bind-recursive=disabled)", &non_recursive)?;
    refuse("Mounts.BindOptions.ReadOnlyNonRecursive", &read_only_non_recursive)?;
    refuse("Mounts.BindOptions.ReadOnlyForceRecursive", &read_only_force_recursive)?;
    // What a template gives is checked where it is expanded.
    if !source.starts_with('/') && !source.starts_with("{{") {
        return Err(ApiError::invalid(format!(
            "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
        )));
    }
    let propagation = match propagation.unwrap_or(PropagationName::EMPTY) {
        PropagationName::EMPTY => None,
        PropagationName::PRIVATE => Some(Propagation::Private),
        PropagationName::RPRIVATE => Some(Propagation::Rprivate),
        PropagationName::SHARED => Some(Propagation::Shared),
        PropagationName::RSHARED => Some(Propagation::Rshared),
        PropagationName::SLAVE => Some(Propagation::Slave),
        PropagationName::RSLAVE => Some(Propagation::Rslave),
    };
    let create_missing = create_mountpoint.unwrap_or_default();
    Ok(MountSource::Bind { path: PathBuf::from(source), create_missing, propagation })
}

fn volume_source(name: String, options: Option<models::MountVolumeOptions>) -> Result<MountSource, ApiError> {
    let models::MountVolumeOptions { no_copy, labels, driver_config, subpath } = options.unwrap_or_default();
    refuse("Mounts.VolumeOptions.Subpath (volume-subpath)", &subpath)?;
    let models::MountVolumeOptionsDriverConfig { name: driver, options: driver_options } =
        driver_config.unwrap_or_default();
    super::refuse::refuse_unless("volume-driver", driver.as_deref(), &["local"])?;
    refuse("Mounts.VolumeOptions.DriverConfig.Options (volume-opt)", &driver_options)?;
    Ok(MountSource::Volume { name, no_copy: no_copy.unwrap_or_default(), labels: ordered(labels) })
}

fn tmpfs_source(options: Option<models::MountTmpfsOptions>) -> Result<MountSource, ApiError> {
    let models::MountTmpfsOptions { size_bytes, mode, options } = options.unwrap_or_default();
    refuse("Mounts.TmpfsOptions.Options (tmpfs-options)", &options)?;
    let mode = u32::try_from(mode.unwrap_or_default())
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| ApiError::invalid("Mounts.TmpfsOptions.Mode is no file mode"))?;
    Ok(MountSource::Tmpfs {
        size_bytes: unsigned("Mounts.TmpfsOptions.SizeBytes", size_bytes.unwrap_or_default())?,
        mode,
    })
}

/// Reads one `-v`: `source:target[:options]`, or `target` alone for an anonymous volume.
pub fn from_bind(text: &str) -> Result<Mount, ApiError> {
    let malformed = || ApiError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(malformed()),
    };
    if target.is_empty() || (source.is_empty() && parts.len() > 1) {
        return Err(malformed());
    }
    let target = target_path(target)
        .map_err(|error| ApiError::invalid(format!("invalid volume specification: '{text}': {error}")))?;
    let mut mount = Mount {
        target,
        source: if source.starts_with('/') {
            MountSource::Bind { path: PathBuf::from(source), create_missing: true, propagation: None }
        } else {
            MountSource::Volume { name: source.to_owned(), no_copy: false, labels: Default::default() }
        },
        read_only: false,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply_option(&mut mount, option).map_err(|()| {
            ApiError::invalid(format!("invalid volume specification: '{text}': invalid mode: {options}"))
        })?;
    }
    Ok(mount)
}

fn apply_option(mount: &mut Mount, option: &str) -> Result<(), ()> {
    let parsed = match option {
        "ro" => {
            mount.read_only = true;
            return Ok(());
        }
        // `z` and `Z` relabel for SELinux, which does nothing where there is none; the last three were for
        // Docker Desktop.
        "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => return Ok(()),
        "nocopy" => match &mut mount.source {
            MountSource::Volume { no_copy, .. } => {
                *no_copy = true;
                return Ok(());
            }
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => return Err(()),
        },
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return Err(()),
    };
    match &mut mount.source {
        MountSource::Bind { propagation, .. } => {
            *propagation = Some(parsed);
            Ok(())
        }
        MountSource::Volume { .. } | MountSource::Tmpfs { .. } => Err(()),
    }
}

/// Reads `--tmpfs`: targets with `size=`, `mode=` and the defaults that Docker sets anyway.
pub fn from_tmpfs(tmpfs: Option<HashMap<String, String>>) -> Result<Vec<Mount>, ApiError> {
    ordered(tmpfs).into_iter().map(|(target, options)| one_tmpfs(&target, &options)).collect()
}

fn one_tmpfs(target: &str, options: &str) -> Result<Mount, ApiError> {
    let target = target_path(target)?;
    let (mut size_bytes, mut mode, mut read_only) = (0, 0, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || ApiError::invalid(format!("invalid tmpfs option {option:?}"));
        match option.split_once('=').unwrap_or((option, "")) {
            ("ro", "") => read_only = true,
            ("rw" | "noexec" | "nosuid" | "nodev", "") => {}
            ("size", text) => size_bytes = parse_size(text).ok_or_else(wrong)?,
            ("mode", text) => {
                mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?;
            }
            _ => return Err(ApiError::not_built(format!("option --tmpfs {option}"))),
        }
    }
    Ok(Mount { target, source: MountSource::Tmpfs { size_bytes, mode }, read_only })
}

/// `64m` as bytes, with the suffixes that tmpfs takes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A mount's place in the container: absolute, and not the root.
pub fn target_path(text: &str) -> Result<PathBuf, ApiError> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(ApiError::invalid(format!("invalid mount path: '{text}' mount path must be absolute")));
    }
    // Docker cleans the path; a `..` at the root stays at the root.
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean == Path::new("/") {
        return Err(ApiError::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

/// Refuses two mounts at one place, as Docker does.
pub fn refuse_duplicates(mounts: &[Mount]) -> Result<(), ApiError> {
    let mut seen = std::collections::BTreeSet::new();
    match mounts.iter().find(|mount| !seen.insert(&mount.target)) {
        Some(twice) => Err(ApiError::invalid(format!("Duplicate mount point: {}", twice.target.display()))),
        None => Ok(()),
    }
}

/// A service's mount as its client gave it.
pub fn to_model(mount: &Mount) -> models::Mount {
    let mut model = models::Mount {
        target: Some(mount.target.display().to_string()),
        read_only: mount.read_only.then_some(true),
        ..Default::default()
    };
    match &mount.source {
        MountSource::Bind { path, create_missing, propagation } => {
            model.typ = Some(Kind::BIND);
            model.source = Some(path.display().to_string());
            if *create_missing || propagation.is_some() {
                model.bind_options = Some(models::MountBindOptions {
                    propagation: propagation.map(propagation_name),
                    create_mountpoint: create_missing.then_some(true),
                    ..Default::default()
                });
            }
        }
        MountSource::Volume { name, no_copy, labels } => {
            model.typ = Some(Kind::VOLUME);
            model.source = (!name.is_empty()).then(|| name.clone());
            model.volume_options = (*no_copy || !labels.is_empty()).then(|| models::MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                labels: (!labels.is_empty()).then(|| unordered(labels)),
                ..Default::default()
            });
        }
        MountSource::Tmpfs { size_bytes, mode } => {
            model.typ = Some(Kind::TMPFS);
            if *size_bytes != 0 || *mode != 0 {
                model.tmpfs_options = Some(models::MountTmpfsOptions {
                    size_bytes: (*size_bytes != 0).then_some(size(*size_bytes)),
                    mode: (*mode != 0).then_some(i64::from(*mode)),
                    options: None,
                });
            }
        }
    }
    model
}

fn propagation_name(propagation: Propagation) -> PropagationName {
    match propagation {
        Propagation::Private => PropagationName::PRIVATE,
        Propagation::Rprivate => PropagationName::RPRIVATE,
        Propagation::Shared => PropagationName::SHARED,
        Propagation::Rshared => PropagationName::RSHARED,
        Propagation::Slave => PropagationName::SLAVE,
        Propagation::Rslave => PropagationName::RSLAVE,
    }
}

fn invalid(target: &Path, why: &str) -> ApiError {
    ApiError::invalid(format!("invalid mount config for {}: {why}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Mount {
        from_bind(text).expect(text)
    }

    #[test]
    fn binds_and_volumes_are_told_apart() {
        assert_eq!(
            bind("/a:/b:ro,rslave"),
            Mount {
                target: "/b".into(),
                source: MountSource::Bind {
                    path: "/a".into(),
                    create_missing: true,
                    propagation: Some(Propagation::Rslave)
                },
                read_only: true
            }
        );
        assert_eq!(bind("data:/v/../w").target, PathBuf::from("/w"));
        assert_eq!(
            bind("data:/v:nocopy").source,
            MountSource::Volume { name: "data".into(), no_copy: true, labels: Default::default() }
        );
        assert_eq!(
            bind("/v").source,
            MountSource::Volume { name: String::new(), no_copy: false, labels: Default::default() }
        );
    }

    #[test]
    fn malformed_binds_are_refused() {
        for text in [
            "",
            ":",
            "a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/..",
            "/a:/b:xx",
            "/a:/b:ro:z",
            "v:/b:shared",
            "/a:/b:nocopy",
        ] {
            let error = from_bind(text).expect_err(text);
            assert!(error.to_string().contains("invalid volume specification"), "{text}: {error}");
        }
    }

    #[test]
    fn tmpfs_options_are_read_or_refused_by_name() {
        let one = |options: &str| from_tmpfs(Some([("/t".to_owned(), options.to_owned())].into()));
        assert_eq!(
            one("rw,size=1m,mode=1777").map(|mounts| mounts[0].source.clone()),
            Ok(MountSource::Tmpfs { size_bytes: 1 << 20, mode: 0o1777 })
        );
        assert_eq!(one("exec"), Err(ApiError::not_built("option --tmpfs exec")));
        assert!(one("size=1x").is_err());
        assert!(one("size=99999999999g").is_err());
    }

    #[test]
    fn a_service_mount_survives_the_round_trip() {
        for text in [
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rshared"}}"#,
            r#"{"Type":"volume","Source":"v","Target":"/d"}"#,
            r#"{"Type":"volume","Source":"v","Target":"/d","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"}}}"#,
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1000,"Mode":448}}"#,
        ] {
            let model: models::Mount = serde_json::from_str(text).expect(text);
            assert_eq!(to_model(&from_model(model.clone()).expect(text)), model, "{text}");
        }
    }

    #[test]
    fn duplicates_are_refused() {
        let mounts = [bind("/a:/b"), bind("v:/b")];
        assert_eq!(refuse_duplicates(&mounts), Err(ApiError::invalid("Duplicate mount point: /b")));
    }
}
