//! The log on disks that lose power, run full, and rot.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

pub(crate) mod disk;

use disk::Disk;
use proptest::prelude::*;

use super::*;

pub(crate) const KEY: LogKey = LogKey::new([7; 32]);

fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{number}:").into_bytes();
    payload.resize(payload.len() + bytes, b'x');
    payload
}

#[test]
fn entries_come_back_in_order_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    assert_eq!((log.first_index(), log.last_index(), log.term()), (1, 0, 0));
    log.save_vote(1, b"me").unwrap();
    assert_eq!(log.append(&[b"one", b"two"]).unwrap(), 2);
    log.save_vote(2, b"you").unwrap();
    assert_eq!(log.append(&[b"three"]).unwrap(), 3);
    drop(log);

    let log = Log::open(dir.path(), &KEY).unwrap();
    assert_eq!((log.first_index(), log.last_index(), log.term(), log.last_term()), (1, 3, 2, 2));
    assert_eq!(log.vote().unwrap().unwrap(), b"you");
    let entry = |index, term, payload: &[u8]| Entry { index, term, payload: payload.to_vec() };
    assert_eq!(log.read(2, 9).unwrap(), [entry(2, 1, b"two"), entry(3, 2, b"three")]);
    assert_eq!(log.read(1, 1).unwrap(), [entry(1, 1, b"one")]);
    assert_eq!(log.read(4, 9).unwrap(), []);
}

#[test]
fn a_snapshot_stands_for_what_it_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.append(&[b"1", b"2", b"3"]).unwrap();
    let snapshot = Snapshot { index: 2, term: 0, payload: b"1 and 2".to_vec() };
    log.compact(&snapshot).unwrap();
    drop(log);

    let mut log = Log::open(dir.path(), &KEY).unwrap();
    assert_eq!(log.snapshot().unwrap().unwrap(), snapshot);
    assert_eq!(log.read(0, 9).unwrap(), [Entry { index: 3, term: 0, payload: b"3".to_vec() }]);
    let ahead = Snapshot { index: 9, term: 4, payload: Vec::new() };
    log.compact(&ahead).unwrap();
    assert_eq!((log.first_index(), log.last_index(), log.last_term()), (10, 9, 4));
    assert_eq!(log.append(&[b"10"]).unwrap(), 10);
}

#[test]
fn a_new_leader_s_log_replaces_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.append(&[b"1", b"2", b"3"]).unwrap();
    log.truncate(2).unwrap();
    assert_eq!(log.append(&[b"other"]).unwrap(), 2);
    let payloads: Vec<Vec<u8>> = log.read(1, 9).unwrap().into_iter().map(|entry| entry.payload).collect();
    assert_eq!(payloads, [b"1".to_vec(), b"other".to_vec()]);
}

#[test]
fn an_oversized_entry_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    let refused = log.append(&[vec![0; MAX_ENTRY_BYTES + 1]]).unwrap_err();
    assert_eq!(refused.to_string(), "an entry of 67108865 bytes is above the limit of 67108864");
    assert_eq!(log.append(&[b"small"]).unwrap(), 1);
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = Log::open(dir.path(), &KEY).unwrap();
    let refused = Log::open(dir.path(), &KEY).unwrap_err();
    assert_eq!(refused.to_string(), "cannot open the log: another process has the log open");
}

#[test]
fn a_file_that_is_no_log_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.redb");
    std::fs::write(&path, b"somebody's letters").unwrap();
    assert!(matches!(Log::open(dir.path(), &KEY).unwrap_err(), LogError::Damaged { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's letters");
}

#[test]
fn a_full_disk_is_said_and_nothing_acknowledged_is_lost() {
    let disk = Disk::new();
    let mut log = Log::open_on(disk.clone()).unwrap();
    disk.set_capacity(disk.len() + (256 << 10));
    let mut acknowledged = 0;
    let error = loop {
        match log.append(&[payload(acknowledged + 1, 9000)]) {
            Ok(index) => acknowledged = index,
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "cannot append to the log: the disk is full");
    let refused = log.append(&[b"more"]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot append to the log: an earlier write failed, and the log was not opened again"
    );
    drop(log);

    disk.set_capacity(u64::MAX);
    let mut log = Log::open_on(disk).unwrap();
    assert!(log.last_index() >= acknowledged);
    let entries = log.read(1, usize::MAX).unwrap();
    for entry in &entries {
        assert_eq!(entry.payload, payload(entry.index, 9000));
    }
    assert_eq!(log.append(&[b"room again"]).unwrap(), entries.len() as u64 + 1);
}

#[test]
fn rot_is_found_and_said() {
    let disk = Disk::new();
    let mut log = Log::open_on(disk.clone()).unwrap();
    log.append(&[payload(1, 64), b"findme".repeat(100)]).unwrap();
    let stored = log.reader().stored(2);
    drop(log);
    let mut rotten = stored[40..80].to_vec();
    rotten[20] ^= 1;
    let changed = disk.replace(&stored[40..80], &rotten);
    assert!(changed > 0, "the entry is on the disk as it was stored");
    let told = match Log::open_on(disk) {
        Ok(log) => log.read(1, 9).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("the log is damaged: entry 2 is not what was written"), "{told}");
}

#[test]
fn a_log_whose_last_write_was_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.append(&[payload(1, 64)]).unwrap();
    let before = std::fs::read(&file).unwrap();
    log.append(&[payload(2, 64)]).unwrap();
    drop(log);
    let mut after = std::fs::read(&file).unwrap();
    let pages = (1..after.len() / PAGE).map(|page| page * PAGE..(page + 1) * PAGE);
    for page in
        pages.filter(|page| before.get(page.clone()) != Some(&after[page.clone()])).collect::<Vec<_>>()
    {
        after[page].iter_mut().for_each(|byte| *byte = !*byte);
    }
    std::fs::write(&file, &after).unwrap();
    let refused = Log::open(dir.path(), &KEY).unwrap_err();
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), after, "it is kept as it was found");
}

