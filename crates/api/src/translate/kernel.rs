//! What containers and services ask of the kernel and of their resolver, in the forms that the two share.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard_stubs::models;
use models::{
    TaskSpecContainerSpecPrivilegesAppArmorModeEnum as AppArmorMode,
    TaskSpecContainerSpecPrivilegesSeccompModeEnum as SeccompMode,
};
use skep_types::container::LogDriver;
use skep_types::device::{Device, DeviceAccess, DeviceError};
use skep_types::security::{AppArmor, Privileges, Seccomp, Security};
use skep_types::ulimit::Rlimit;

use super::refuse::{refuse_if, refuse_unless};
use crate::error::ApiError;

/// Reads `--ulimit`s: -1 is unlimited.
pub fn ulimits(ulimits: Option<Vec<models::ResourcesUlimits>>) -> Result<Vec<Rlimit>, ApiError> {
    let read = |models::ResourcesUlimits { name, soft, hard }: models::ResourcesUlimits| {
        let resource = name.unwrap_or_default().parse();
        let number = |limit: Option<i64>| match limit.unwrap_or_default() {
            -1 => Ok(u64::MAX),
            limit => u64::try_from(limit)
                .map_err(|_| ApiError::invalid(format!("invalid ulimit {limit}: only -1 may be negative"))),
        };
        Ok(Rlimit {
            resource: resource.map_err(|error| ApiError::invalid(format!("{error}")))?,
            soft: number(soft)?,
            hard: number(hard)?,
        })
    };
    ulimits.unwrap_or_default().into_iter().map(read).collect()
}

/// Limits as clients gave them.
pub fn ulimit_models(ulimits: &[Rlimit]) -> Option<Vec<models::ResourcesUlimits>> {
    // Unlimited, which no number of theirs holds, is -1.
    let number = |limit: u64| Some(i64::try_from(limit).unwrap_or(-1));
    let model = |limit: &Rlimit| models::ResourcesUlimits {
        name: Some(limit.resource.to_string()),
        soft: number(limit.soft),
        hard: number(limit.hard),
    };
    (!ulimits.is_empty()).then(|| ulimits.iter().map(model).collect())
}

/// Reads how readily the kernel is to kill a container; the engine checks the range.
pub fn oom_score_adj(score: Option<i64>) -> Result<i32, ApiError> {
    let score = score.unwrap_or_default();
    i32::try_from(score).map_err(|_| {
        ApiError::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"))
    })
}

/// Reads `--security-opt`s. What they would do to a machine without AppArmor and SELinux is nothing, so that is what
/// may be asked of those.
pub fn security(options: &[String]) -> Result<Security, ApiError> {
    let mut security = Security::default();
    for option in options {
        // As moby: `=` since 1.11, `:` before; nothing at all says yes.
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "" | "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", profile) => security.seccomp = Seccomp::Custom(profile.to_owned()),
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label" | "systempaths" | "writable-cgroups", _) => {
                return Err(ApiError::not_built(format!(
                    "option HostConfig.SecurityOpt (--security-opt {option})"
                )));
            }
            _ => return Err(ApiError::invalid(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(security)
}

/// Reads the devices that a container is given.
pub fn devices(devices: Option<Vec<models::DeviceMapping>>) -> Result<Vec<Device>, ApiError> {
    let device = |mapping: models::DeviceMapping| {
        let models::DeviceMapping { path_on_host, path_in_container, cgroup_permissions } = mapping;
        let host = path_on_host.unwrap_or_default();
        let container = path_in_container.filter(|path| !path.is_empty()).unwrap_or_else(|| host.clone());
        let access = cgroup_permissions.filter(|access| !access.is_empty());
        let access = access.map_or(Ok(DeviceAccess::ALL), |access| access.parse());
        access.and_then(|access| Device::new(host, container, access))
    };
    let devices: Result<Vec<Device>, DeviceError> =
        devices.unwrap_or_default().into_iter().map(device).collect();
    devices.map_err(|error| ApiError::invalid(error.to_string()))
}

/// A device as inspect shows it.
pub fn device_model(device: &Device) -> models::DeviceMapping {
    models::DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.access.to_string()),
    }
}

