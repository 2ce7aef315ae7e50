use super::*;

fn vip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn backends(numbers: impl IntoIterator<Item = u32>) -> Vec<Ipv4Addr> {
    numbers.into_iter().map(|it| Ipv4Addr::from(0x0a00_0000 + it)).collect()
}

fn one(last: u8, numbers: impl IntoIterator<Item = u32>) -> VirtualServices {
    VirtualServices::from([(vip(last), backends(numbers))])
}

fn update(table: &mut Table, services: &VirtualServices) -> Vec<Edit> {
    table.change(services, &BTreeSet::new())
}

/// The data that a kernel would have after these edits; it refuses what it would.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    places: BTreeSet<u32>,
    classes: BTreeSet<u32>,
    services: BTreeMap<Ipv4Addr, Class>,
    groups: BTreeMap<(Ipv4Addr, u32), Vec<Ipv4Addr>>,
}

impl Kernel {
    fn apply(&mut self, edits: &[Edit]) {
        let is_removal = |edit: &&Edit| matches!(edit, Edit::RemoveGroup(..) | Edit::RemoveService(_));
        let removals = edits.iter().filter(is_removal);
        for edit in removals.chain(edits.iter().filter(|edit| !is_removal(edit))) {
            match edit {
                Edit::AddPlace(place) => assert!(self.places.insert(*place)),
                Edit::AddClass(class) => assert!(self.classes.insert(class.number())),
                Edit::RemoveGroup(address, number) => {
                    assert!(self.groups.remove(&(*address, *number)).is_some());
                }
                Edit::RemoveService(address) => assert!(self.services.remove(address).is_some()),
                Edit::AddGroup(address, number, group) => {
                    assert!((1..=GROUP_LEN).contains(&group.len()));
                    assert!(self.groups.insert((*address, *number), group.clone()).is_none());
                }
                Edit::AddService(address, class) => {
                    assert!(self.classes.contains(&class.number()));
                    assert!(self.services.insert(*address, *class).is_none());
                }
            }
        }
    }

    /// Who answers, by place.
    fn answers(&self, address: Ipv4Addr) -> Vec<Ipv4Addr> {
        let of = match self.services[&address] {
            Class::Refuse => 0,
            Class::Single => 1,
            Class::Turn { of, .. } | Class::Random { of } => of,
        };
        let place = |place: u32| {
            assert!(self.places.contains(&place));
            self.groups[&(address, place / GROUP_LEN as u32)][place as usize % GROUP_LEN]
        };
        (0..of).map(place).collect()
    }
}

#[test]
fn any_sequence_of_changes_leaves_what_was_asked_for() {
    let mut random = 88_172_645_463_325_252u64;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut table, mut kernel, mut wanted) = (Table::default(), Kernel::default(), VirtualServices::new());
    for _ in 0..2000 {
        let mut change = VirtualServices::new();
        let mut remove = BTreeSet::new();
        for _ in 0..=draw(3) {
            let address = vip(draw(30) as u8);
            match draw(4) {
                0 => {
                    remove.insert(address);
                }
                1 => {
                    let len = [0, 1, 2, 3, 16, 17, 40][draw(7) as usize];
                    change.insert(address, backends((0..len).map(|_| draw(60) as u32)));
                }
                _ => {
                    let mut some = wanted.get(&address).cloned().unwrap_or_default();
                    some.retain(|_| draw(10) > 0);
                    some.push(Ipv4Addr::from(0x0a00_0000 + draw(60) as u32));
                    change.insert(address, some);
                }
            }
        }
        wanted.retain(|address, _| !remove.contains(address));
        wanted.extend(change.clone());
        kernel.apply(&table.change(&change, &remove));
        for (address, backends) in &wanted {
            let answers = kernel.answers(*address);
            let distinct: BTreeSet<_> = answers.iter().collect();
            assert_eq!(distinct.len(), answers.len(), "each has one place");
            assert_eq!(distinct, backends.iter().collect());
        }
        assert_eq!(kernel.services.len(), wanted.len());
        assert!(table.addresses().eq(wanted.keys().copied()));
    }
    let mut anew = Kernel::default();
    anew.apply(&table.whole());
    assert_eq!(anew, kernel);
    table.change(&VirtualServices::new(), &wanted.into_keys().collect());
    assert!(table.is_empty());
}

#[test]
fn a_change_touches_its_own_group_alone() {
    let mut table = Table::of(&one(1, 0..50));
    // Another in the place of the twentieth.
    let edits = update(&mut table, &one(1, (0..50).map(|it| if it == 20 { 99 } else { it })));
    let group = backends((16..32).map(|it| if it == 20 { 99 } else { it }));
    assert_eq!(edits, [Edit::RemoveGroup(vip(1), 1), Edit::AddGroup(vip(1), 1, group)]);
    // Without the first, whose place the last takes.
    let edits = update(&mut table, &one(1, (1..50).map(|it| if it == 20 { 99 } else { it })));
    let numbers: Vec<u32> = edits
        .iter()
        .filter_map(|edit| match edit {
            Edit::RemoveGroup(_, number) | Edit::AddGroup(_, number, _) => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [0, 3, 0, 3], "{edits:?}");
    assert_eq!(update(&mut table, &one(1, (1..50).map(|it| if it == 20 { 99 } else { it }))), []);
}

#[test]
fn counters_are_shared_by_nobody() {
    let services: VirtualServices = (0..20).map(|last| (vip(last), backends([1, 2]))).collect();
    let mut table = Table::of(&services);
    let counters: BTreeSet<u8> = table
        .services
        .values()
        .filter_map(|service| match service.class {
            Class::Turn { of: 2, counter } => Some(counter),
            _ => None,
        })
        .collect();
    assert_eq!(counters.len(), usize::from(COUNTERS));
    let random = table.services.values().filter(|it| it.class == Class::Random { of: 2 }).count();
    assert_eq!(random, 20 - usize::from(COUNTERS));
    // One that grows leaves its counter to the next that needs one.
    update(&mut table, &one(0, 0..3));
    let edits = update(&mut table, &one(100, 0..2));
    assert!(edits.contains(&Edit::AddService(vip(100), Class::Turn { of: 2, counter: 0 })), "{edits:?}");
}