const PAGE: usize = 4096;

/// A folder with the files as they are after the process of an open log was killed.
fn killed(dir: &Path) -> tempfile::TempDir {
    let after = tempfile::tempdir().unwrap();
    for file in [FILE, mark::FILE] {
        std::fs::copy(dir.join(file), after.path().join(file)).unwrap();
    }
    after
}

/// Whatever page of the file goes bad after kill -9, also one of the last record: it is told, or everything is there.
#[test]
fn no_damage_takes_back_what_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    for number in 1..=6 {
        log.append(&[payload(number, 3000)]).unwrap();
    }
    let entries = log.read(1, 9).unwrap();
    let pages = std::fs::metadata(dir.path().join(FILE)).unwrap().len() as usize / PAGE;
    let (mut refused, mut behind) = (0, 0);
    for page in 0..pages {
        let after = killed(dir.path());
        let path = after.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        // In the first page all bytes mean something to redb's own checks; elsewhere the middle is data.
        let at = page * PAGE + if page == 0 { 64 } else { 0 };
        bytes[at..(page + 1) * PAGE].iter_mut().for_each(|byte| *byte = !*byte);
        std::fs::write(&path, bytes).unwrap();
        match Log::open(after.path(), &KEY) {
            Ok(log) => assert_eq!(log.read(1, 9).unwrap(), entries, "page {page}"),
            Err(LogError::Damaged { detail, .. }) => {
                refused += 1;
                behind += u32::from(detail.contains("that were confirmed"));
                let again = Log::open(after.path(), &KEY).unwrap_err();
                assert!(again.is_damage(), "it is not forgotten: {again}");
            }
            Err(error) => panic!("page {page}: {error}"),
        }
    }
    assert!(
        refused > behind && behind > 0,
        "{refused} refused, {behind} for what redb would have taken back"
    );
}

#[test]
fn a_log_that_vanished_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), &KEY).unwrap().append(&[b"one"]).unwrap();
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    let told = Log::open(dir.path(), &KEY).unwrap_err().to_string();
    assert_eq!(told, "cannot open the log: the log is damaged: it holds 0 writes of 1 that were confirmed");
    // Whoever has nothing better may go on with what there is.
    std::fs::remove_file(dir.path().join(mark::FILE)).unwrap();
    assert_eq!(Log::open(dir.path(), &KEY).unwrap().last_index(), 0);
}

#[test]
fn an_old_or_torn_mark_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.append(&[b"one"]).unwrap();
    let old = std::fs::read(dir.path().join(mark::FILE)).unwrap();
    log.append(&[b"two"]).unwrap();
    drop(log);
    let torn = [&[0xff; 8], &old[8..]].concat();
    for found in [&old[..], &torn[..], &old[..3], b""] {
        std::fs::write(dir.path().join(mark::FILE), found).unwrap();
        assert_eq!(Log::open(dir.path(), &KEY).unwrap().last_index(), 2);
    }
}

#[test]
fn damage_met_while_reading_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    for number in 1..=600 {
        log.append(&[payload(number, 8000)]).unwrap();
    }
    let reader = log.reader();
    let path = dir.path().join(FILE);
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    // In place, under the open log.
    std::fs::write(&path, vec![0x5a; length]).unwrap();
    let refused = guarded("read the log", || reader.read(1, 600)).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    guarded("close the log", || {
        drop((reader, log));
        Ok(())
    })
    .unwrap_or_default();
}

#[test]
fn a_thief_of_the_disk_reads_nothing() {
    let disk = Disk::new();
    let mut log = Log::open_on(disk.clone()).unwrap();
    log.append(&[b"findme".repeat(100)]).unwrap();
    log.save_snapshot(&Snapshot { index: 1, term: 0, payload: b"findme".repeat(100) }).unwrap();
    assert_eq!(disk.replace(b"findme", b"nobody"), 0);
}

