//! Members with bad disks, deaf owners, callers that give up, and answers that never come.

use std::time::Duration;

use super::cluster::{Cluster, LIMIT, Member};
use super::*;

fn payload(number: u64) -> Vec<u8> {
    format!("entry {number} {}", "x".repeat(9000)).into_bytes()
}

#[derive(Clone, Copy)]
enum Trouble {
    Full,
    Gone,
}

/// Proposes on a disk that fails after a while; returns the reason that was told.
async fn exhaust(member: &Member, trouble: Trouble) -> String {
    let term = member.leads().await;
    match trouble {
        Trouble::Full => member.disk().set_capacity(member.disk().len() + (256 << 10)),
        Trouble::Gone => member.disk().fail_after(200),
    }
    let proposing = async {
        for number in 0.. {
            member.consensus().propose(term, number, payload(number));
            member.until("its fate", || member.own().contains(&number) || member.has_failed()).await;
            if member.has_failed() {
                return;
            }
        }
    };
    timeout(LIMIT, proposing).await.unwrap();
    member.failed().await
}

fn mend(member: &Member) {
    member.disk().set_capacity(u64::MAX);
    member.disk().fail_after(usize::MAX);
}

fn check_reason(reason: &str, trouble: Trouble) {
    let cause = match trouble {
        Trouble::Full => "the disk is full",
        Trouble::Gone => "the disk is gone",
    };
    assert!(reason.contains(cause), "{reason}");
}

