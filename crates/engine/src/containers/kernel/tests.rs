#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use skep_types::security::Security;
use skep_types::ulimit::RlimitResource;

use super::*;

fn refusal(host: HostConfig) -> String {
    check(&host).map_err(|error| error.message).expect_err("it is refused")
}

#[test]
fn only_a_namespace_s_own_parameters_are_set() {
    let host = |name: &str, network| HostConfig {
        sysctls: [(name.to_owned(), "1".to_owned())].into(),
        network,
        ..HostConfig::default()
    };
    for name in ["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.domainname"] {
        assert_eq!(check(&host(name, NetworkMode::Bridge)), Ok(()), "{name}");
    }
    for (name, words) in [
        ("kernel.core_pattern", "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace"),
        ("vm.swappiness", "sysctl \"vm.swappiness\" is not in a separate kernel namespace"),
        ("kernel.hostname", "sysctl \"kernel.hostname\" is not in a separate kernel namespace"),
        ("net.x/../kernel/core_pattern", "invalid sysctl \"net.x/../kernel/core_pattern\""),
        ("net..core", "invalid sysctl \"net..core\""),
        ("", "invalid sysctl \"\""),
    ] {
        assert_eq!(refusal(host(name, NetworkMode::Bridge)), words);
    }
    assert_eq!(
        refusal(host("net.ipv4.ip_forward", NetworkMode::Host)),
        "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
    let ulimits = |ulimits: &[Rlimit]| HostConfig { ulimits: ulimits.to_vec(), ..HostConfig::default() };
    assert_eq!(
        refusal(ulimits(&[limit(RlimitResource::Nofile, 2, 1)])),
        "ulimit soft limit must be less than or equal to hard limit: 2 > 1"
    );
    let twice = [limit(RlimitResource::Cpu, 1, 1), limit(RlimitResource::Cpu, 2, 2)];
    assert_eq!(refusal(ulimits(&twice)), "ulimit cpu is given twice");
    let score = HostConfig { oom_score_adj: -1001, ..HostConfig::default() };
    assert_eq!(refusal(score), "Invalid value -1001, range for oom score adj is [-1000, 1000]");
    let words = |text: &str| vec![text.to_owned()];
    for (dns, named) in [
        (DnsConfig { servers: words("nobody"), ..DnsConfig::default() }, "invalid DNS address: nobody"),
        (DnsConfig { search: words("a\nnameserver"), ..DnsConfig::default() }, "invalid DNS search domain"),
        (DnsConfig { options: words(""), ..DnsConfig::default() }, "invalid DNS option"),
    ] {
        assert!(refusal(HostConfig { dns, ..HostConfig::default() }).starts_with(named));
    }
    let seccomp = Seccomp::Custom("{}".to_owned());
    let security = Security { seccomp, ..Security::default() };
    assert!(refusal(HostConfig { security, ..HostConfig::default() }).starts_with("invalid seccomp profile"));
}

#[test]
fn asked_limits_replace_the_engine_s() {
    let limit = |resource, soft| Rlimit { resource, soft, hard: 9 };
    let asked = [limit(RlimitResource::Nofile, 1)];
    let default = vec![limit(RlimitResource::Nofile, 2), limit(RlimitResource::Core, 3)];
    assert_eq!(limits(&asked, default), [asked[0], limit(RlimitResource::Core, 3)]);
}

#[test]
fn capabilities_are_added_and_dropped() {
    let set = |add: &[&str], drop: &[&str]| {
        let names = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let host = HostConfig { cap_add: names(add), cap_drop: names(drop), ..HostConfig::default() };
        capabilities(&host)
    };
    assert_eq!(set(&[], &[]).unwrap(), CapabilitySet::DOCKER_DEFAULT);
    assert!(set(&["NET_ADMIN"], &["chown"]).unwrap().contains(Capability::NET_ADMIN));
    assert!(!set(&[], &["chown"]).unwrap().contains(Capability::CHOWN));
    assert_eq!(set(&["cap_chown"], &["ALL"]).unwrap(), CapabilitySet::of(&[Capability::CHOWN]));
    assert_eq!(set(&["ALL"], &[]).unwrap(), CapabilitySet::ALL);
    assert!(!set(&["ALL"], &["SYS_ADMIN"]).unwrap().contains(Capability::SYS_ADMIN));
    let cap_drop = ["chown".to_owned()].into();
    let host = HostConfig { privileged: true, cap_drop, ..HostConfig::default() };
    assert_eq!(capabilities(&host).unwrap(), CapabilitySet::ALL);
    assert_eq!(set(&["FLY"], &[]).unwrap_err().message, "invalid CapAdd: unknown capability: \"CAP_FLY\"");
}
