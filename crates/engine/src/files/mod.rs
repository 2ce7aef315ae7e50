//! The files that Docker writes for a container: /etc/resolv.conf, /etc/hosts, /etc/hostname.

pub(crate) mod hosts;
pub(crate) mod resolv;
