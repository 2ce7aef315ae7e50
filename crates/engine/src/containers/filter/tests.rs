#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use skep_types::ContainerId;

use super::*;
use crate::view::{EndpointView, MountView, PortView, StateView};

fn container(number: u8) -> ContainerSummary {
    ContainerSummary {
        id: ContainerId([number; 32]),
        name: format!("web-{number}"),
        image: "busybox".to_owned(),
        image_id: format!("sha256:{number}"),
        command: "sh".to_owned(),
        created: Time(u64::from(number)),
        ports: Vec::new(),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        state: StateView {
            status: Status::Running,
            pid: 1,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            health: None,
        },
        mounts: Vec::new(),
        network_mode: "default".to_owned(),
        networks: Vec::new(),
        size: None,
    }
}

fn admits(asked: &ContainerFilter, container: &ContainerSummary) -> bool {
    let ports =
        |texts: &[String]| texts.iter().map(|text| PortRange::parse("publish", text).unwrap()).collect();
    let time = |text: &Option<String>| text.as_ref().map(|text| Time(text.parse().unwrap()));
    Filter {
        asked,
        ancestors: asked.ancestor.clone(),
        before: time(&asked.before),
        since: time(&asked.since),
        publish: ports(&asked.publish),
        expose: ports(&asked.expose),
    }
    .admits(container)
}

#[test]
fn only_running_ones_are_shown_unless_asked() {
    let mut ended = container(1);
    ended.state.status = Status::Exited;
    ended.state.exit_code = 3;
    let everything = ContainerFilter { all: true, ..ContainerFilter::default() };
    assert!(admits(&ContainerFilter::default(), &container(1)));
    assert!(!admits(&ContainerFilter::default(), &ended));
    assert!(admits(&everything, &ended));
    assert!(admits(&ContainerFilter { limit: Some(1), ..ContainerFilter::default() }, &ended));
    assert!(admits(
        &ContainerFilter { status: BTreeSet::from([Status::Exited]), ..ContainerFilter::default() },
        &ended
    ));
    assert!(admits(&ContainerFilter { exited: BTreeSet::from([3]), ..everything.clone() }, &ended));
    assert!(!admits(&ContainerFilter { exited: BTreeSet::from([0]), ..everything.clone() }, &ended));
    assert!(!admits(&ContainerFilter { exited: BTreeSet::from([0]), ..everything }, &container(1)));
}

#[test]
fn names_fit_by_part_and_anchor() {
    for (pattern, fits) in [
        ("eb", true),
        ("^web", true),
        ("^/web-1$", true),
        ("/web", true),
        ("1$", true),
        ("^eb", false),
        ("^web$", false),
    ] {
        assert_eq!(name_fits(pattern, "web-1"), fits, "{pattern}");
    }
}

#[test]
fn labels_must_all_hold_and_ids_are_alternatives() {
    let label = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    let labelled = |labels: &[(String, Option<String>)]| ContainerFilter {
        label: labels.to_vec(),
        ..Default::default()
    };
    assert!(admits(&labelled(&[label("tier", None), label("tier", Some("front"))]), &container(1)));
    assert!(!admits(&labelled(&[label("tier", None), label("tier", Some("back"))]), &container(1)));
    let by_id = ContainerFilter { id: vec!["ff".to_owned(), "0101".to_owned()], ..Default::default() };
    assert!(admits(&by_id, &container(1)));
    assert!(!admits(&by_id, &container(2)));
    assert!(!admits(&ContainerFilter { is_task: Some(true), ..Default::default() }, &container(1)));
    assert!(admits(&ContainerFilter { is_task: Some(false), ..Default::default() }, &container(1)));
}

#[test]
fn age_and_ancestor() {
    let before = ContainerFilter { before: Some("2".to_owned()), ..Default::default() };
    assert!(admits(&before, &container(1)) && !admits(&before, &container(2)));
    let since = ContainerFilter { since: Some("2".to_owned()), ..Default::default() };
    assert!(admits(&since, &container(3)) && !admits(&since, &container(2)));
    let ancestor = ContainerFilter { ancestor: vec!["sha256:1".to_owned()], ..Default::default() };
    assert!(admits(&ancestor, &container(1)) && !admits(&ancestor, &container(2)));
}

#[test]
fn volumes_and_networks() {
    let mut one = container(1);
    one.mounts.push(MountView {
        kind: "volume",
        name: "data".to_owned(),
        source: "/x".into(),
        target: "/data/db".into(),
        driver: "local",
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        anonymous: false,
    });
    one.networks.push(EndpointView {
        network: "bridge".to_owned(),
        network_id: "abcdef".to_owned(),
        endpoint_id: String::new(),
        address: None,
        prefix: 0,
        gateway: None,
        mac: String::new(),
        address6: None,
        gateway6: None,
        wish: Default::default(),
        dns_names: Vec::new(),
    });
    for (volume, fits) in [("data", true), ("/data/db", true), ("dat", false)] {
        assert_eq!(
            admits(&ContainerFilter { volume: vec![volume.to_owned()], ..Default::default() }, &one),
            fits
        );
    }
    for (network, fits) in [("bridge", true), ("abc", true), ("host", false)] {
        assert_eq!(
            admits(&ContainerFilter { network: vec![network.to_owned()], ..Default::default() }, &one),
            fits
        );
    }
}

#[test]
fn ports_by_number_and_range() {
    let mut one = container(1);
    let port = |port, protocol, host: Option<u16>| PortView {
        container: ContainerPort { port, protocol },
        host: host.map(|port| (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
    };
    one.ports = vec![port(80, Protocol::Tcp, Some(8080)), port(53, Protocol::Udp, None)];
    for (text, published, exposed) in [
        ("80", false, true),
        ("8080", true, false),
        ("70-90/tcp", false, true),
        ("8000-9000/tcp", true, false),
        ("53/udp", false, true),
        ("53", false, false),
        ("81", false, false),
    ] {
        let publish = ContainerFilter { publish: vec![text.to_owned()], ..Default::default() };
        let expose = ContainerFilter { expose: vec![text.to_owned()], ..Default::default() };
        assert_eq!((admits(&publish, &one), admits(&expose, &one)), (published, exposed), "{text}");
    }
    for text in ["", "x", "90-80", "80/sctp", "70000"] {
        assert!(PortRange::parse("publish", text).is_err(), "{text}");
    }
}