#[test]
fn another_key_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.append(&[b"one"]).unwrap();
    drop(log);
    let refused = Log::open(dir.path(), &LogKey::new([8; 32])).unwrap_err();
    assert_eq!(refused.to_string(), "cannot open the log: it is encrypted under another key");
    assert_eq!(Log::open(dir.path(), &KEY).unwrap().read(1, 9).unwrap().len(), 1);
}

#[test]
fn a_log_moves_to_another_key_whole() {
    let dir = tempfile::tempdir().unwrap();
    let other = LogKey::new([8; 32]);
    let mut log = Log::open(dir.path(), &KEY).unwrap();
    log.save_vote(3, b"me").unwrap();
    log.append(&[b"1", b"2", b"3", b"4"]).unwrap();
    log.save_snapshot(&Snapshot { index: 3, term: 3, payload: b"1 to 3".to_vec() }).unwrap();
    log.purge(2).unwrap();
    let before = (log.first_index(), log.last_index(), log.term(), log.purged_term(), log.vote().unwrap());
    let (entries, snapshot) = (log.read(0, 9).unwrap(), log.snapshot().unwrap());
    assert_eq!(before.0, 3);
    drop(log);
    rekey(dir.path(), &KEY, &other).unwrap();
    assert!(matches!(Log::open(dir.path(), &KEY).unwrap_err(), LogError::Key));
    let log = Log::open(dir.path(), &other).unwrap();
    let after = (log.first_index(), log.last_index(), log.term(), log.purged_term(), log.vote().unwrap());
    assert_eq!(after, before);
    assert_eq!((log.read(0, 9).unwrap(), log.snapshot().unwrap()), (entries, snapshot));
}

#[derive(Clone, Debug)]
enum Action {
    Append(Vec<usize>),
    Compact,
    Vote,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => proptest::collection::vec(0usize..6000, 1..5).prop_map(Action::Append),
        1 => Just(Action::Compact),
        1 => Just(Action::Vote),
        1 => Just(Action::Reopen),
    ]
}

/// What a log has acknowledged.
#[derive(Default)]
struct Acknowledged {
    last: Index,
    term: Term,
    sizes: Vec<usize>,
}

fn act(log: &mut Log, action: &Action, known: &mut Acknowledged) -> Result<(), LogError> {
    match action {
        Action::Append(sizes) => {
            let payloads: Vec<Vec<u8>> =
                (log.last_index() + 1..).zip(sizes).map(|(index, size)| payload(index, *size)).collect();
            // The fate of a batch that fails is unknown: it counts as tried, not as acknowledged.
            known.sizes.truncate(log.last_index() as usize);
            known.sizes.extend(sizes);
            known.last = log.append(&payloads)?;
        }
        Action::Compact => {
            let (index, term) = (log.last_index(), log.last_term());
            log.compact(&Snapshot { index, term, payload: payload(index, 3000) })?;
        }
        Action::Vote => {
            log.save_vote(log.term() + 1, b"vote")?;
            known.term = log.term();
        }
        Action::Reopen => {}
    }
    Ok(())
}

fn verify(log: &Log, known: &Acknowledged) {
    assert!(log.last_index() >= known.last, "{} of {} entries", log.last_index(), known.last);
    assert!(log.term() >= known.term);
    if let Some(snapshot) = log.snapshot().unwrap() {
        assert_eq!(snapshot.payload, payload(snapshot.index, 3000));
        assert_eq!(log.first_index(), snapshot.index + 1);
    }
    let entries = log.read(0, usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, log.last_index() + 1 - log.first_index());
    for entry in entries {
        assert_eq!(entry.payload, payload(entry.index, known.sizes[entry.index as usize - 1]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The power fails at any write; of what was not synced, any part reaches the disk, in any order.
    #[test]
    fn no_acknowledged_entry_is_lost_with_the_power(
        actions in proptest::collection::vec(action(), 1..24),
        writes_until_failure in 0usize..400,
        seed in any::<u64>(),
    ) {
        let disk = Disk::new();
        let mut known = Acknowledged::default();
        let mut log = Log::open_on(disk.clone()).unwrap();
        disk.fail_after(writes_until_failure);
        for action in &actions {
            if act(&mut log, action, &mut known).is_err() {
                break;
            }
            if matches!(action, Action::Reopen) {
                drop(log);
                disk.fail_after(usize::MAX);
                log = Log::open_on(disk.clone()).unwrap();
                disk.fail_after(writes_until_failure);
            }
        }
        disk.fail_after(0);
        drop(log);

        let after = disk.crash(seed);
        let mut log = Log::open_on(after.clone()).unwrap();
        verify(&log, &known);
        // It goes on as if nothing had happened.
        known.sizes.truncate(log.last_index() as usize);
        act(&mut log, &Action::Append(vec![10, 5000]), &mut known).unwrap();
        drop(log);
        verify(&Log::open_on(after).unwrap(), &known);
    }
}
