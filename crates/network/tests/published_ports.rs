//! Published ports against the real kernel: who reaches what, and whose address is seen.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{GATEWAY, HOST, HOST_SECOND, OUTSIDER, World, exchange, tally};

#[test]
fn a_published_port_answers_outside_and_sees_the_clients_address() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let _server = container.serve("0.0.0.0:80");
    assert_eq!(world.publish("web", "8080", &["172.30.0.2:80"]).unwrap(), 8080);
    println!("{}", world.rules());
    assert_eq!(world.outside.ask("192.0.2.1:8080").unwrap(), format!("web {OUTSIDER}"));
}
