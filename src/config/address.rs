//! `listen` and `admin`: addresses to bind. Use as `#[serde(with = "address")]` and `#[serde(with = "address::or_off")]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const EXPECTED: &str = "an address such as 127.0.0.1:11434";

/// `IP:port`, `[IPv6]:port`, `:port` (all IPv4 addresses) or `name:port`, whose name is resolved here and now.
pub fn parse(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match host {
        "" => Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()),
        // Not left to the resolver, which may prefer ::1 and lose the clients that try 127.0.0.1 only.
        "localhost" => Some((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()),
        name => (name, port).to_socket_addrs().ok()?.next(),
    }
}

/// Reads an address.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = text(deserializer, EXPECTED)?;
    parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
}

fn text<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<String, D::Error> {
    String::deserialize(deserializer)
        .map_err(|_| D::Error::invalid_type(Unexpected::Other("no text"), &expected))
}

/// Writes `IP:port`.
pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    address.serialize(serializer)
}

/// An address, or `off`.
pub mod or_off {
    use super::{Deserializer, Error, Serialize, Serializer, SocketAddr, Unexpected, parse};

    const EXPECTED: &str = "an address such as 127.0.0.1:11435, or off";

    /// Reads an address; `None` for `off`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = super::text(deserializer, EXPECTED)?;
        if text == "off" {
            return Ok(None);
        }
        let address =
            parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))?;
        Ok(Some(address))
    }

    /// Writes `IP:port` or `off`.
    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => address.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_the_host_out_or_name_it() {
        for (text, address) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            (":80", Some("0.0.0.0:80")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("127.0.0.1", None),
            ("127.0.0.1:x", None),
            ("127.0.0.1:65536", None),
            ("", None),
        ] {
            assert_eq!(parse(text), address.map(|a| a.parse().unwrap()), "{text}");
        }
    }
}
