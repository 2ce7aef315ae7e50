use std::net::SocketAddr;
use std::path::PathBuf;

use super::*;
use crate::tables::{Entry, ZoneConfig};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn record(text: &str, of: &[&str], pointer: bool) -> Record {
    Record { name: name(text), addresses: addresses(of), pointer }
}

/// A network `shop` with a service of two tasks, one without any, and an alias that two containers have.
fn shop() -> Zone {
    let mut zone = Zone::default();
    zone.configure(ZoneConfig {
        domain: Some(name("shop")),
        subnets: vec![
            ("10.0.1.0".parse().expect("an address"), 24),
            ("fd00:1::".parse().expect("an address"), 64),
        ],
    });
    let web = vec![
        record("web", &["10.0.1.2", "fd00:1::2"], true),
        record("tasks.web", &["10.0.1.3", "10.0.1.4"], false),
        record("web.1.abc", &["10.0.1.3"], true),
        record("web.2.def", &["10.0.1.4"], true),
    ];
    zone.set("web", Entry { records: web }, 1);
    zone.set("idle", Entry { records: vec![record("idle", &[], false)] }, 1);
    zone.set("one", Entry { records: vec![record("cache", &["10.0.1.7"], true)] }, 1);
    zone.set("two", Entry { records: vec![record("cache", &["10.0.1.8"], true)] }, 1);
    zone
}

fn back() -> Zone {
    let mut zone = Zone::default();
    zone.configure(ZoneConfig { domain: Some(name("back")), subnets: Vec::new() });
    let records = vec![
        record("web", &["10.0.2.2"], true),
        record("db", &["10.0.2.9"], true),
        record("web.shop", &["10.0.2.77"], false),
    ];
    zone.set("any", Entry { records }, 1);
    zone
}

fn zones() -> Zones {
    Zones::from([("s".into(), shop()), ("b".into(), back())])
}

fn view(networks: &[&str], forwarding: Forwarding) -> View {
    let networks = networks.iter().map(|network| (*network).to_owned()).collect();
    let own = Entry { records: vec![record("self", &["10.0.1.99"], true)] };
    View { netns: PathBuf::new(), networks, search: None, own, forwarding }
}

fn ask(networks: &[&str], text: &str, kind: Kind) -> Answer {
    resolve(&zones(), &view(networks, Forwarding::Host), &name(text), kind)
}

fn found(texts: &[&str]) -> Answer {
    Answer::Addresses(addresses(texts))
}

#[test]
fn a_name_has_the_addresses_of_the_type_asked_for() {
    assert_eq!(ask(&["s"], "web", Kind::A), found(&["10.0.1.2"]));
    assert_eq!(ask(&["s"], "WEB", Kind::Aaaa), found(&["fd00:1::2"]));
    assert_eq!(ask(&["s"], "web", Kind::Any), found(&["10.0.1.2", "fd00:1::2"]));
    assert_eq!(ask(&["s"], "tasks.web", Kind::A), found(&["10.0.1.3", "10.0.1.4"]));
}

#[test]
fn a_name_that_exists_is_asked_of_nobody_else() {
    for kind in [Kind::Aaaa, Kind::Service, Kind::Ptr, Kind::Other] {
        assert_eq!(ask(&["s"], "web.1.abc", kind), found(&[]), "{kind:?}");
    }
    assert_eq!(ask(&["s"], "idle", Kind::A), found(&[]), "a service without tasks");
}

#[test]
fn a_name_of_several_has_the_addresses_of_all() {
    assert_eq!(ask(&["s"], "cache", Kind::A), found(&["10.0.1.7", "10.0.1.8"]));
}

#[test]
fn the_first_network_that_has_a_name_answers() {
    assert_eq!(ask(&["s", "b"], "web", Kind::A), found(&["10.0.1.2"]));
    assert_eq!(ask(&["b", "s"], "web", Kind::A), found(&["10.0.2.2"]));
    assert_eq!(ask(&["b", "s"], "web", Kind::Aaaa), found(&[]), "no mixture of two services");
    assert_eq!(ask(&["s", "b"], "db", Kind::A), found(&["10.0.2.9"]));
    assert_eq!(ask(&["s"], "db", Kind::A), Answer::Missing, "networks are apart");
    assert_eq!(ask(&["gone", "s"], "web", Kind::A), found(&["10.0.1.2"]));
}

