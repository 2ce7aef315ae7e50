//! Certificates that come of age while everything runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::users::{Model, Users};
use super::{Tally, check};
use crate::Lab;

/// Days after which every certificate is to be renewed and none has expired: they last 90, and are renewed after
/// half to four fifths of that.
const DAYS: i64 = 75;
/// A day, in seconds.
const DAY: i64 = 24 * 3600;
/// Time within which all nodes look at the clock (ten minutes at most, see the node's supervisor) and are done.
const BOUND: Duration = Duration::from_secs(660);

/// Lets all clocks go ahead, and waits until each node has another certificate; users are served all the time.
pub(crate) fn torment(
    lab: &Lab,
    seed: u64,
    model: &mut Model,
    tell: &mut impl FnMut(&str),
) -> Result<Tally, String> {
    tell(&format!("all clocks go {DAYS} days ahead"));
    let before = certificates(lab)?;
    // Together: nodes that differ by months take each other's certificates for none.
    lab.set_clocks(DAYS * DAY)?;
    let begun = Instant::now();
    let stop = AtomicBool::new(false);
    let (users, renewed) = std::thread::scope(|scope| {
        let users = scope.spawn(|| Users::new(seed, model.clone(), None).run(lab, &stop));
        let renewed = renewed(lab, &before, begun, tell);
        stop.store(true, Ordering::Relaxed);
        (users.join(), renewed)
    });
    renewed?;
    let users = users.map_err(|_| "the users' thread panicked".to_owned())?;
    if let Some(slow) = users.slow.first() {
        return Err(slow.clone());
    }
    *model = users.model;
    check::converged(lab, model)?;
    tell(&format!("  all renewed after {:.0?}; {:?}", begun.elapsed(), users.tally));
    Ok(users.tally)
}

fn renewed(lab: &Lab, before: &[Vec<u8>], begun: Instant, tell: &mut impl FnMut(&str)) -> Result<(), String> {
    let mut waiting: Vec<u16> = lab.nodes().collect();
    while !waiting.is_empty() {
        let now = certificates(lab)?;
        let same = |node: &u16| now[usize::from(*node) - 1] == before[usize::from(*node) - 1];
        for node in waiting.extract_if(.., |node| !same(node)) {
            tell(&format!("  node {node} has another certificate after {:.0?}", begun.elapsed()));
        }
        if begun.elapsed() > BOUND {
            return Err(format!("nodes {waiting:?} have the certificates of {DAYS} days ago"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Each node's.
fn certificates(lab: &Lab) -> Result<Vec<Vec<u8>>, String> {
    let path = |node| -> PathBuf { lab.folder(node).join("data/swarm/certificates/swarm-node.crt") };
    let read = |node| std::fs::read(path(node)).map_err(|error| format!("{}: {error}", path(node).display()));
    lab.nodes().map(read).collect()
}
