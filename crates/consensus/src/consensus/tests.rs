//! Members that talk in memory and write to real disks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cluster;
mod hardship;

use std::time::{Duration, Instant};

use cluster::{Cluster, KEY, LIMIT};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_leads_commits_and_remembers() {
    let cluster = Cluster::found().await;
    let one = cluster.member(1);
    let term = one.leads().await;
    one.consensus().propose(term, 7, b"first".to_vec());
    one.consensus().propose(term, 8, b"second".to_vec());
    one.committed(b"second").await;
    assert_eq!(one.own(), [7, 8]);
    assert!(one.consensus().barrier().await.unwrap() >= 4);
    one.consensus().propose(term + 1, 9, b"from the future".to_vec());
    one.refused(9).await;
    one.consensus().propose(term, 10, vec![0; MAX_ENTRY_BYTES]);
    one.refused(10).await;
    assert!(matches!(one.consensus().found("again".to_owned()).await, Err(FoundError::Founded)));

    one.stop().await;
    one.start().await;
    assert!(one.leads().await > term);
    assert_eq!(one.payloads(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(one.own(), [7, 8], "they are of the opening before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_agree_and_replace_a_dead_leader() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    for number in 0..50_u64 {
        leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
    }
    cluster.all_committed(b"entry 49").await;
    assert_eq!(leader.standing(|standing| standing.reachable.len() == 3).await.members.len(), 3);

    leader.stop().await;
    let died = Instant::now();
    let next = cluster.leader().await;
    let next_term = next.leads().await;
    assert!(died.elapsed() < Duration::from_millis(1500), "{:?}", died.elapsed());
    assert!(next_term > term);
    next.consensus().propose(next_term, 100, b"after".to_vec());
    next.committed(b"after").await;
    leader.start().await;
    cluster.all_committed(b"after").await;
    cluster.assert_orders_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_commits_nothing_and_heals() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let term = old.leads().await;
    cluster.cut_off(old.id);
    old.consensus().propose(term, 1, b"lost".to_vec());
    let next = cluster.leader_but(old.id).await;
    let next_term = next.leads().await;
    next.consensus().propose(next_term, 2, b"kept".to_vec());
    next.committed(b"kept").await;
    assert!(old.consensus().barrier().await.is_err());
    // It gives the lead up by itself.
    old.standing(|standing| !standing.leads).await;
    assert!(!old.payloads().contains(&b"lost".to_vec()));
    cluster.heal();
    cluster.all_committed(b"kept").await;
    assert_eq!(next.leads().await, next_term, "the returning member deposed nobody");
    cluster.assert_orders_equal();
    assert!(!next.payloads().contains(&b"lost".to_vec()));
    assert_eq!(old.own(), [] as [ProposalId; 0], "its fate became known by nobody's word");
    assert!(!old.has_refused(1), "it was in the log for a while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_deposes_nobody() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    let follower = cluster.follower(leader.id);
    cluster.cut_off(follower.id);
    follower.standing(|standing| standing.leader.is_none()).await;
    // Several election times.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.heal();
    leader.consensus().propose(term, 1, b"still here".to_vec());
    cluster.all_committed(b"still here").await;
    assert_eq!(leader.leads().await, term);
    assert_eq!(follower.standing(|standing| standing.leader.is_some()).await.term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_member_gets_the_snapshot_in_parts() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    let follower = cluster.follower(leader.id);
    follower.stop().await;
    let last = KEPT_ENTRIES + 300;
    for number in 0..last {
        leader.consensus().propose(term, number, format!("entry {number}").into_bytes());
    }
    leader.committed(format!("entry {}", last - 1).as_bytes()).await;
    let index = leader.last_index();
    let state = vec![b's'; 3 * CHUNK_BYTES as usize + 5];
    leader.consensus().compact(index, state.clone());
    leader.until("the log is purged", || leader.purged() > 10).await;
    leader.consensus().propose(term, last, b"behind it".to_vec());
    follower.start().await;
    follower.committed(b"behind it").await;
    assert_eq!(follower.restored(), Some((index, state.clone())));

    // Both open again from their snapshots.
    for member in [&leader, &follower] {
        member.stop().await;
        member.start().await;
        member.committed(b"behind it").await;
        assert_eq!(member.restored(), Some((index, state.clone())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_start_again() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    leader.consensus().propose(term, 1, b"before".to_vec());
    cluster.all_committed(b"before").await;
    for member in cluster.members() {
        member.stop().await;
    }
    for member in cluster.members() {
        member.start().await;
    }
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    leader.consensus().propose(term, 2, b"after".to_vec());
    cluster.all_committed(b"after").await;
    cluster.assert_orders_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_go_and_move() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader.id);
    let id = follower.id;
    assert!(matches!(follower.consensus().remove_member(leader.id).await, Err(MemberError::NotLeader(_))));
    leader.consensus().update_address(id, "elsewhere".to_owned()).await.unwrap();
    let standing = leader.standing(|standing| standing.members[&id].address == "elsewhere").await;
    assert!(standing.members.values().all(|seat| seat.voter));
    assert!(matches!(leader.consensus().update_address(99, String::new()).await, Err(MemberError::Unknown)));
    leader.consensus().remove_member(id).await.unwrap();
    leader.consensus().remove_member(id).await.unwrap();
    assert_eq!(leader.standing(|standing| standing.members.len() == 2).await.members.get(&id), None);
    leader.consensus().remove_member(leader.id).await.unwrap();
    let last = cluster.leader_but(leader.id).await;
    let term = last.leads().await;
    last.standing(|standing| standing.members.len() == 1).await;
    last.consensus().propose(term, 1, b"alone".to_vec());
    last.committed(b"alone").await;
    assert!(matches!(last.consensus().remove_member(last.id).await, Err(MemberError::Last)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_on() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    leader.standing(|standing| standing.reachable.len() == 3).await;
    leader.consensus().abdicate().await;
    let next = cluster.leader_but(leader.id).await;
    next.leads().await;
    leader.standing(|standing| !standing.leads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_goes_on_alone_when_forced() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = leader.leads().await;
    leader.consensus().propose(term, 1, b"kept".to_vec());
    cluster.all_committed(b"kept").await;
    for member in cluster.members() {
        member.stop().await;
    }
    let survivor = cluster.follower(leader.id);
    Consensus::force_new(&survivor.config(), "alone".to_owned()).unwrap();
    survivor.start().await;
    assert!(survivor.leads().await > term);
    assert!(survivor.payloads().contains(&b"kept".to_vec()));
    let standing = survivor.standing(|standing| standing.leads).await;
    assert_eq!(standing.members.keys().collect::<Vec<_>>(), [&survivor.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_checked_and_can_be_replaced() {
    let cluster = Cluster::found().await;
    let one = cluster.member(1);
    let term = one.leads().await;
    one.consensus().propose(term, 1, b"secret".to_vec());
    one.committed(b"secret").await;
    one.stop().await;
    let other = LogKey::new([9; 32]);
    let transport = cluster.transport(1);
    let wrong = Config { key: other.clone(), ..one.config() };
    assert!(matches!(Consensus::open(wrong.clone(), transport.clone()).await, Err(LogError::Key)));
    Consensus::rekey(&one.config().dir, &KEY, &other).unwrap();
    let (consensus, mut notices) = Consensus::open(wrong, transport).await.unwrap();
    let found = async {
        while let Some(notice) = notices.recv().await {
            if matches!(notice, Notice::Committed { payload: Some(payload), .. } if payload == b"secret") {
                return;
            }
        }
    };
    timeout(LIMIT, found).await.unwrap();
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused() {
    let cluster = Cluster::found().await;
    let one = cluster.member(1);
    one.leads().await;
    let good = wire::write(1, Question::Canvass { last: None });
    assert!(one.consensus().receive(good.clone()).await.is_ok());
    for length in 0..good.len() {
        assert!(one.consensus().receive(good.slice(..length)).await.is_err());
    }
    let elsewhere = one.consensus().receive(wire::write(2, Question::TakeOver)).await;
    assert!(matches!(elsewhere, Err(ReceiveError::Elsewhere { to: 2 })));
    let huge = Bytes::from(vec![0; wire::MAX_MESSAGE_BYTES + 1]);
    assert!(matches!(one.consensus().receive(huge).await, Err(ReceiveError::Malformed { .. })));
    let mut random = 1_u64;
    for length in 0..2000_usize {
        let noise = (0..length % 97).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        });
        let mut message = good.to_vec();
        message.truncate(length % good.len());
        message.extend(noise);
        let _ = one.consensus().receive(message.into()).await;
    }
    assert!(one.consensus().barrier().await.is_ok());
}
