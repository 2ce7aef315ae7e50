//! Wishes and what they come to.

use skep_types::swarm::ExternalAuthority;

use super::super::tests::{authority, cluster};
use super::*;

const URL: &str = "https://ca.example/sign";

struct Scene {
    now: SystemTime,
    old: RootCa,
    new: RootCa,
    cluster: ClusterObject,
    spec: ClusterSpec,
}

fn scene() -> Scene {
    let now = SystemTime::now();
    let root = || RootCa::generate(now).expect("a root");
    let (old, new) = (root(), root());
    let cluster = cluster(authority(&old));
    Scene { now, spec: cluster.spec.clone(), old, new, cluster }
}

impl Scene {
    /// Every address outside answers.
    fn decide(&self, certificate: &str, key: &str) -> Result<Decision, String> {
        let wish = Wish { spec: &self.spec, certificate, key };
        let reaches = |_: &str, urls: Vec<String>| !urls.is_empty();
        decide(&self.cluster, &wish, self.now, &reaches).map_err(|error| error.to_string())
    }

    fn outside(&mut self, root: Option<&str>) {
        let root = root.map(str::to_owned);
        let authority = ExternalAuthority { url: URL.to_owned(), options: Default::default(), root };
        self.spec.external_authorities.push(authority);
    }

    fn rotating(&mut self) {
        self.cluster.authority.rotation = Some(Rotation {
            certificate: self.new.certificate_pem().to_owned(),
            key: Some(Secret(self.new.key_pem())),
            cross_signed: self.old.cross_sign(&self.new, self.now).expect("cross-signed"),
        });
    }
}

#[test]
fn without_a_wish_all_stays() {
    let mut scene = scene();
    assert_eq!(scene.decide("", ""), Ok(Decision::Keep));
    scene.rotating();
    assert_eq!(scene.decide("", ""), Ok(Decision::Keep));
}

#[test]
fn a_raised_number_asks_for_a_new_root() {
    let mut scene = scene();
    scene.spec.force_rotate = 1;
    assert_eq!(scene.decide("", ""), Ok(Decision::Generate));
}

#[test]
fn a_root_that_is_brought_along_takes_the_present_one_s_place() {
    let scene = scene();
    let (certificate, key) = (scene.new.certificate_pem(), scene.new.key_pem());
    let expected = Decision::Rotate { certificate: certificate.to_owned(), key: Some(key.clone()) };
    assert_eq!(scene.decide(certificate, &key), Ok(expected));
}

#[test]
fn the_present_root_ends_a_rotation_and_the_next_one_stays_the_next() {
    let mut scene = scene();
    scene.rotating();
    let (old, key) = (scene.old.certificate_pem().to_owned(), scene.old.key_pem());
    assert_eq!(scene.decide(&old, &key), Ok(Decision::Put(authority(&scene.old))));
    let (new, key) = (scene.new.certificate_pem().to_owned(), scene.new.key_pem());
    assert_eq!(scene.decide(&new, &key), Ok(Decision::Put(scene.cluster.authority.clone())));
}

#[test]
fn wishes_that_make_no_sense_are_refused_in_swarmkits_words() {
    let scene = scene();
    let (new, key) = (scene.new.certificate_pem(), scene.new.key_pem());
    let both = scene.old.certificate_pem().to_owned() + new;
    let node = scene.old.issue("n", skep_identity::Role::Worker, "c", scene.now, Duration::from_secs(60));
    let node = node.expect("issued");
    // Its twenty years are over in an hour.
    let aged = RootCa::generate(scene.now - Duration::from_secs(630_720_000 - 3600)).expect("a root");
    let cases = [
        ("", key.as_str(), "if a signing CA key is provided, the signing CA cert must also be provided"),
        ("garbage", "", "could not parse the desired CA certificate"),
        (&new[..new.len() / 2], key.as_str(), "could not parse the desired CA certificate"),
        (new, &scene.old.key_pem(), "certificate key mismatch"),
        (new, "garbage", "the cluster's root key cannot be read"),
        (&both, &scene.old.key_pem(), "the desired CA certificate cannot contain multiple certificates"),
        (&node.chain_pem, &node.key_pem, "certificate not a CA"),
        (aged.certificate_pem(), &aged.key_pem(), "CA certificate expires too soon"),
        (
            new,
            "",
            "there must be at least one valid, reachable external CA corresponding to the desired CA certificate",
        ),
    ];
    for (certificate, key, expected) in cases {
        let told = scene.decide(certificate, key).expect_err(expected);
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn a_root_without_a_key_needs_an_authority_outside_that_stands_on_it() {
    let mut scene = scene();
    let new = scene.new.certificate_pem().to_owned();
    scene.outside(None);
    assert!(scene.decide(&new, "").is_err(), "that one stands on the present root");
    scene.outside(Some(&new.replace('\n', "\r\n")));
    let expected = Decision::Rotate { certificate: new.clone(), key: None };
    assert_eq!(scene.decide(&new, ""), Ok(expected));

    scene.cluster.authority.key = None;
    assert_eq!(scene.decide("", ""), Ok(Decision::Keep));
    scene.spec.external_authorities.clear();
    let told = scene.decide("", "").expect_err("nobody could sign");
    assert!(told.contains("corresponding to the current CA certificate"), "{told}");
    let (old, key) = (scene.old.certificate_pem().to_owned(), scene.old.key_pem());
    assert_eq!(scene.decide(&old, &key), Ok(Decision::Put(authority(&scene.old))), "the key comes home");
}

#[test]
fn an_unlock_key_is_made_when_locking_begins_and_when_asked_for() {
    let mut scene = scene();
    let open = scene.spec.clone();
    let locked = ClusterSpec { autolock: true, ..open.clone() };
    let mut made = |have: bool, spec: &ClusterSpec, rotate: bool| {
        scene.cluster.unlock_key = have.then(|| Secret("SWMKEY-1-".to_owned()));
        new_unlock_key(&scene.cluster, spec, rotate).expect("randomness")
    };
    assert_eq!(made(false, &open, true), None);
    assert_eq!(made(true, &locked, false), None);
    for key in [made(false, &locked, false), made(true, &locked, true)] {
        assert!(key.is_some_and(|key| key.0.parse::<UnlockKey>().is_ok()));
    }
}
