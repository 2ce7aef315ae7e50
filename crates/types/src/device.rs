//! Devices of the machine in containers: `--device`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a container may do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`: make nodes of it, mknod(2).
    pub make: bool,
}

impl DeviceAccess {
    /// `rwm`, as where nothing was said.
    pub const ALL: DeviceAccess = DeviceAccess { read: true, write: true, make: true };
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.make, "m")];
        letters.iter().filter(|(has, _)| *has).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl FromStr for DeviceAccess {
    type Err = DeviceError;

    /// Each of `r`, `w` and `m` at most once, and one of them.
    fn from_str(text: &str) -> Result<DeviceAccess, DeviceError> {
        let mut access = DeviceAccess { read: false, write: false, make: false };
        for letter in text.chars() {
            let place = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.make,
                _ => return Err(DeviceError::Access(text.to_owned())),
            };
            if std::mem::replace(place, true) {
                return Err(DeviceError::Access(text.to_owned()));
            }
        }
        if text.is_empty() { Err(DeviceError::Access(String::new())) } else { Ok(access) }
    }
}

/// A device, or a folder of devices, that a container is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the machine.
    pub host: String,
    /// Path in the container, below /dev.
    pub container: String,
    /// What it may do with it.
    pub access: DeviceAccess,
}

/// What is wrong with a device as a user named it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// In the client's words.
    #[error("invalid device mode: {0}")]
    Access(String),
    /// More than three parts, or an empty one.
    #[error("invalid device specification: {0}")]
    Malformed(String),
    /// A container's devices are in its /dev.
    #[error("invalid device path {0:?} in the container: it has to be below /dev")]
    Elsewhere(String),
}

impl Device {
    /// One whose place in the container is sound.
    ///
    /// # Errors
    /// [`DeviceError::Elsewhere`], and [`DeviceError::Malformed`] for a path of the machine that is not absolute.
    pub fn new(host: String, container: String, access: DeviceAccess) -> Result<Device, DeviceError> {
        if !host.starts_with('/') || host.contains('\0') {
            return Err(DeviceError::Malformed(host));
        }
        let below = container.strip_prefix("/dev/").unwrap_or_default();
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if below.split('/').all(sound) {
            Ok(Device { host, container, access })
        } else {
            Err(DeviceError::Elsewhere(container))
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    /// `HOST[:CONTAINER][:ACCESS]`, as the client's `--device` has it.
    fn from_str(text: &str) -> Result<Device, DeviceError> {
        let parts: Vec<&str> = text.split(':').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(DeviceError::Malformed(text.to_owned()));
        }
        let (host, container, access) = match *parts.as_slice() {
            [host] => (host, host, DeviceAccess::ALL),
            [host, second] => match second.parse() {
                Ok(access) => (host, host, access),
                Err(_) => (host, second, DeviceAccess::ALL),
            },
            [host, container, access] => (host, container, access.parse()?),
            _ => return Err(DeviceError::Malformed(text.to_owned())),
        };
        Device::new(host.to_owned(), container.to_owned(), access)
    }
}

/// What a task's labels say of the machine that its containers see. The client has no options of services for these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileged {
    /// Label `skep.privileged`: as `docker run --privileged`.
    pub all: bool,
    /// Label `skep.devices`: devices as `docker run --device` has them, separated by commas.
    pub devices: Vec<Device>,
}

impl Privileged {
    /// Reads the labels of a service's containers.
    ///
    /// # Errors
    /// What is wrong, with the label's name.
    pub fn of(labels: &std::collections::BTreeMap<String, String>) -> Result<Privileged, String> {
        let all = match labels.get("skep.privileged").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("label skep.privileged: {other:?} is neither true nor false")),
        };
        let named = labels.get("skep.devices").map(String::as_str).unwrap_or_default();
        let named = named.split(',').map(str::trim).filter(|text| !text.is_empty());
        let devices: Result<Vec<Device>, DeviceError> = named.map(str::parse).collect();
        let devices = devices.map_err(|error| format!("label skep.devices: {error}"))?;
        Ok(Privileged { all, devices })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_the_client_takes_them() {
        let device = |text: &str| {
            text.parse::<Device>()
                .map(|it| format!("{} {} {}", it.host, it.container, it.access))
                .unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(device("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(device("/dev/fuse:r"), "/dev/fuse /dev/fuse r");
        assert_eq!(device("/dev/sda:/dev/disk/one:mr"), "/dev/sda /dev/disk/one rm");
        assert_eq!(device("/dev/sda:/dev/one:rr"), "invalid device mode: rr");
        assert_eq!(device("/dev/sda:/dev/one:x"), "invalid device mode: x");
        assert_eq!(device("a:b:c:d"), "invalid device specification: a:b:c:d");
        assert_eq!(device("dev/fuse"), "invalid device specification: dev/fuse");
        for path in ["/etc/passwd", "/dev/../etc/x", "/dev/", "/dev//x", "/dev/./x"] {
            assert!(device(&format!("/dev/null:{path}")).contains("below /dev"), "{path}");
        }
    }

    #[test]
    fn labels_tell_what_is_wrong_with_them() {
        let of = |name: &str, value: &str| Privileged::of(&[(name.to_owned(), value.to_owned())].into());
        assert!(of("skep.privileged", "true").is_ok_and(|it| it.all));
        assert_eq!(of("skep.devices", "/dev/fuse, /dev/kvm:rw").map(|it| it.devices.len()), Ok(2));
        assert_eq!(
            of("skep.privileged", "yes").unwrap_err(),
            "label skep.privileged: \"yes\" is neither true nor false"
        );
        assert_eq!(
            of("skep.devices", "/dev/kvm:/x").unwrap_err().split(':').next(),
            Some("label skep.devices")
        );
    }
}
