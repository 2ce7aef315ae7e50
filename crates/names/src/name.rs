//! A name as the tables have it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name in text without its final dot, in bytes; with lengths and root it is 255 in a packet.
const NAME_LIMIT: usize = 253;
/// The longest label, in bytes.
const LABEL_LIMIT: usize = 63;

/// A name without its final dot, in lower case: names are the same whatever the case of their ASCII letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Box<str>);

impl Name {
    /// The name, unless no question could ever ask for it: a label is 1 to 63 bytes long, all of it at most 253.
    pub fn new(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = text.len() <= NAME_LIMIT
            && text.split('.').all(|label| !label.is_empty() && label.len() <= LABEL_LIMIT);
        fits.then(|| Name(text.to_ascii_lowercase().into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name below `domain`; `None` when that is too long.
    pub(crate) fn below(&self, domain: &Name) -> Option<Name> {
        Name::new(&format!("{self}.{domain}"))
    }

    /// The address that a name in `in-addr.arpa` or `ip6.arpa` stands for.
    pub(crate) fn address(&self) -> Option<std::net::IpAddr> {
        if let Some(labels) = self.0.strip_suffix(".in-addr.arpa") {
            let mut octets = [0; 4];
            let mut labels = labels.rsplit('.');
            for octet in &mut octets {
                let label = labels.next()?;
                // As `010` and `+1`, which are numbers elsewhere: such a name is nobody's.
                let is_plain = label.bytes().all(|byte| byte.is_ascii_digit())
                    && (label == "0" || !label.starts_with('0'));
                *octet = is_plain.then(|| label.parse().ok()).flatten()?;
            }
            return labels.next().is_none().then(|| octets.into());
        }
        let mut digits = self.0.strip_suffix(".ip6.arpa")?.rsplit('.');
        let mut bits: u128 = 0;
        for _ in 0..32 {
            let &[digit] = digits.next()?.as_bytes() else { return None };
            bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
        }
        digits.next().is_none().then(|| std::net::Ipv6Addr::from_bits(bits).into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn is_lower_case_and_without_its_final_dot() {
        assert_eq!(Name::new("Web.Shop.").expect("a name").as_str(), "web.shop");
    }

    #[test]
    fn refuses_what_no_packet_can_hold() {
        let label = "x".repeat(63);
        let longest = [label.as_str(), &label, &label, &"x".repeat(61)].join(".");
        assert!(Name::new(&longest).is_some());
        assert!(Name::new(&format!("{longest}x")).is_none());
        assert!(Name::new(&"x".repeat(64)).is_none());
        for text in ["", ".", "a..b", ".a", "a.."] {
            assert!(Name::new(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn reads_reverse_names() {
        let address =
            |text: &str| Name::new(text).expect("a name").address().map(|address| address.to_string());
        assert_eq!(address("4.3.2.10.in-addr.arpa").as_deref(), Some("10.2.3.4"));
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F.ip6.arpa";
        assert_eq!(address(six).as_deref(), Some("fd00::1"));
        for text in [
            "3.2.10.in-addr.arpa",
            "5.4.3.2.10.in-addr.arpa",
            "256.3.2.10.in-addr.arpa",
            "04.3.2.10.in-addr.arpa",
            "+4.3.2.10.in-addr.arpa",
            "1.0.ip6.arpa",
            "in-addr.arpa",
            "web",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
