//! Questions for names find their server in a sandbox, and leave port 53 to the container.

use skep_network::LinkError;

use crate::support::{Machine, World, exchange};

#[test]
fn port_53_of_the_servers_address_is_another_port_for_all_protocols() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let server = Machine::at("names", &world.netns_dir().join("web"));
    let _servers = (server.serve("127.0.0.11:14"), server.serve_udp("127.0.0.11:14"));
    // Twice: it is idempotent.
    for _ in 0..2 {
        world.network(|network| network.redirect_names("web", 14)).unwrap();
    }
    assert!(container.ask("127.0.0.11:53").unwrap().starts_with("names 127."));
    let client = container.udp("127.0.0.11:53");
    assert!(exchange(&client).unwrap().starts_with("names"), "the answer comes from where was asked");
}

#[test]
fn a_container_has_port_53_for_itself() {
    let mut world = World::new();
    let container = world.container("web", "172.30.0.2");
    let server = Machine::at("names", &world.netns_dir().join("web"));
    let _servers = (server.serve("127.0.0.11:14"), server.serve_udp("127.0.0.11:14"));
    world.network(|network| network.redirect_names("web", 14)).unwrap();
    let _own = (container.serve("0.0.0.0:53"), container.serve_udp("0.0.0.0:53"));
    for address in ["127.0.0.1:53", "172.30.0.2:53"] {
        assert!(container.ask(address).unwrap().starts_with("web"));
        assert!(exchange(&container.udp(address)).unwrap().starts_with("web"));
    }
    assert!(container.ask("127.0.0.11:53").unwrap().starts_with("names"));
    assert!(exchange(&container.udp("127.0.0.11:53")).unwrap().starts_with("names"));
}

#[test]
fn a_sandbox_that_is_not_there_is_named() {
    let mut world = World::new();
    let refused = world.network(|network| network.redirect_names("nobody", 14)).unwrap_err();
    assert!(matches!(refused, LinkError::NoSandbox(name) if name == "nobody"));
}
