//! Whole files: what is refused, where and in which words; and that no text makes a panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Stack, Error> {
    let environment = BTreeMap::from([("SET".to_owned(), "x".to_owned())]);
    let read = |path: &str| Err(format!("cannot read {path}: no such file"));
    load("s.yml", text, "st", &Surroundings { environment: &environment, folder: "/stack", read: &read })
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(read(text).map(|_| ()).map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
}

#[test]
fn faults_name_the_file_and_the_line() {
    refused("- a\n", "s.yml:1:1: top-level object must be a mapping");
    refused("", "s.yml:1:1: top-level object must be a mapping");
    refused("version: 3.8\n", "s.yml:1:1: version must be a string");
    refused("version: '2'\n", "s.yml:1:1: unsupported Compose file version: 2");
    refused("version: '3.08'\n", "s.yml:1:1: unsupported Compose file version: 3.08");
    refused("version: '3.14'\n", "s.yml:1:1: unsupported Compose file version: 3.14");
    refused("name: x\n", "s.yml:1:1: (root) Additional property name is not allowed");
    refused("services: []\n", "s.yml:1:1: services must be a mapping");
    let web = |line: &str| format!("version: '3.8'\nservices:\n  web:\n    image: i\n    {line}\n");
    for (line, expected) in [
        ("imagee: i", "s.yml:5:5: services.web Additional property imagee is not allowed"),
        ("ports: 80", "s.yml:5:5: services.web.ports must be a list"),
        ("ports: [{}, 80/x]", "s.yml:5:17: invalid proto: x"),
        ("ports: ['1-2000']", "s.yml:5:13: more than 1000 ports"),
        (
            "environment: {A: true}",
            "s.yml:5:19: services.web.environment.A must be a string or number or null",
        ),
        ("environment: [A, A]", "s.yml:5:22: services.web.environment array items must be unique"),
        ("environment: 1", "s.yml:5:5: services.web.environment must be a mapping or list"),
        ("stop_grace_period: 10", "s.yml:5:5: services.web.stop_grace_period must be a string"),
        (
            "stop_grace_period: '10'",
            "s.yml:5:5: services.web.stop_grace_period Does not match format 'duration'",
        ),
        (
            "oom_score_adj: 1",
            "s.yml:5:5: services.web Additional property oom_score_adj is not allowed before version 3.13",
        ),
        (
            "mem_limit: 1m",
            "s.yml:5:5: unsupported option mem_limit: Set resource limits using deploy.resources",
        ),
        ("deploy: {replicas: -1}", "s.yml:5:14: replicas must not be negative"),
        (
            "deploy: {mode: global, replicas: 1}",
            "s.yml:5:28: replicas can only be used with replicated or replicated-job mode",
        ),
        ("deploy: {mode: odd}", "s.yml:5:14: unknown mode: odd"),
        ("deploy: {resources: {limits: {memory: lots}}}", "s.yml:5:35: invalid size: 'lots'"),
        (
            "deploy: {replicas: '${SET}'}",
            "s.yml:5:14: error while interpolating services.web.deploy.replicas: failed to cast to expected type: \"x\" is not an integer",
        ),
        (
            "hostname: ${",
            "s.yml:5:5: invalid interpolation format for services.web.hostname: \"${\"; you may need to escape any $ with another $",
        ),
        (
            "hostname: ${GONE:?say who}",
            "s.yml:5:5: error while interpolating services.web.hostname: required variable GONE is missing a value: say who",
        ),
        ("networks: [odd]", "s.yml:5:5: undefined network \"odd\""),
        ("volumes: ['odd:/x']", "s.yml:5:15: undefined volume \"odd\""),
        ("volumes: ['a::b']", "s.yml:5:15: invalid spec: a::b: empty section between colons"),
        ("volumes: [{target: /x}]", "s.yml:5:15: services.web.volumes.0 type is required"),
        ("secrets: [odd]", "s.yml:5:15: undefined secret \"odd\""),
        ("env_file: gone", "s.yml:5:5: cannot read /stack/gone: no such file"),
        ("command: \"'\"", "s.yml:5:5: command: a quote or an escape is not closed"),
        ("restart: sometimes", "s.yml:5:5: invalid restart policy: unknown policy 'sometimes'"),
        (
            "healthcheck: {test: x, disable: true}",
            "s.yml:5:28: test and disable can't be set at the same time",
        ),
    ] {
        refused(&web(line), expected);
    }
    refused(
        "services: {web: {}}\n",
        "s.yml:1:12: invalid image reference for service web: no image specified",
    );
    refused("services: {'a b': {image: i}}\n", "s.yml:1:12: services Additional property a b is not allowed");
    refused(
        "volumes: {v: {external: true, driver: d}}\n",
        "s.yml:1:31: conflicting parameters \"external\" and \"driver\" specified for volume \"v\"",
    );
    assert!(
        load(
            "s.yml",
            "{}",
            "' '",
            &Surroundings { environment: &BTreeMap::new(), folder: "/", read: &|_| Err(String::new()) }
        )
        .is_err()
    );
}

#[test]
fn secrets_and_configs_are_named() {
    let text = "services: {web: {image: i, secrets: [key, {source: out, mode: 0400}], configs: [{source: c, target: /c}]}}\n\
                secrets: {key: {file: ./key}, out: {external: true}}\nconfigs: {c: {file: ./c, name: named}}\n";
    let stack = read(text).expect("sound");
    assert_eq!(
        Vec::from_iter(stack.objects),
        [("config", "named".to_owned()), ("secret", "st_key".to_owned())]
    );
    let container = &stack.services["st_web"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Secrets"][1]["SecretName"], "st_key");
    assert_eq!(container["Secrets"][0]["File"]["Mode"], 0o400);
    assert_eq!(container["Configs"][0]["File"]["Name"], "/c");
}

/// What hostile files are made of.
const BITS: &[&str] = &[
    "services",
    ":",
    " ",
    "\n",
    "  ",
    "web",
    "image",
    "x",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a",
    "*a",
    "<<",
    "${",
    "}",
    "$A",
    ":-",
    "'",
    "\"",
    "|",
    ">",
    "!!int",
    "---",
    "...",
    "#",
    "ports",
    "8080:80",
    "1-70000",
    "deploy",
    "replicas",
    "-1",
    "volumes",
    "/a:/b",
    "networks",
    "environment",
    "A=1",
    "~",
    "0x",
    "9999999999999999999999",
    "1e999",
    "\t",
    "\u{0}",
    "é",
    "healthcheck",
    "interval",
    "1.5.5h",
    "memory",
    "99999999y",
    "version",
    "'3.8'",
    "ulimits",
    "extra_hosts",
];

proptest! {
    #[test]
    fn no_text_makes_a_panic(bits in prop::collection::vec(prop::sample::select(BITS), 0..60)) {
        let _ = read(&bits.concat());
    }

    #[test]
    fn no_service_makes_a_panic(key in prop::sample::select(&[
        "ports", "volumes", "environment", "deploy", "healthcheck", "networks", "command", "ulimits", "extra_hosts", "restart",
        "secrets", "logging", "stop_grace_period", "labels",
    ][..]), bits in prop::collection::vec(prop::sample::select(BITS), 0..12)) {
        let value = bits.concat().replace('\n', " ");
        let _ = read(&format!("services: {{web: {{image: i, {key}: {value}}}}}\n"));
        let _ = read(&format!("services: {{web: {{image: i, {key}: [{value}]}}}}\n"));
        let _ = read(&format!("services: {{web: {{image: i, {key}: '{}'}}}}\n", value.replace('\'', "")));
    }
}
