//! Constraints, read and held against a node.

use std::net::Ipv4Addr;

use super::*;
use crate::node::{Availability, Member, NodeDescription, NodeSpec, NodeState};
use crate::{Meta, NodeId};

fn node() -> Node {
    Node {
        id: NodeId(35),
        meta: Meta::default(),
        spec: NodeSpec {
            name: String::new(),
            labels: [("disk".to_owned(), "SSD".to_owned())].into(),
            role: NodeRole::Worker,
            availability: Availability::Active,
        },
        description: NodeDescription {
            hostname: "Alpha".to_owned(),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            engine_labels: [("rack".to_owned(), "7".to_owned())].into(),
            ..NodeDescription::default()
        },
        state: NodeState::Ready,
        message: String::new(),
        address: Ipv4Addr::new(10, 1, 2, 3).into(),
        manager: None,
        data_path: None,
        ingress_address: None,
        down_since: None,
    }
}

fn check(text: &str, expected: bool) {
    let constraint: Constraint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(constraint.holds(&node()), expected, "{text}");
    assert_eq!(constraint.to_string(), text);
}

fn check_error(text: &str, expected: &str) {
    match text.parse::<Constraint>() {
        Ok(constraint) => panic!("{text} was read as {constraint:?}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

#[test]
fn each_subject_is_compared_in_any_case() {
    check("node.id == 000000000000000000000000Z", true);
    check("node.id!=0000000000000000000000001", true);
    check("NODE.Hostname==alpha", true);
    check("node.hostname != ALPHA", false);
    check("node.role==worker", true);
    check("node.role == Manager", false);
    check("node.platform.os==Linux", true);
    check("node.platform.arch==x86_64", true);
    check("node.labels.disk==ssd", true);
    check("Node.Labels.disk!=ssd", false);
    check("engine.labels.rack == 7", true);
}

#[test]
fn a_label_s_name_has_one_case_and_a_missing_label_equals_nothing() {
    check("node.labels.Disk==ssd", false);
    check("node.labels.none!=ssd", true);
    check("engine.labels.rack.row==7", false);
}

#[test]
fn an_unknown_subject_holds_of_no_node() {
    check("node.color==blue", false);
    check("node.color!=blue", false);
    check("node.labels.==blue", false);
}

#[test]
fn addresses_and_subnets() {
    check("node.ip==10.1.2.3", true);
    check("node.ip!=10.1.2.3", false);
    check("node.ip==10.1.2.4", false);
    check("node.ip==10.1.0.0/16", true);
    check("node.ip==10.1.9.9/16", true);
    check("node.ip!=10.1.0.0/16", false);
    check("node.ip!=10.2.0.0/16", true);
    check("node.ip==0.0.0.0/0", true);
    check("node.ip!=2001:db8::/32", true);
    // What is no address holds of no node.
    check("node.ip!=10.1.2", false);
    check("node.ip!=10.1.0.0/33", false);
}

#[test]
fn a_demoted_manager_is_one_until_it_gave_up_its_seat() {
    let manager: Constraint = "node.role==manager".parse().expect("a constraint");
    let mut node = node();
    node.spec.role = NodeRole::Manager;
    assert!(manager.holds(&node));
    node.spec.role = NodeRole::Worker;
    assert!(!manager.holds(&node));
    node.manager = Some(Member { raft: 1, address: String::new() });
    assert!(manager.holds(&node));
}

#[test]
fn what_is_no_constraint_is_refused_in_swarmkit_s_words() {
    check_error("node.role", "constraint expected one operator from ==, !=");
    check_error("node.role=manager", "constraint expected one operator from ==, !=");
    check_error("==manager", "key '' is invalid");
    check_error("a==b", "key 'a' is invalid");
    check_error("1node==b", "key '1node' is invalid");
    check_error("node role==b", "key 'node role' is invalid");
    check_error("node.role== ", "value '' is invalid");
    check_error("node.role==a>b", "value 'a>b' is invalid");
    check_error("node.role==a==b", "value 'a==b' is invalid");
}

#[test]
fn two_names_of_an_architecture_are_one() {
    let fits = |architecture: &str, os: &str| {
        let platform = Platform { architecture: architecture.to_owned(), os: os.to_owned() };
        Placement { platforms: vec![platform], ..Placement::default() }.fits_platform(&node())
    };
    assert!(fits("amd64", "linux") && fits("x86_64", "") && fits("", ""));
    assert!(!fits("arm64", "linux") && !fits("amd64", "windows"));
    assert!(Placement::default().fits_platform(&node()));
}