#[test]
fn a_networks_name_can_follow() {
    assert_eq!(ask(&["b", "s"], "tasks.web.shop", Kind::A), found(&["10.0.1.3", "10.0.1.4"]));
    assert_eq!(ask(&["s"], "web.Shop", Kind::A), found(&["10.0.1.2"]));
    assert_eq!(ask(&["s"], "webshop", Kind::A), Answer::Missing);
    assert_eq!(
        ask(&["s", "b"], "web.shop", Kind::A),
        found(&["10.0.2.77"]),
        "a whole name before a short one"
    );
}

#[test]
fn what_the_sandbox_alone_knows_comes_first() {
    assert_eq!(ask(&["s"], "self", Kind::A), found(&["10.0.1.99"]));
    assert_eq!(ask(&["s"], "self", Kind::Aaaa), found(&[]));
    assert_eq!(ask(&["s"], "99.1.0.10.in-addr.arpa", Kind::Ptr), Answer::Names(vec![name("self")]));
}

#[test]
fn an_address_points_to_names_with_their_network() {
    let pointing = |text: &str| ask(&["s", "b"], text, Kind::Ptr);
    assert_eq!(pointing("3.1.0.10.in-addr.arpa"), Answer::Names(vec![name("web.1.abc.shop")]));
    assert_eq!(pointing("2.1.0.10.in-addr.arpa"), Answer::Names(vec![name("web.shop")]));
    assert_eq!(pointing("9.2.0.10.in-addr.arpa"), Answer::Names(vec![name("db.back")]));
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(pointing(six), Answer::Names(vec![name("web.shop")]));
    assert_eq!(ask(&["s"], "3.1.0.10.in-addr.arpa", Kind::A), found(&[]));
}

#[test]
fn what_can_only_be_ours_is_not_asked_of_others() {
    for kind in [Kind::A, Kind::Aaaa, Kind::Service, Kind::Any] {
        assert_eq!(ask(&["s"], "nobody", kind), Answer::Missing, "{kind:?}");
    }
    assert_eq!(ask(&["s"], "200.1.0.10.in-addr.arpa", Kind::Ptr), Answer::Missing);
    assert_eq!(ask(&["s"], "200.2.0.10.in-addr.arpa", Kind::Ptr), Answer::Forward);
    assert_eq!(ask(&["s"], "com", Kind::Other), Answer::Forward, "the name servers of com, say");
}

#[test]
fn what_may_be_anybodys_is_forwarded() {
    for text in ["example.com", "nobody.shop", "tasks.nobody"] {
        assert_eq!(ask(&["s"], text, Kind::A), Answer::Forward, "{text}");
    }
}

#[test]
fn a_resolver_of_the_users_choice_is_asked_for_single_labels_too() {
    let given = view(&["s"], Forwarding::Given(vec![SocketAddr::from(([10, 0, 1, 5], 53))]));
    assert_eq!(resolve(&zones(), &given, &name("nas"), Kind::A), Answer::Forward);
    assert_eq!(resolve(&zones(), &given, &name("web"), Kind::A), found(&["10.0.1.2"]));
}

#[test]
fn behind_internal_networks_there_is_nobody_to_ask() {
    let internal = view(&["s"], Forwarding::None);
    for text in ["example.com", "nobody", "1.1.1.1.in-addr.arpa"] {
        for kind in [Kind::A, Kind::Ptr, Kind::Other] {
            assert_eq!(resolve(&zones(), &internal, &name(text), kind), Answer::Missing, "{text} {kind:?}");
        }
    }
}

#[test]
fn below_a_search_domain_a_name_is_the_same_if_nobody_else_has_it() {
    let view = view(&["s"], Forwarding::Host);
    let search = [name("example"), name("corp.example")];
    let ask = |text: &str, kind| resolve_searched(&zones(), &view, &search, &name(text), kind);
    assert_eq!(ask("tasks.web.corp.example", Kind::A), Some(found(&["10.0.1.3", "10.0.1.4"])));
    assert_eq!(ask("cache.example", Kind::Aaaa), Some(found(&[])));
    assert_eq!(ask("self.example", Kind::A), Some(found(&["10.0.1.99"])));
    for text in ["nobody.example", "web", "web.test", "webexample", "example"] {
        assert_eq!(ask(text, Kind::A), None, "{text}");
    }
}
