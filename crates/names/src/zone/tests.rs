use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::tables::Record;

fn address(number: u8) -> IpAddr {
    if number < 8 {
        IpAddr::from([10, 0, 0, number])
    } else {
        format!("fd00::{number}").parse().expect("an address")
    }
}

fn entry(records: &[(u8, Vec<u8>, bool)]) -> Entry {
    let record = |(name, addresses, pointer): &(u8, Vec<u8>, bool)| Record {
        name: name_of(*name),
        addresses: addresses.iter().copied().map(address).collect(),
        pointer: *pointer,
    };
    Entry { records: records.iter().map(record).collect() }
}

fn name_of(number: u8) -> Name {
    Name::new(&format!("name-{number}")).expect("a name")
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<(u8, Vec<u8>, bool)>),
    Remove(u8),
    Session,
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0..6u8, prop::collection::vec(0..12u8, 0..4), any::<bool>());
    let step = prop_oneof![
        6 => (0..5u8, prop::collection::vec(record, 0..4)).prop_map(|(owner, records)| Step::Set(owner, records)),
        2 => (0..5u8).prop_map(Step::Remove),
        1 => Just(Step::Session),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Whatever the owners did: a name has the addresses of all who have it now, an address all names that it points to.
    #[test]
    fn knows_what_its_owners_have(steps in steps()) {
        let (mut zone, mut session) = (Zone::default(), 0);
        let mut model: BTreeMap<u8, (Entry, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(owner, records) => {
                    zone.set(&owner.to_string(), entry(&records), session);
                    model.insert(owner, (entry(&records), session));
                }
                Step::Remove(owner) => {
                    zone.remove(&owner.to_string());
                    model.remove(&owner);
                }
                Step::Session => session += 1,
                Step::Sweep => {
                    zone.sweep(session);
                    model.retain(|_, (_, told)| *told == session);
                }
            }
            let records = || model.values().flat_map(|(entry, _)| &entry.records);
            for name in (0..6).map(name_of) {
                let having: Vec<&Record> = records().filter(|record| record.name == name).collect();
                let all: BTreeSet<IpAddr> = having.iter().flat_map(|record| &record.addresses).copied().collect();
                let expected = (!having.is_empty()).then(|| all.into_iter().collect::<Vec<_>>());
                prop_assert_eq!(zone.addresses(&name), expected);
            }
            for address in (0..12).map(address) {
                let pointing = records().filter(|record| record.pointer && record.addresses.contains(&address));
                let expected: BTreeSet<&Name> = pointing.map(|record| &record.name).collect();
                prop_assert_eq!(zone.names(address), expected.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn subnets_contain_their_addresses() {
    let mut zone = Zone::default();
    let subnets = [("10.1.2.0", 23), ("192.168.0.7", 32), ("fd00:1::", 64)];
    let subnets = subnets.map(|(first, prefix)| (first.parse().expect("an address"), prefix)).to_vec();
    zone.configure(ZoneConfig { domain: None, subnets });
    let contains = |text: &str| zone.contains(text.parse().expect("an address"));
    for text in ["10.1.2.0", "10.1.3.255", "192.168.0.7", "fd00:1::ffff"] {
        assert!(contains(text), "{text}");
    }
    for text in ["10.1.4.0", "10.1.1.255", "192.168.0.8", "fd00:1:0:1::", "::1"] {
        assert!(!contains(text), "{text}");
    }
    zone.configure(ZoneConfig { domain: None, subnets: vec![("::".parse().expect("an address"), 0)] });
    assert!(zone.contains("fd00::".parse().expect("an address")));
}
