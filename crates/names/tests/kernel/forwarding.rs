//! What no network knows is asked of resolvers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skep_names::Forwarding;

use crate::resolver::{self, Resolver};
use crate::support::{World, answer, at, exchange, exchange_by_tcp, question};

const A: RecordType = RecordType::A;

fn resolvers(world: &World, addresses: &[&str]) {
    let text: String = addresses.iter().map(|address| format!("nameserver {address}\n")).collect();
    std::fs::write(&world.config.resolv_conf, text).unwrap();
}

pub async fn answers_and_failures_are_passed_on() {
    let _resolver = Resolver::start(at("127.0.0.53"), |question, _| {
        vec![match question.queries[0].name.to_ascii().as_str() {
            "missing.example." => resolver::code(question, ResponseCode::NXDomain),
            "broken.example." => resolver::code(question, ResponseCode::ServFail),
            "refused.example." => resolver::code(question, ResponseCode::Refused),
            _ => resolver::found(question, &[[192, 0, 2, 1], [192, 0, 2, 2]]),
        }]
    });
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(sandbox.addresses("www.example", A), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(sandbox.code("missing.example", A), ResponseCode::NXDomain);
    assert_eq!(sandbox.code("broken.example", A), ResponseCode::ServFail);
    assert_eq!(sandbox.code("refused.example", A), ResponseCode::Refused);
    // As the client wrote it, which some check.
    let client = sandbox.client();
    client.send(&question(4711, "wWw.ExAmPle", A)).unwrap();
    let mut packet = [0; 512];
    let length = client.recv(&mut packet).unwrap();
    assert!(packet[..length].windows(8).any(|bytes| bytes == b"\x03wWw\x07ExA"), "{:?}", &packet[..length]);
    assert_eq!(answer(&packet[..length], Instant::now()).data.len(), 2);
}

pub async fn the_next_resolver_answers_for_a_silent_one() {
    let silent = Resolver::start(at("127.0.0.53"), |_, _| Vec::new());
    let _other = Resolver::knowing(at("127.0.0.54"), &[[192, 0, 2, 4]]);
    let world = World::with_shop();
    resolvers(&world, &["127.0.0.53", "127.0.0.54"]);
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let first = sandbox.ask("www.example", A).unwrap();
    assert_eq!(first.data, ["192.0.2.4"]);
    assert!(first.after < Duration::from_secs(2), "{first:?}");
    // It is known now who answers.
    let asked = silent.asked().len();
    let second = sandbox.ask("www.example", A).unwrap();
    assert_eq!((second.data.len(), silent.asked().len()), (1, asked));
    assert!(second.after < Duration::from_millis(600), "{second:?}");
}

pub async fn a_resolver_that_refuses_is_passed_over() {
    let world = World::with_shop();
    resolvers(&world, &["127.0.0.55", "127.0.0.53", "127.0.0.54"]);
    // At the first address nobody listens; the second knows nothing.
    let _refusing = Resolver::start(at("127.0.0.53"), |question, _| {
        vec![resolver::code(question, ResponseCode::Refused)]
    });
    let _other = Resolver::knowing(at("127.0.0.54"), &[[192, 0, 2, 4]]);
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let by_udp = sandbox.ask("www.example", A).unwrap();
    assert_eq!(by_udp.data, ["192.0.2.4"]);
    assert!(by_udp.after < Duration::from_millis(600), "{by_udp:?}");
    let by_tcp = exchange_by_tcp(&mut sandbox.connection(), "www.example", A).unwrap();
    assert_eq!(by_tcp.data, ["192.0.2.4"]);
}

pub async fn silence_is_a_failure_before_clients_give_up() {
    let silent = Resolver::start(at("127.0.0.53"), |_, _| Vec::new());
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let answer = sandbox.ask("www.example", A).expect("an answer");
    assert_eq!(answer.code, ResponseCode::ServFail);
    assert!(answer.after > Duration::from_secs(4), "{answer:?}");
    assert!((2..=6).contains(&silent.asked().len()), "{:?}", silent.asked());
}

pub async fn a_lost_question_is_asked_again() {
    let count = AtomicUsize::new(0);
    let _resolver =
        Resolver::start(at("127.0.0.53"), move |question, _| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Vec::new(),
            _ => vec![resolver::found(question, &[[192, 0, 2, 1]])],
        });
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let answer = sandbox.ask("www.example", A).unwrap();
    assert_eq!(answer.data, ["192.0.2.1"]);
    assert!(answer.after < Duration::from_secs(2), "{answer:?}");
}

pub async fn forged_answers_do_not_count() {
    let _resolver = Resolver::start(at("127.0.0.53"), |question, _| {
        let forge = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = resolver::found(question, &[[192, 0, 2, 66]]);
            change(&mut packet);
            packet
        };
        vec![
            forge(&|packet| packet[0] ^= 1),
            forge(&|packet| packet[13] ^= 1),
            forge(&|packet| packet[2] &= 0x7f),
            forge(&|packet| packet.truncate(3)),
            Vec::new(),
            resolver::found(question, &[[192, 0, 2, 1]]),
        ]
    });
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(sandbox.addresses("www.example", A), ["192.0.2.1"]);
}

