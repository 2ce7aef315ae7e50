//! What agreement adds to the log for a single member: one proposal after the other, and many at once, by turns with
//! the same entries appended to a bare log.
//!
//! `cargo run --release --bin propose -- <a folder on the disk to measure>`

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use skep_consensus::{Config, Consensus, Log, LogKey, Notice, RaftId, Term, Transport, TransportError};
use tokio::sync::mpsc;

const PAYLOAD_BYTES: usize = 1024;
/// The two take turns in blocks: a sync right behind another's is not what one costs by itself.
const BLOCKS: usize = 10;
const ROUNDS: usize = 40;
const BATCH: u64 = 64;
const KEY: LogKey = LogKey::new([7; 32]);

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

struct Member {
    consensus: Consensus,
    notices: mpsc::Receiver<Notice>,
    term: Term,
    proposed: u64,
}

impl Member {
    async fn found(dir: &Path) -> Result<Member> {
        let config = Config::new(dir.to_owned(), 1, KEY);
        let (consensus, mut notices) = Consensus::open(config, Arc::new(Nobody)).await?;
        consensus.found("here".to_owned()).await?;
        loop {
            if let Notice::Leads { term } = notices.recv().await.context("it stopped")? {
                return Ok(Member { consensus, notices, term, proposed: 0 });
            }
        }
    }

    /// Proposes `count` entries at once, and waits for all of them.
    async fn agree(&mut self, count: u64, payload: &[u8]) -> Result<Duration> {
        let begun = Instant::now();
        for _ in 0..count {
            self.proposed += 1;
            self.consensus.propose(self.term, self.proposed, payload.to_vec());
        }
        loop {
            match self.notices.recv().await.context("it stopped")? {
                Notice::Committed { own, .. } if own == Some(self.proposed) => return Ok(begun.elapsed()),
                Notice::Committed { .. } => {}
                other => bail!("told {other:?}"),
            }
        }
    }
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e3 / times.len() as f64;
    println!("| {what} | {:.2} | {:.2} | {mean:.2} |", at(50), at(99));
}

async fn measure(dir: &Path) -> Result<()> {
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let mut log = Log::open(&dir.join("log"), &KEY)?;
    let mut member = Member::found(&dir.join("member")).await?;
    println!("| | p50 (ms) | p99 (ms) | mean (ms) |\n|---|---|---|---|");
    for count in [1, BATCH] {
        let batch = vec![payload.clone(); count as usize];
        let (mut bare, mut agreed) = (Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            for _ in 0..ROUNDS {
                let begun = Instant::now();
                log.append(&batch)?;
                bare.push(begun.elapsed());
            }
            for _ in 0..ROUNDS {
                agreed.push(member.agree(count, &payload).await?);
            }
        }
        report(&format!("bare log, {count} in one append"), &mut bare);
        report(&format!("consensus, {count} at once"), &mut agreed);
    }
    member.consensus.stop().await;
    Ok(())
}

fn main() -> Result<()> {
    let parent = std::env::args().nth(1).context("name a folder on the disk to measure")?;
    let dir = Path::new(&parent).join(format!("propose-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&dir))?;
    Ok(std::fs::remove_dir_all(&dir)?)
}
