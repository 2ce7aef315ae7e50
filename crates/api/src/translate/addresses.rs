//! Labels that say on which address of the nodes a service's published ports answer. Docker's API has no place for it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use skep_types::service::PortSpec;

use crate::error::ApiError;

/// The address for all published ports.
const ALL: &str = "skep.publish.address";

/// Gives ports the addresses that a service's labels name: `skep.publish.address=192.0.2.1` for all of them, or
/// `skep.publish.8080.address` for that published port, which comes first.
///
/// # Errors
/// 400 for a value that is no IPv4 address, and for a port that the service does not publish.
pub fn apply(
    mut ports: Vec<PortSpec>,
    labels: Option<&HashMap<String, String>>,
) -> Result<Vec<PortSpec>, ApiError> {
    for (label, value) in labels.into_iter().flatten() {
        let Some(which) = published_port(label)? else { continue };
        let address: Ipv4Addr = value.parse().map_err(|_| {
            ApiError::invalid(format!("label {label}: {value:?} is not an IPv4 address of the nodes"))
        })?;
        let address = Some(IpAddr::V4(address)).filter(|address| !address.is_unspecified());
        let one_by_one = |port: &PortSpec| {
            labels.is_some_and(|labels| {
                labels.contains_key(&format!("skep.publish.{}.address", port.published_port))
            })
        };
        let mut found = which.is_none();
        for port in &mut ports {
            let meant = which.map_or(!one_by_one(port), |which| which == port.published_port);
            if meant {
                port.address = address;
                found = true;
            }
        }
        if !found {
            return Err(ApiError::invalid(format!("label {label}: the service does not publish that port")));
        }
    }
    Ok(ports)
}

/// The port that a label is about, within: `None` for all. `None` for a label about something else.
fn published_port(label: &str) -> Result<Option<Option<u16>>, ApiError> {
    if label == ALL {
        return Ok(Some(None));
    }
    let middle = label.strip_prefix("skep.publish.").and_then(|rest| rest.strip_suffix(".address"));
    let Some(middle) = middle else { return Ok(None) };
    match middle.parse() {
        Ok(port) if port != 0 => Ok(Some(Some(port))),
        _ => Err(ApiError::invalid(format!("label {label}: {middle:?} is not a published port"))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use skep_types::port::Protocol;
    use skep_types::service::PublishMode;

    use super::*;

    fn addresses(labels: &[(&str, &str)]) -> Result<Vec<Option<IpAddr>>, String> {
        let port = |published_port| PortSpec {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port,
            mode: PublishMode::Ingress,
            address: None,
        };
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        let ports = apply(vec![port(8080), port(8443)], Some(&labels));
        ports.map(|ports| ports.iter().map(|port| port.address).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_of_its_own_comes_before_all_and_what_makes_no_sense_is_refused() {
        let given = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (all, one) = (("skep.publish.address", "192.0.2.1"), ("skep.publish.8443.address", "192.0.2.2"));
        assert_eq!(addresses(&[]).unwrap(), [None, None]);
        assert_eq!(addresses(&[("com.example", "1")]).unwrap(), [None, None]);
        assert_eq!(addresses(&[all]).unwrap(), [given("192.0.2.1"), given("192.0.2.1")]);
        assert_eq!(addresses(&[all, one]).unwrap(), [given("192.0.2.1"), given("192.0.2.2")]);
        assert_eq!(addresses(&[("skep.publish.address", "0.0.0.0")]).unwrap(), [None, None]);
        for (label, value, words) in [
            ("skep.publish.address", "eth0", "label skep.publish.address: \"eth0\" is not an IPv4 address"),
            ("skep.publish.80.address", "192.0.2.1", "the service does not publish that port"),
            ("skep.publish.web.address", "192.0.2.1", "\"web\" is not a published port"),
        ] {
            let error = addresses(&[(label, value)]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