pub async fn long_answers_come_by_tcp() {
    const MANY: [[u8; 4]; 100] = [[192, 0, 2, 7]; 100];
    let _resolver = Resolver::start(at("127.0.0.53"), |question, tcp| {
        vec![if tcp { resolver::found(question, &MANY) } else { resolver::cut(question) }]
    });
    let _careless = Resolver::knowing(at("127.0.0.54"), &MANY);
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert!(sandbox.ask("www.example", A).unwrap().is_cut);
    let by_tcp = exchange_by_tcp(&mut sandbox.connection(), "www.example", A).unwrap();
    assert_eq!(by_tcp.data.len(), 100);
    // A resolver that sends more than the client takes.
    let world = World::with_shop();
    resolvers(&world, &["127.0.0.54"]);
    let sandbox = world.sandbox("two", &["shop-id"], Forwarding::Host).await;
    let cut = sandbox.ask("www.example", A).unwrap();
    assert!(cut.is_cut && cut.data.is_empty(), "{cut:?}");
}

pub async fn given_resolvers_are_asked_from_the_sandbox() {
    let hosts = Resolver::knowing(at("127.0.0.53"), &[[192, 0, 2, 1]]);
    let world = World::with_shop();
    let given = Forwarding::Given(vec![at("127.0.0.53"), at("127.0.0.11")]);
    let sandbox = world.sandbox("one", &["shop-id"], given).await;
    assert_eq!(sandbox.code("www.example", A), ResponseCode::ServFail, "nobody listens in the sandbox yet");
    let own = sandbox.run(|| Resolver::knowing(at("127.0.0.53"), &[[192, 0, 2, 8]]));
    assert_eq!(sandbox.addresses("www.example", A), ["192.0.2.8"]);
    assert_eq!(sandbox.addresses("nas", A), ["192.0.2.8"], "whoever names a resolver wants it asked");
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    let by_tcp = exchange_by_tcp(&mut sandbox.connection(), "www.example", A).unwrap();
    assert_eq!(by_tcp.data, ["192.0.2.8"]);
    assert_eq!((own.asked().len(), hosts.asked().len()), (3, 0));
}

pub async fn nothing_leaves_internal_networks() {
    let hosts = Resolver::knowing(at("127.0.0.53"), &[[192, 0, 2, 1]]);
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::None).await;
    let answer = sandbox.ask("www.example", A).unwrap();
    assert_eq!(answer.code, ResponseCode::NXDomain);
    assert!(answer.after < Duration::from_millis(500));
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    // Connected to another network later, and away from it again.
    world.names.set_sandbox("one", sandbox.view(&["shop-id"], Forwarding::Host));
    assert!(world.names.settled().await);
    assert_eq!(sandbox.addresses("www.example", A), ["192.0.2.1"]);
    world.names.set_sandbox("one", sandbox.view(&["shop-id"], Forwarding::None));
    assert!(world.names.settled().await);
    assert_eq!(sandbox.code("www.example", A), ResponseCode::NXDomain);
    assert_eq!(hosts.asked().len(), 1);
}

pub async fn the_hosts_resolvers_are_followed() {
    let _first = Resolver::knowing(at("127.0.0.53"), &[[192, 0, 2, 1]]);
    let _second = Resolver::knowing(at("127.0.0.54"), &[[192, 0, 2, 2]]);
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    assert_eq!(sandbox.addresses("www.example", A), ["192.0.2.1"]);
    resolvers(&world, &["127.0.0.54"]);
    crate::support::until("the other resolver is asked", Duration::from_secs(3), || {
        sandbox.addresses("www.example", A) == ["192.0.2.2"]
    })
    .await;
}

pub async fn questions_that_wait_are_limited() {
    let silent = Arc::new(Resolver::start(at("127.0.0.53"), |_, _| Vec::new()));
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let neighbour = world.sandbox("two", &["shop-id"], Forwarding::Host).await;
    let (client, other, began) = (sandbox.client(), sandbox.client(), Instant::now());
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut refused = BTreeSet::new();
    for id in 0..900 {
        client.send(&question(id, "www.example", A)).unwrap();
        if id % 50 == 0 {
            // The server has read all before that: the kernel's queue is shorter than all of them.
            exchange(&other, "web", A).unwrap();
        }
    }
    // Those that wait fail as well, but later.
    while began.elapsed() < Duration::from_secs(4) && refused.len() < 100 {
        let mut packet = [0; 512];
        if client.recv(&mut packet).is_ok() {
            refused.insert(u16::from_be_bytes([packet[0], packet[1]]));
        }
    }
    assert!(refused.len() >= 100, "{} are refused at once", refused.len());
    assert!(exchange(&neighbour.client(), "web", A).unwrap().after < Duration::from_millis(500));
    assert!(silent.asked().iter().all(|name| name == "www.example."));
}
