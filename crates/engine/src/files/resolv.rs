//! /etc/resolv.conf of a container.

use std::net::IpAddr;

/// What Docker falls back to when the host has only name servers that a container cannot reach.
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Where systemd-resolved keeps the servers behind its own at 127.0.0.53.
pub(crate) const SYSTEMD_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// The host's own file.
pub(crate) const HOST: &str = "/etc/resolv.conf";

/// Settings of a container or the daemon, each of which replaces the host's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides<'a> {
    pub(crate) servers: &'a [String],
    pub(crate) search: &'a [String],
    pub(crate) options: &'a [String],
}

impl Overrides<'_> {
    fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty() && self.options.is_empty()
    }
}

/// Which file to start from, given the host's own: systemd-resolved's when the host asks only that.
pub(crate) fn source(host: &str) -> &'static str {
    let servers: Vec<&str> = values(host, "nameserver").collect();
    if servers.as_slice() == ["127.0.0.53"] { SYSTEMD_RESOLVED } else { HOST }
}

/// The content for a container with a network namespace of its own: the host's without name servers on its loopback,
/// which a container cannot reach. As Docker does for the default bridge, public servers serve when none is left.
pub(crate) fn content(host: &str, overrides: Overrides<'_>) -> String {
    with_servers(host, &servers(host, overrides), overrides)
}

/// The content for a container on the host's network, which reaches whatever the host does.
pub(crate) fn shared(host: &str, overrides: Overrides<'_>) -> String {
    if overrides.is_empty() {
        return host.to_owned();
    }
    let own = || values(host, "nameserver").map(str::to_owned).collect();
    let servers = if overrides.servers.is_empty() { own() } else { overrides.servers.to_vec() };
    with_servers(host, &servers, overrides)
}

fn with_servers(host: &str, servers: &[String], overrides: Overrides<'_>) -> String {
    let mut lines: Vec<String> = host
        .lines()
        .filter(|line| {
            let keyword = line.split_whitespace().next().unwrap_or_default();
            match keyword {
                "nameserver" => false,
                "search" | "domain" => overrides.search.is_empty(),
                "options" => overrides.options.is_empty(),
                _ => !line.trim().is_empty(),
            }
        })
        .map(str::to_owned)
        .collect();
    lines.splice(0..0, servers.iter().map(|server| format!("nameserver {server}")));
    if !overrides.search.is_empty() && overrides.search != ["."] {
        lines.push(format!("search {}", overrides.search.join(" ")));
    }
    if !overrides.options.is_empty() {
        lines.push(format!("options {}", overrides.options.join(" ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The content for a container whose names are answered at 127.0.0.11: the host's search domains and options, and as
/// Docker's an `ndots` of 0, so that names of one label are asked for as they are.
pub(crate) fn internal(host: &str, overrides: Overrides<'_>) -> String {
    let search = last(host, "search", overrides.search);
    let mut options = last(host, "options", overrides.options);
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text = format!("nameserver {}\n", skep_names::ADDRESS);
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text.push_str(&format!("options {}\n", options.join(" ")));
    text
}

/// What is given, or the words of the last line of the host's with this keyword.
fn last(host: &str, keyword: &str, given: &[String]) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let mut lines = host.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    lines.next_back().unwrap_or_default()
}

fn servers(host: &str, overrides: Overrides<'_>) -> Vec<String> {
    if !overrides.servers.is_empty() {
        return overrides.servers.to_vec();
    }
    let reachable: Vec<String> = values(host, "nameserver")
        .filter(|server| {
            // A zone (`fe80::1%eth0`) names an interface that only the host has.
            server.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
        })
        .map(str::to_owned)
        .collect();
    if reachable.is_empty() { FALLBACK.map(str::to_owned).to_vec() } else { reachable }
}

fn values<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_left_out() {
        let host = "# made by hand\nnameserver 127.0.0.1\nnameserver 10.0.0.53\nsearch example.org\noptions ndots:2\n";
        assert_eq!(
            content(host, Overrides::default()),
            "nameserver 10.0.0.53\n# made by hand\nsearch example.org\noptions ndots:2\n"
        );
    }

    #[test]
    fn public_servers_serve_when_none_is_left() {
        for host in ["", "nameserver 127.0.0.53\n", "nameserver ::1\nnameserver fe80::1%eth0"] {
            assert_eq!(content(host, Overrides::default()), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        }
        assert_eq!(source("nameserver 127.0.0.53\noptions edns0"), SYSTEMD_RESOLVED);
        assert_eq!(source("nameserver 127.0.0.53\nnameserver 1.1.1.1"), HOST);
    }

    #[test]
    fn names_are_asked_for_inside() {
        let host = "nameserver 10.0.0.53\nsearch example.org a.b\noptions edns0 ndots:2\n";
        let text = internal(host, Overrides::default());
        assert_eq!(text, "nameserver 127.0.0.11\nsearch example.org a.b\noptions edns0 ndots:2\n");
        assert_eq!(internal("", Overrides::default()), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn the_host_s_network_keeps_the_host_s_servers() {
        let host = "nameserver 127.0.0.53\n# kept\nsearch x\n";
        assert_eq!(shared(host, Overrides::default()), host);
        let search = ["a.b".to_owned()];
        let overrides = Overrides { search: &search, ..Overrides::default() };
        assert_eq!(shared(host, overrides), "nameserver 127.0.0.53\n# kept\nsearch a.b\n");
    }

    #[test]
    fn settings_replace_the_host_s() {
        let (servers, search, options) = (["1.1.1.1".to_owned()], ["a.b".to_owned()], ["ndots:1".to_owned()]);
        let overrides = Overrides { servers: &servers, search: &search, options: &options };
        assert_eq!(
            content("nameserver 2.2.2.2\nsearch x\ndomain y\noptions z\n", overrides),
            "nameserver 1.1.1.1\nsearch a.b\noptions ndots:1\n"
        );
    }
}
