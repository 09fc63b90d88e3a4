//! [`Sites`]: where clients are, by a header or by their address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::site::{Location, Site, Zone};

/// How the place of a client is found; for `geographic` and `multi_objective`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SitesConfig {
    /// The request header that says it: a zone, `latitude,longitude`, or both with `;` between.
    pub header: String,
    /// Networks of clients; the narrowest counts.
    pub networks: Vec<NetworkConfig>,
}

impl Default for SitesConfig {
    fn default() -> Self {
        Self { header: "X-Client-Site".to_owned(), networks: Vec::new() }
    }
}

/// Where the clients of a network are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its addresses.
    pub cidr: Cidr,
    /// Its zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its place on the globe.
    #[serde(default)]
    pub location: Option<Location>,
}

impl SitesConfig {
    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if http::HeaderName::from_str(&self.header).is_err() {
            faults.push(("header", "expected the name of a header".to_owned()));
        }
        let says_nothing = |network: &&NetworkConfig| network.zone.is_none() && network.location.is_none();
        faults.extend(
            self.networks
                .iter()
                .find(says_nothing)
                .map(|network| ("networks", format!("{} has neither a zone nor a location", network.cidr))),
        );
        faults
    }
}

/// Addresses with the same first bits, such as `10.0.0.0/8`; a single address has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.masked(address) == self.masked(self.address)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let (number, width) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), Ipv6Addr::BITS),
        };
        number.checked_shr(width - u32::from(self.bits)).unwrap_or_default()
    }
}

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = if text.contains('/') { bits.parse().map_err(|_| EXPECTED)? } else { most };
        if bits > most { Err(EXPECTED) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The table, narrowest networks first.
#[derive(Clone, Debug, Default)]
pub struct Sites(Vec<(Cidr, Site)>);

impl Sites {
    /// The table of the config.
    pub fn new(config: &SitesConfig) -> Self {
        let mut networks: Vec<_> = config
            .networks
            .iter()
            .map(|network| {
                let zone = network.zone.as_deref().map(Zone::of);
                (network.cidr, Site { zone, location: network.location })
            })
            .collect();
        networks.sort_by_key(|(cidr, _)| std::cmp::Reverse(cidr.bits));
        Self(networks)
    }

    /// Where a client is: what the header says, else what its address says. It is the client's word, and no more than the choice
    /// of a node depends on it.
    pub fn find(&self, header: Option<&str>, address: Option<IpAddr>) -> Site {
        let said = header.and_then(Site::parse);
        let looked_up = || {
            let address = address?.to_canonical();
            self.0.iter().find(|(cidr, _)| cidr.contains(address)).map(|(_, site)| *site)
        };
        said.or_else(looked_up).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_narrowest_network_says_where_a_client_is_unless_a_header_does() {
        let config: SitesConfig = serde_json::from_value(json!({ "networks": [
            { "cidr": "10.0.0.0/8", "zone": "wide" },
            { "cidr": "10.1.0.0/16", "zone": "narrow", "location": [52.4, 4.9] },
            { "cidr": "2001:db8::/32", "zone": "six" },
            { "cidr": "192.0.2.7", "zone": "one" },
        ] }))
        .unwrap();
        assert!(config.faults().is_empty());
        let sites = Sites::new(&config);
        let zone = |header, address: &str| sites.find(header, address.parse().ok()).zone;
        for (address, expected) in [
            ("10.1.2.3", Some("narrow")),
            ("10.2.0.1", Some("wide")),
            ("::ffff:10.2.0.1", Some("wide")),
            ("2001:db8::1", Some("six")),
            ("192.0.2.7", Some("one")),
            ("192.0.2.8", None),
            ("::1", None),
        ] {
            assert_eq!(zone(None, address), expected.map(Zone::of), "{address}");
            assert_eq!(zone(Some("said"), address), Some(Zone::of("said")));
        }
        assert_eq!(zone(Some(",,"), "10.2.0.1"), Some(Zone::of("wide")), "a header that says nothing");
        assert_eq!(sites.find(None, None), Site::default());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "a/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        let nowhere = json!({ "header": "a b", "networks": [{ "cidr": "::/0" }] });
        let faults = serde_json::from_value::<SitesConfig>(nowhere).unwrap().faults();
        assert_eq!(faults.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["header", "networks"]);
    }

    proptest! {
        #[test]
        fn a_network_contains_exactly_the_addresses_with_its_first_bits(a: u32, b: u32, bits in 0..=32_u8) {
            let cidr = Cidr { address: IpAddr::V4(a.into()), bits };
            prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
            prop_assert_eq!(cidr.contains(IpAddr::V4(b.into())), (a ^ b).leading_zeros() >= u32::from(bits));
        }
    }
}