/// Reads a service's privileges; `None` where nothing was said.
pub fn privileges(
    privileges: Option<models::TaskSpecContainerSpecPrivileges>,
) -> Result<Option<Privileges>, ApiError> {
    let Some(privileges) = privileges else { return Ok(None) };
    let models::TaskSpecContainerSpecPrivileges {
        credential_spec,
        se_linux_context,
        seccomp: filter,
        app_armor,
        no_new_privileges,
    } = privileges;
    refuse_if("ContainerSpec.Privileges.CredentialSpec (--credential-spec)", credential_spec.is_some())?;
    refuse_if("ContainerSpec.Privileges.SELinuxContext", se_linux_context.is_some())?;
    Ok(Some(Privileges {
        no_new_privileges: no_new_privileges.unwrap_or_default(),
        seccomp: filter.map(seccomp).transpose()?,
        app_armor: app_armor.map(|it| match it.mode {
            None | Some(AppArmorMode::EMPTY | AppArmorMode::DEFAULT) => AppArmor::Default,
            Some(AppArmorMode::DISABLED) => AppArmor::Disabled,
        }),
    }))
}

fn seccomp(filter: models::TaskSpecContainerSpecPrivilegesSeccomp) -> Result<Seccomp, ApiError> {
    let models::TaskSpecContainerSpecPrivilegesSeccomp { mode, profile } = filter;
    let profile = profile.unwrap_or_default();
    let is_custom = mode == Some(SeccompMode::CUSTOM);
    if !is_custom && !profile.is_empty() {
        return Err(ApiError::invalid("seccomp: a profile is of use with the mode custom only"));
    }
    match mode {
        None | Some(SeccompMode::EMPTY | SeccompMode::DEFAULT) => Ok(Seccomp::Default),
        Some(SeccompMode::UNCONFINED) => Ok(Seccomp::Unconfined),
        Some(SeccompMode::CUSTOM) => {
            let text = BASE64_STANDARD.decode(profile).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.filter(|text| !text.is_empty());
            text.map(Seccomp::Custom)
                .ok_or_else(|| ApiError::invalid("seccomp: the profile is not text in base64"))
        }
    }
}

/// A service's privileges as its client gave them.
pub fn privileges_model(privileges: &Privileges) -> models::TaskSpecContainerSpecPrivileges {
    let Privileges { no_new_privileges, seccomp, app_armor } = privileges;
    let filter = |filter: &Seccomp| {
        let (mode, profile) = match filter {
            Seccomp::Default => (SeccompMode::DEFAULT, None),
            Seccomp::Unconfined => (SeccompMode::UNCONFINED, None),
            Seccomp::Custom(text) => (SeccompMode::CUSTOM, Some(BASE64_STANDARD.encode(text))),
        };
        models::TaskSpecContainerSpecPrivilegesSeccomp { mode: Some(mode), profile }
    };
    models::TaskSpecContainerSpecPrivileges {
        credential_spec: None,
        se_linux_context: None,
        seccomp: seccomp.as_ref().map(filter),
        app_armor: app_armor.map(|mode| models::TaskSpecContainerSpecPrivilegesAppArmor {
            mode: Some(match mode {
                AppArmor::Default => AppArmorMode::DEFAULT,
                AppArmor::Disabled => AppArmorMode::DISABLED,
            }),
        }),
        // As Docker: no is nothing.
        no_new_privileges: no_new_privileges.then_some(true),
    }
}

/// Reads the name of a log driver; nothing where nobody named one.
pub fn log_driver(option: &str, name: Option<&str>) -> Result<Option<LogDriver>, ApiError> {
    refuse_unless(option, name, &["json-file", "none"])?;
    Ok(match name {
        Some("json-file") => Some(LogDriver::JsonFile),
        Some("none") => Some(LogDriver::None),
        _ => None,
    })
}

#[cfg(test)]
#[path = "kernel/tests.rs"]
mod tests;
