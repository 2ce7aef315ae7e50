//! A process with a single member is killed with -9 at a random moment, again and again: every entry that was told
//! as committed is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use skep_consensus::{
    Config, Consensus, Index, Log, LogKey, Notice, RaftId, Snapshot, Term, Transport, TransportError,
};
use tokio::sync::mpsc;

const DIR: &str = "SKEP_TEST_LOG_DIR";
const KEY: LogKey = LogKey::new([7; 32]);
const ROUNDS: u64 = 12;
const SNAPSHOT_INTERVAL: u64 = 50;
/// Proposals whose fate is awaited at the same time.
const AT_ONCE: u64 = 8;

struct Nobody;

impl Transport for Nobody {
    fn send(
        &self,
        _to: RaftId,
        _address: &str,
        _message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>> {
        Box::pin(async { Err(TransportError { reason: "nobody is there".to_owned() }) })
    }
}

async fn open(dir: &Path) -> (Consensus, mpsc::Receiver<Notice>) {
    let config = Config::new(dir.to_owned(), 1, KEY);
    Consensus::open(config, Arc::new(Nobody)).await.unwrap()
}

fn payload(number: u64) -> Vec<u8> {
    format!("entry {number} {}", "x".repeat((number * 37 % 3000) as usize)).into_bytes()
}

fn number(payload: &[u8]) -> u64 {
    let number = std::str::from_utf8(payload).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(payload, self::payload(number), "a payload is what was proposed or it is not there");
    number
}

/// The owner's state: how many entries it was told of. They are numbered from 1 without a gap.
#[derive(Default)]
struct Owner {
    told: u64,
    index: Index,
}

impl Owner {
    fn restore(&mut self, snapshot: &Snapshot) {
        self.told = std::str::from_utf8(&snapshot.payload).unwrap().parse().unwrap();
        self.index = snapshot.index;
    }

    fn take(&mut self, index: Index, payload: Option<&[u8]>) {
        assert_eq!(index, self.index + 1);
        self.index = index;
        if let Some(payload) = payload {
            self.told += 1;
            assert_eq!(number(payload), self.told);
        }
    }
}

/// Not a test of its own: the process that is killed. It proposes for ever and prints what is committed.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (consensus, mut notices) = open(Path::new(&dir)).await;
    // Of every round but the first it is a member already.
    let _ = consensus.found("here".to_owned()).await;
    let mut owner = Owner::default();
    let (mut leads, mut proposed): (Option<Term>, u64) = (None, 0);
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Restored(snapshot) => owner.restore(&snapshot),
            Notice::Committed { index, payload, own } => {
                owner.take(index, payload.as_deref());
                if own.is_some() {
                    // On a line of its own: the test harness may have left one open.
                    println!("\n{}", owner.told);
                    std::io::stdout().flush().unwrap();
                }
                if index.is_multiple_of(SNAPSHOT_INTERVAL) {
                    consensus.compact(index, owner.told.to_string().into_bytes());
                }
            }
            Notice::Leads { term } => (leads, proposed) = (Some(term), owner.told),
            Notice::Follows { .. } => {}
            Notice::Refused { reason, .. } | Notice::Failed { reason, .. } => panic!("{reason}"),
        }
        while let Some(term) = leads.filter(|_| proposed < owner.told + AT_ONCE) {
            proposed += 1;
            consensus.propose(term, proposed, payload(proposed));
        }
    }
}

/// What is in the log of a process that is gone; by the member's own word, once it leads.
async fn recover(dir: &Path) -> (u64, Term) {
    let (consensus, mut notices) = open(dir).await;
    let mut owner = Owner::default();
    let term = loop {
        match notices.recv().await.unwrap() {
            Notice::Restored(snapshot) => owner.restore(&snapshot),
            Notice::Committed { index, payload, own } => {
                assert_eq!(own, None, "nothing was proposed through this opening");
                owner.take(index, payload.as_deref());
            }
            Notice::Leads { term } => break term,
            Notice::Follows { .. } => {}
            notice @ (Notice::Refused { .. } | Notice::Failed { .. }) => panic!("{notice:?}"),
        }
    };
    consensus.stop().await;
    (owner.told, term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_entry_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut last_term) = (0, 0);
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
            if let Ok(told) = line.unwrap().parse::<u64>() {
                assert!(told > acknowledged, "{told} was acknowledged twice");
                acknowledged = told;
                if told == moment {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= moment, "the child died by itself");

        let (kept, term) = recover(dir.path()).await;
        assert!(kept >= acknowledged, "{kept} of {acknowledged} entries");
        assert!(term > last_term, "every opening begins a term");
        (acknowledged, last_term) = (kept, term);
    }
    assert!(Log::open(dir.path(), &KEY).unwrap().snapshot_index() > 0, "there were snapshots in between");
}
