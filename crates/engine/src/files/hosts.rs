//! /etc/hosts of a container.

use std::net::Ipv4Addr;

/// What Docker writes first (libnetwork's etchosts).
const HEAD: &str = "127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\n\
                    ff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n";

/// The address of `--add-host` that stands for the host as a container reaches it.
const HOST_GATEWAY: &str = "host-gateway";

/// The content of the file. `base` replaces the usual first lines: the host's own file under `--network host`.
/// `extra` holds `name:address`, `gateway` is what `host-gateway` stands for, and `addresses` are the container's.
pub(crate) fn content(
    base: Option<&str>,
    extra: &[String],
    gateway: Option<Ipv4Addr>,
    addresses: &[Ipv4Addr],
    hostname: &str,
    domainname: &str,
) -> String {
    let mut text = base.unwrap_or(HEAD).to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in extra {
        let Some((name, address)) = entry.split_once(':') else { continue };
        let address = match (address, gateway) {
            (HOST_GATEWAY, Some(gateway)) => gateway.to_string(),
            _ => address.trim_matches(['[', ']']).to_owned(),
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.extend(addresses.iter().map(|address| own_line(*address, hostname, domainname)));
    text
}

/// The line of one of the container's own addresses.
pub(crate) fn own_line(address: Ipv4Addr, hostname: &str, domainname: &str) -> String {
    if domainname.is_empty() {
        return format!("{address}\t{hostname}\n");
    }
    format!("{address}\t{hostname}.{domainname} {hostname}\n")
}

/// Checks a value of `--add-host`.
///
/// # Errors
/// What the client reads, in Docker's words.
pub(crate) fn check_extra(entry: &str) -> Result<(), String> {
    let parts = entry.split_once(':').filter(|(name, address)| !name.is_empty() && !address.is_empty());
    let Some((_, address)) = parts else { return Err(format!("bad format for add-host: {entry:?}")) };
    let bare = address.trim_matches(['[', ']']);
    if address == HOST_GATEWAY || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address in add-host: {address:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_finds_itself_and_its_extra_hosts() {
        let extra = ["db:10.1.2.3".to_owned(), "host:host-gateway".to_owned(), "six:::1".to_owned()];
        let gateway = Some(Ipv4Addr::new(172, 17, 0, 1));
        let text = content(None, &extra, gateway, &[Ipv4Addr::new(172, 17, 0, 2)], "web", "example.org");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("10.1.2.3\tdb\n172.17.0.1\thost\n::1\tsix\n172.17.0.2\tweb.example.org web\n")
        );
    }

    #[test]
    fn the_host_s_file_is_a_base_under_the_host_s_network() {
        assert_eq!(
            content(Some("1.2.3.4 x"), &["a:1.1.1.1".to_owned()], None, &[], "h", ""),
            "1.2.3.4 x\n1.1.1.1\ta\n"
        );
    }

    #[test]
    fn extra_hosts_are_checked() {
        for good in ["a:1.2.3.4", "a:::1", "a:[::1]", "a:host-gateway"] {
            assert_eq!(check_extra(good), Ok(()), "{good}");
        }
        for bad in ["a", "a:", ":1.2.3.4", "a:b"] {
            assert!(check_extra(bad).is_err(), "{bad}");
        }
    }
}