async fn a_bad_disk_of_a_single_member(trouble: Trouble) {
    let cluster = Cluster::on_disks(1).await;
    let one = cluster.member(1);
    let term = one.leads().await;
    check_reason(&exhaust(&one, trouble).await, trouble);
    let acknowledged = one.own();
    assert!(!acknowledged.is_empty());
    assert!(!one.consensus().standing().borrow().leads);
    one.consensus().propose(term, 1 << 40, b"too late".to_vec());
    assert!(one.consensus().barrier().await.is_err());
    one.stop().await;
    mend(&one);
    one.start().await;
    let term = one.leads().await;
    let kept = one.payloads();
    for number in &acknowledged {
        assert!(kept.contains(&payload(*number)), "entry {number}");
    }
    one.consensus().propose(term, 1 << 41, b"room again".to_vec());
    one.committed(b"room again").await;
    assert!(!one.payloads().contains(&b"too late".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_survives_a_full_disk() {
    a_bad_disk_of_a_single_member(Trouble::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_survives_failing_writes() {
    a_bad_disk_of_a_single_member(Trouble::Gone).await;
}

async fn a_bad_disk_of_a_leader(trouble: Trouble) {
    let cluster = Cluster::on_disks(3).await;
    let leader = cluster.leader().await;
    check_reason(&exhaust(&leader, trouble).await, trouble);
    let next = cluster.leader_but(leader.id).await;
    let term = next.leads().await;
    let kept = next.payloads();
    for number in leader.own() {
        assert!(kept.contains(&payload(number)), "entry {number} was acknowledged");
    }
    next.consensus().propose(term, 1, b"meanwhile".to_vec());
    next.committed(b"meanwhile").await;
    leader.stop().await;
    mend(&leader);
    leader.start().await;
    cluster.all_committed(b"meanwhile").await;
    cluster.assert_orders_equal();
    assert_eq!(next.leads().await, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_when_the_leader_s_disk_is_full() {
    a_bad_disk_of_a_leader(Trouble::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_when_the_leader_s_writes_fail() {
    a_bad_disk_of_a_leader(Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_syncs_change_no_leader() {
    let cluster = Cluster::on_disks(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    for member in cluster.members() {
        member.disk().be_slow(20..101);
    }
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
        number += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leader.consensus().propose(term, number, b"the last".to_vec());
    cluster.all_committed(b"the last").await;
    assert_eq!(leader.leads().await, term);
    for member in cluster.members() {
        assert_eq!(member.consensus().standing().borrow().term, term, "member {}", member.id);
    }
    cluster.assert_orders_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_wait_for_the_disk_share_a_sync() {
    let cluster = Cluster::on_disks(1).await;
    let one = cluster.member(1);
    let term = one.leads().await;
    one.disk().be_slow(20..21);
    let before = one.disk().syncs();
    for number in 0..1000 {
        one.consensus().propose(term, number, format!("entry {number}").into_bytes());
    }
    one.committed(b"entry 999").await;
    let syncs = one.disk().syncs() - before;
    assert!(syncs < 100, "{syncs} syncs for 1000 proposals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_commits_what_the_last_one_could_not() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let term = old.leads().await;
    cluster.deafen(old.id);
    old.consensus().propose(term, 77, b"fate unknown".to_vec());
    // Nobody answers it, so it gives up; the others have the entry.
    old.standing(|standing| !standing.leads).await;
    let next = cluster.leader_but(old.id).await;
    next.committed(b"fate unknown").await;
    assert_eq!(next.own(), [] as [ProposalId; 0], "it is not its proposal");
    cluster.heal();
    old.committed(b"fate unknown").await;
    assert_eq!(old.own(), [77], "it knows its own proposal again");
    assert!(!old.has_refused(77));
    cluster.assert_orders_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_does_not_listen_costs_no_lead() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    let deaf = leader.ear.clone().lock_owned().await;
    let last = 3 * NOTICES as u64;
    for number in 0..last {
        leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
        // Refusals need no room.
        leader.consensus().propose(term + 1, last + number, Vec::new());
    }
    // Several election times.
    let follower = cluster.follower(leader.id);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let standing = follower.consensus().standing().borrow().clone();
        assert_eq!((standing.term, standing.leader.map(|(id, _)| id)), (term, Some(leader.id)));
    }
    drop(deaf);
    cluster.all_committed(format!("entry {}", last - 1).as_bytes()).await;
    assert_eq!(leader.leads().await, term);

    // Nor does it keep its member from stopping.
    let _deaf = leader.ear.clone().lock_owned().await;
    for number in 0..last {
        leader.consensus().propose(term, 2 * last + number, b"again".to_vec());
    }
    follower.committed(b"again").await;
    timeout(LIMIT, leader.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_many_compactions_is_written() {
    let cluster = Cluster::on_disks(1).await;
    let one = cluster.member(1);
    let term = one.leads().await;
    one.disk().be_slow(20..101);
    for number in 0..20_u64 {
        let entry = format!("entry {number}").into_bytes();
        one.consensus().propose(term, number, entry.clone());
        one.committed(&entry).await;
        one.consensus().compact(one.last_index(), entry);
    }
    let last = one.last_index();
    let written =
        || one.consensus().inner.raft.metrics().borrow().snapshot.is_some_and(|id| id.index + 1 == last);
    one.until("the last is written", written).await;
    one.stop().await;
    one.start().await;
    one.leads().await;
    assert_eq!(one.restored(), Some((last, b"entry 19".to_vec())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_state_than_the_leader_s_snapshot_is_dropped() {
    let cluster = Cluster::on_disks(1).await;
    let one = cluster.member(1);
    let term = one.leads().await;
    for number in 0..10_u64 {
        one.consensus().propose(term, number, format!("entry {number}").into_bytes());
    }
    one.committed(b"entry 9").await;
    let last = one.last_index();
    one.consensus().compact(last, b"all".to_vec());
    let written = || one.consensus().inner.raft.metrics().borrow().snapshot.is_some();
    one.until("it is written", written).await;
    one.consensus().compact(last - 5, b"half".to_vec());
    one.until("it is taken", || !one.consensus().inner.compaction.waits()).await;
    one.consensus().propose(term, 10, b"after".to_vec());
    one.committed(b"after").await;
    one.stop().await;
    one.start().await;
    one.committed(b"after").await;
    assert_eq!(one.restored(), Some((last, b"all".to_vec())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_harm_nothing() {
    let cluster = Cluster::on_disks(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    leader.standing(|standing| standing.reachable.len() == 3).await;
    let _ = timeout(Duration::from_millis(50), leader.consensus().abdicate()).await;
    assert!(leader.consensus().inner.network.may_lead());
    leader.consensus().propose(term, 1, b"still here".to_vec());
    cluster.all_committed(b"still here").await;

    for member in cluster.members() {
        member.disk().be_slow(20..60);
    }
    let gone = cluster.follower(leader.id);
    let _ = timeout(Duration::from_millis(5), leader.consensus().remove_member(gone.id)).await;
    leader.consensus().remove_member(gone.id).await.unwrap();
    leader.standing(|standing| !standing.members.contains_key(&gone.id)).await;
    let address = "address again".to_owned();
    let _ = timeout(Duration::from_millis(5), leader.consensus().add_member(gone.id, address.clone())).await;
    leader.consensus().add_member(gone.id, address).await.unwrap();
    leader.standing(|standing| standing.members.values().filter(|seat| seat.voter).count() == 3).await;
}

/// A member falls behind again and again, so that it gets the leader's snapshot while entries and states of its own
/// are being written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_arrive_between_appends() {
    let cluster = Cluster::on_disks(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    let follower = cluster.follower(leader.id);
    follower.disk().be_slow(1..15);
    let mut number = 0_u64;
    for round in 0..6 {
        cluster.cut_off(follower.id);
        for _ in 0..KEPT_ENTRIES + 100 {
            number += 1;
            leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
        }
        leader.committed(format!("entry {number}").as_bytes()).await;
        let index = leader.last_index();
        leader.consensus().compact(index, format!("up to {index}").into_bytes());
        leader.until("the log is purged", || leader.purged() + KEPT_ENTRIES + 50 > index).await;
        // A state from before the snapshot that is about to come.
        let old = follower.last_index();
        if old > 0 && round % 2 == 1 {
            follower.consensus().compact(old, format!("up to {old}").into_bytes());
        }
        cluster.heal();
        for _ in 0..200 {
            number += 1;
            leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
            let own = follower.last_index();
            if number.is_multiple_of(20) && own > 0 {
                follower.consensus().compact(own, format!("up to {own}").into_bytes());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        follower.committed(format!("entry {number}").as_bytes()).await;
    }
    cluster.assert_orders_equal();
    assert!(!follower.has_failed());
    follower.stop().await;
    follower.start().await;
    follower.until("it knows all", || follower.last_index() >= leader.last_index()).await;
    let (restored, state) = follower.restored().unwrap();
    assert_eq!(state, format!("up to {restored}").into_bytes());
    cluster.assert_orders_equal();
}
