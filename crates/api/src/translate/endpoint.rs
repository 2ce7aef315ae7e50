//! A container's places on networks: what is asked of them, and how they are shown.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard_stubs::models;
use skep_engine::view::EndpointView;
use skep_types::container::EndpointRequest;

use super::nulls::{WithNulls, with_nulls};
use super::refuse::refuse;
use crate::error::ApiError;

/// Places by the name of their network.
pub type Endpoints = HashMap<String, WithNulls<models::EndpointSettings>>;

/// Under which a container's interface on a network would be named, or its sysctls set.
const ENDPOINT_OPTION: &str = "com.docker.network.endpoint.";

/// What is asked of a place on `network`; `at` names the object for refusals.
pub fn request(
    network: &str,
    at: &str,
    endpoint: models::EndpointSettings,
) -> Result<EndpointRequest, ApiError> {
    let models::EndpointSettings {
        ipam_config,
        links,
        mac_address,
        aliases,
        driver_opts,
        gw_priority,
        // Operational data: ignored, as in Docker.
        network_id: _,
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = endpoint;
    let models::EndpointIpamConfig { ipv4_address, ipv6_address, link_local_ips } =
        ipam_config.unwrap_or_default();
    let option = |field: &str| format!("{at}.{field}");
    refuse(&option("IPAMConfig.IPv6Address (--ip6)"), &ipv6_address)?;
    refuse(&option("IPAMConfig.LinkLocalIPs (--link-local-ip)"), &link_local_ips)?;
    refuse(&option("Links (--link)"), &links)?;
    let options = driver_opts.unwrap_or_default();
    let options: Vec<&String> = options.keys().filter(|name| name.starts_with(ENDPOINT_OPTION)).collect();
    refuse(&option("DriverOpts"), &options)?;
    Ok(EndpointRequest {
        network: network.to_owned(),
        aliases: aliases.unwrap_or_default(),
        address: ipv4_address.filter(|text| !text.is_empty()).map(|text| address(&text)).transpose()?,
        mac: mac_address.filter(|text| !text.is_empty()).map(|text| mac(&text)).transpose()?,
        priority: gw_priority.unwrap_or_default(),
    })
}

fn address(text: &str) -> Result<Ipv4Addr, ApiError> {
    let address: Option<Ipv4Addr> = text.parse().ok();
    let address = address.filter(|address| !address.is_unspecified());
    address
        .ok_or_else(|| ApiError::invalid(format!("invalid endpoint settings:\ninvalid IPv4 address: {text}")))
}

/// A hardware address, `02:42:ac:11:00:02`.
pub fn mac(text: &str) -> Result<[u8; 6], ApiError> {
    let invalid = || ApiError::invalid(format!("invalid MAC address: {text}"));
    let bytes: Result<Vec<u8>, _> =
        text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).map_err(|_| invalid())).collect();
    bytes?.try_into().map_err(|_| invalid())
}

/// A container's places as inspection and lists show them.
pub fn endpoints(endpoints: &[EndpointView]) -> Endpoints {
    let shown = |view: &EndpointView| {
        let model = endpoint(view);
        let names = [
            ("IPAMConfig", model.ipam_config.is_none()),
            ("Links", true),
            ("Aliases", model.aliases.is_none()),
            ("DriverOpts", true),
            ("DNSNames", model.dns_names.is_none()),
        ];
        (view.network.clone(), with_nulls(model, names))
    };
    endpoints.iter().map(shown).collect()
}

/// One of them.
pub fn endpoint(view: &EndpointView) -> models::EndpointSettings {
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    // Docker writes an empty object where a user network was named, and nothing for the default bridge.
    let asked = view.wish.address.map(|address| address.to_string());
    let ipam_config = (asked.is_some() || !view.dns_names.is_empty())
        .then(|| models::EndpointIpamConfig { ipv4_address: asked, ..Default::default() });
    models::EndpointSettings {
        ipam_config,
        aliases: list(&view.wish.aliases),
        dns_names: list(&view.dns_names),
        mac_address: Some(view.mac.clone()),
        gw_priority: Some(view.wish.priority),
        network_id: Some(view.network_id.clone()),
        endpoint_id: Some(view.endpoint_id.clone()),
        gateway: Some(view.gateway.map_or_else(String::new, |address| address.to_string())),
        ip_address: Some(view.address.map_or_else(String::new, |address| address.to_string())),
        ip_prefix_len: Some(i64::from(view.prefix)),
        ipv6_gateway: Some(view.gateway6.map_or_else(String::new, |address| address.to_string())),
        global_ipv6_address: Some(view.address6.map_or_else(String::new, |(address, _)| address.to_string())),
        global_ipv6_prefix_len: Some(view.address6.map_or(0, |(_, prefix)| i64::from(prefix))),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_place_is_read_or_refused_by_name() {
        let settings = models::EndpointSettings {
            aliases: Some(vec!["db".to_owned()]),
            mac_address: Some("02:42:ac:11:00:02".to_owned()),
            ipam_config: Some(models::EndpointIpamConfig {
                ipv4_address: Some("10.1.0.7".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let read = request("n", "EndpointConfig", settings.clone()).expect("all of it is built");
        assert_eq!((read.aliases, read.address), (vec!["db".to_owned()], Some(Ipv4Addr::new(10, 1, 0, 7))));
        assert_eq!(read.mac, Some([2, 0x42, 0xac, 0x11, 0, 2]));
        let links = models::EndpointSettings { links: Some(vec!["a:b".to_owned()]), ..settings };
        let refused = request("n", "EndpointConfig", links).expect_err("links are not built");
        assert_eq!(refused.to_string(), "option EndpointConfig.Links (--link) is not built yet");
        assert!(mac("02:42").is_err() && address("0.0.0.0").is_err());
    }
}
