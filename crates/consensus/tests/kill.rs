//! A process that appends is killed with -9 at a random moment, again and again: every entry that it
//! acknowledged is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use skep_consensus::Solo;

const DIR: &str = "SKEP_TEST_LOG_DIR";
const ROUNDS: u64 = 12;
const SNAPSHOT_INTERVAL: u64 = 50;

fn payload(index: u64) -> Vec<u8> {
    format!("entry {index} {}", "x".repeat((index * 37 % 3000) as usize)).into_bytes()
}

/// Not a test of its own: the process that is killed. It appends for ever and prints what is acknowledged.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (mut solo, _) = Solo::open(Path::new(&dir)).unwrap();
    loop {
        let index = solo.propose(&payload(solo.committed() + 1)).unwrap();
        // On a line of its own: the test harness may have left one open.
        println!("\n{index}");
        std::io::stdout().flush().unwrap();
        if index.is_multiple_of(SNAPSHOT_INTERVAL) {
            solo.compact(index, format!("up to {index}").into_bytes()).unwrap();
        }
    }
}

#[test]
fn every_acknowledged_entry_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Not a time but a number of entries: it is the moment between two of them that varies.
        let moment = acknowledged + 1 + round * 7 % 31;
        for line in lines {
            if let Ok(index) = line.unwrap().parse::<u64>() {
                assert!(index > acknowledged, "{index} was acknowledged twice");
                acknowledged = index;
                if index == moment {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= moment, "the child died by itself");

        let (solo, recovery) = Solo::open(dir.path()).unwrap();
        assert!(solo.committed() >= acknowledged, "{} of {acknowledged} entries", solo.committed());
        assert!(solo.term() > round, "every opening begins a term");
        let first = recovery.snapshot.as_ref().map_or(1, |snapshot| snapshot.index + 1);
        if let Some(snapshot) = &recovery.snapshot {
            assert_eq!(snapshot.payload, format!("up to {}", snapshot.index).into_bytes());
        }
        for (expected, entry) in (first..).zip(recovery.entries) {
            assert_eq!((entry.index, entry.payload), (expected, payload(expected)));
        }
        acknowledged = solo.committed();
    }
}
