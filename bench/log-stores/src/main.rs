//! Stores for the durable log, measured against each other: what one synced append costs, what a batch costs, and
//! how long a log takes to open and be read.
//!
//! `cargo run --release -- <a folder on the disk to measure>`. Every append is synced before the next one begins.
//! `skep` is the project's own log: redb with each payload sealed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fjall::{KeyspaceCreateOptions, PersistMode};
use protobuf::well_known_types::Any;
use raft_engine::{LogBatch, MessageExt, ReadableSize};
use redb::{ReadableDatabase, TableDefinition};
use skep_consensus::{Log, LogKey};

const PAYLOAD_BYTES: usize = 1024;
const SINGLES: usize = 500;
const BATCHES: usize = 100;
const BATCH: usize = 64;
const RECOVERED: usize = 10_000;

/// A log under measurement.
trait Store: Sized {
    const NAME: &'static str;
    fn open(dir: &Path) -> Result<Self>;
    /// Appends entries behind `last`; on return they are on the disk.
    fn append(&mut self, last: u64, payloads: &[Vec<u8>]) -> Result<()>;
    /// Reads all entries; returns how many there are.
    fn read(&self) -> Result<usize>;
}

struct Redb(redb::Database);

const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");

impl Store for Redb {
    const NAME: &'static str = "redb";

    fn open(dir: &Path) -> Result<Self> {
        Ok(Redb(redb::Database::builder().set_cache_size(1 << 20).create(dir.join("log.redb"))?))
    }

    fn append(&mut self, last: u64, payloads: &[Vec<u8>]) -> Result<()> {
        let write = self.0.begin_write()?;
        {
            let mut entries = write.open_table(ENTRIES)?;
            for (index, payload) in (last + 1..).zip(payloads) {
                entries.insert(index, payload.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn read(&self) -> Result<usize> {
        let read = self.0.begin_read()?;
        let mut count = 0;
        for entry in read.open_table(ENTRIES)?.range::<u64>(..)? {
            ensure!(entry?.1.value().len() == PAYLOAD_BYTES, "an entry is not what was appended");
            count += 1;
        }
        Ok(count)
    }
}

struct Skep(Log);

impl Store for Skep {
    const NAME: &'static str = "skep (redb, sealed)";

    fn open(dir: &Path) -> Result<Self> {
        Ok(Skep(Log::open(dir, &LogKey::new([7; 32]))?))
    }

    fn append(&mut self, _last: u64, payloads: &[Vec<u8>]) -> Result<()> {
        self.0.append(payloads)?;
        Ok(())
    }

    fn read(&self) -> Result<usize> {
        let entries = self.0.read(1, usize::MAX)?;
        ensure!(entries.iter().all(|entry| entry.payload.len() == PAYLOAD_BYTES), "not what was appended");
        Ok(entries.len())
    }
}

struct Fjall {
    database: fjall::Database,
    entries: fjall::Keyspace,
}

impl Store for Fjall {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path) -> Result<Self> {
        let database = fjall::Database::builder(dir).open()?;
        let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, entries })
    }

    fn append(&mut self, last: u64, payloads: &[Vec<u8>]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (index, payload) in (last + 1..).zip(payloads) {
            batch.insert(&self.entries, index.to_be_bytes(), payload.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn read(&self) -> Result<usize> {
        let mut count = 0;
        for entry in self.entries.iter() {
            ensure!(entry.value()?.len() == PAYLOAD_BYTES, "an entry is not what was appended");
            count += 1;
        }
        Ok(count)
    }
}

struct RaftEngine(raft_engine::Engine);

/// An entry as raft-engine wants one: a message that knows its index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = Any;

    fn index(entry: &Any) -> u64 {
        entry.type_url.parse().unwrap_or(0)
    }
}

const GROUP: u64 = 1;

impl Store for RaftEngine {
    const NAME: &'static str = "raft-engine";

    fn open(dir: &Path) -> Result<Self> {
        let dir = dir.to_str().context("the folder's name is no text")?.to_owned();
        // Nothing is compressed: sealed payloads cannot be.
        let batch_compression_threshold = ReadableSize::kb(0);
        let config =
            raft_engine::Config { dir, batch_compression_threshold, ..raft_engine::Config::default() };
        Ok(RaftEngine(raft_engine::Engine::open(config)?))
    }

    fn append(&mut self, last: u64, payloads: &[Vec<u8>]) -> Result<()> {
        let entries: Vec<Any> = (last + 1..)
            .zip(payloads)
            .map(|(index, payload)| Any {
                type_url: index.to_string(),
                value: payload.clone(),
                ..Any::default()
            })
            .collect();
        let mut batch = LogBatch::default();
        batch.add_entries::<Indexed>(GROUP, &entries)?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn read(&self) -> Result<usize> {
        let (Some(first), Some(last)) = (self.0.first_index(GROUP), self.0.last_index(GROUP)) else {
            return Ok(0);
        };
        let mut entries = Vec::new();
        self.0.fetch_entries_to::<Indexed>(GROUP, first, last + 1, None, &mut entries)?;
        ensure!(entries.iter().all(|entry| entry.value.len() == PAYLOAD_BYTES), "not what was appended");
        Ok(entries.len())
    }
}

/// Times of `rounds` appends of `batch` entries, shortest first.
fn appends<S: Store>(store: &mut S, last: &mut u64, rounds: usize, batch: usize) -> Result<Vec<Duration>> {
    let payloads: Vec<Vec<u8>> = (0..batch).map(|number| vec![number as u8; PAYLOAD_BYTES]).collect();
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        store.append(*last, &payloads)?;
        times.push(begun.elapsed());
        *last += batch as u64;
    }
    times.sort();
    Ok(times)
}

fn bytes_on_disk(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_on_disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn measure<S: Store>(parent: &Path) -> Result<()> {
    let dir = parent.join(format!("log-stores-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let mut store = S::open(&dir)?;
    let mut last = 0;
    let singles = appends(&mut store, &mut last, SINGLES, 1)?;
    let batches = appends(&mut store, &mut last, BATCHES, BATCH)?;
    while last < RECOVERED as u64 {
        let batch = (RECOVERED as u64 - last).min(BATCH as u64) as usize;
        appends(&mut store, &mut last, 1, batch)?;
    }
    drop(store);
    let begun = Instant::now();
    let store = S::open(&dir)?;
    let entries = store.read()?;
    let recovery = begun.elapsed();
    ensure!(entries == RECOVERED, "{entries} entries came back");
    drop(store);
    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "| {} | {:.2} / {:.2} | {:.2} / {:.2} | {:.0} | {:.1} |",
        S::NAME,
        at(&singles, 50),
        at(&singles, 99),
        at(&batches, 50),
        at(&batches, 99),
        recovery.as_secs_f64() * 1e3,
        bytes_on_disk(&dir)? as f64 / 1e6,
    );
    Ok(std::fs::remove_dir_all(&dir)?)
}

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("name a folder on the disk to measure")?;
    let dir = Path::new(&dir);
    println!(
        "| Store | one 1 KiB entry, p50 / p99 (ms) | {BATCH} entries, p50 / p99 (ms) | open and read {RECOVERED} (ms) | on disk (MB) |"
    );
    println!("|---|---|---|---|---|");
    measure::<Redb>(dir)?;
    measure::<Skep>(dir)?;
    measure::<Fjall>(dir)?;
    measure::<RaftEngine>(dir)
}
